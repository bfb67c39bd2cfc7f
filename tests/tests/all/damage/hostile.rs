//! A topic that others write to as well, with everything that Kafka allows them: nobody is stopped
//! or misled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::command::{Answer, Decision, Request};
use engine::{Engine, EngineOptions};
use event_log::chain::{Chain, Orphan, Verdict};
use event_log::copy::copy;
use event_log::create::first_claim;
use event_log::log::{EventLog, LogAddress, StoreOptions};
use event_log::record::{
    ClaimHeaders, Header, Headers, Kind as RecordKind, NewRecord, RECORD_VERSION, Record,
};
use event_log::subscription::Subscription;
use event_log::verify::verify;
use position::{LogId, Offset, Partition, Term, WriterId};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tests::harness::logs::{self, Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;
use tests::harness::unique_name;
use uuid::Uuid;

use super::PATIENCE;
use crate::raw_log::{RawProducer, again, change_headers, foreign, read_all};
use crate::write_side::{place, request, shop, start};

const PARTITIONS: u32 = 2;

/// Someone else with the right to write to the topic.
struct Stranger {
    topic: String,
    plain: RawProducer,
    transactional: RawProducer,
    /// A producer whose transaction is never ended.
    open: RawProducer,
}

impl Stranger {
    fn at(address: &LogAddress) -> Self {
        let LogAddress::Kafka { brokers, topic } = address else {
            unreachable!("only a topic has strangers")
        };
        let transactional = || {
            let id = unique_name("stranger");
            let producer = RawProducer::new(brokers, &[("transactional.id", &id)]);
            producer.init_transactions();
            producer
        };
        let stranger = Self {
            topic: topic.clone(),
            plain: RawProducer::new(brokers, &[]),
            transactional: transactional(),
            open: transactional(),
        };
        stranger.open.begin_transaction();
        stranger
    }

    fn write(&self, partition: Partition, records: &[NewRecord]) {
        self.plain.write(&self.topic, partition, records);
    }

    /// Leaves an open, an aborted and a committed transaction: foreign records, and offsets without
    /// a record.
    fn transact(&self, partition: Partition) {
        let junk = [foreign("in a transaction")];
        self.open.write(&self.topic, partition, &junk);
        for commit in [false, true] {
            self.transactional.begin_transaction();
            self.transactional.write(&self.topic, partition, &junk);
            self.transactional.end_transaction(commit);
        }
    }
}

fn bytes(text: &'static [u8]) -> Bytes {
    Bytes::from_static(text)
}

/// Records that have nothing in common with ours.
pub(crate) fn junk() -> Vec<NewRecord> {
    let empty = NewRecord {
        key: None,
        value: None,
        headers: Headers::default(),
    };
    let with_headers = |headers: Vec<Header<'_>>| NewRecord {
        headers: headers.into_iter().collect(),
        ..foreign("headers")
    };
    vec![
        empty.clone(),
        NewRecord {
            key: Some(Bytes::new()),
            value: Some(Bytes::new()),
            ..empty.clone()
        },
        NewRecord {
            key: Some(bytes(b"main/order-1")),
            ..empty
        },
        NewRecord {
            value: Some(vec![0xff; 900_000].into()),
            ..foreign("huge")
        },
        with_headers(vec![(b"\xff\xfe\x80", Some(b"no text"))]),
        with_headers(vec![(b"annals-kind\xff", Some(b"commit"))]),
        with_headers(vec![(b"", None); 200]),
        with_headers(vec![(b"annals-kind", Some(b"commit"))]),
        with_headers(vec![(b"annals-kind", None)]),
    ]
}

/// Records that resemble one of ours but do not count.
pub(crate) fn imitations(of: &Record) -> Vec<NewRecord> {
    let changes: [fn(&mut Vec<Header<'_>>); 11] = [
        |headers| headers.swap(1, 2),
        |headers| headers.reverse(),
        |headers| headers.push(headers[0]),
        |headers| headers.insert(0, headers[0]),
        |headers| headers[1].1 = Some(b"\0\0\0\0\0\0\x01"),
        |headers| headers[1].1 = Some(b"\0\0\0\0\0\0\0\0\x01"),
        |headers| headers[2].1 = None,
        |headers| headers[3].1 = Some(b""),
        |headers| headers[0].1 = Some(b"Commit"),
        |headers| headers[4].0 = b"annals-previou\xff",
        |headers| headers.truncate(4),
    ];
    let mut imitations = vec![NewRecord {
        value: None,
        ..again(of)
    }];
    for change in changes {
        let mut record = again(of);
        change_headers(&mut record, change);
        imitations.push(record);
    }
    imitations
}

/// Our own records once more, and claims that do not count.
async fn leftovers(log: &dyn EventLog, partition: Partition) -> Vec<NewRecord> {
    let (mut claims, mut commits) = (Vec::new(), Vec::new());
    for record in read_all(log, partition).await {
        match RecordKind::of(&record) {
            RecordKind::Claim(_) => claims.push(again(&record)),
            RecordKind::Commit(_) => commits.push(again(&record)),
            RecordKind::Foreign => {}
        }
    }
    claims.truncate(2);
    claims.push(claim(1, LogId(Uuid::from_u128(1))));
    claims.push(claim(5_000, log_of(log).await));
    // The first commits have earlier terms, the last ones the current term.
    claims.extend_from_slice(&commits[..2.min(commits.len())]);
    claims.extend_from_slice(&commits[commits.len().saturating_sub(2)..]);
    claims
}

async fn log_of(log: &dyn EventLog) -> LogId {
    first_claim(log, Partition(0)).await.unwrap().unwrap().log
}

fn claim(term: u64, log: LogId) -> NewRecord {
    let headers = ClaimHeaders {
        term: Term(term),
        writer: WriterId(Uuid::new_v4()),
        log,
        version: RECORD_VERSION,
    };
    headers.record(bytes(b"not even JSON"))
}

/// Writes all of these records into every partition.
async fn strike(stranger: &Stranger, log: &dyn EventLog) {
    for partition in (0..PARTITIONS).map(Partition) {
        stranger.write(partition, &junk());
        stranger.transact(partition);
        for record in leftovers(log, partition).await {
            let of = Record::at(Offset(0), record.clone());
            stranger.write(partition, &[record]);
            if matches!(RecordKind::of(&of), RecordKind::Commit(_)) {
                stranger.write(partition, &imitations(&of));
                break;
            }
        }
        stranger.write(partition, &leftovers(log, partition).await);
    }
}

/// The commands of some orders, each with the expected version and the expected code.
fn commands(orders: std::ops::Range<u32>) -> Vec<(Request, u64, &'static str)> {
    let mut commands = Vec::new();
    for order in orders {
        let stream = format!("order-{order}");
        let mut add = |id: &str, command: &str, data, version, code| {
            commands.push((request(&stream, command, id, &data), version, code));
        };
        add("a", "PlaceOrder", place(), 1, "accepted");
        add("b", "ShipOrder", json!({}), 1, "order_not_approved");
        add("c", "ApproveOrder", json!({}), 2, "accepted");
        add("d", "ShipOrder", json!({}), 3, "accepted");
        add("e", "PlaceOrder", place(), 3, "accepted");
    }
    commands
}

fn code(answer: &Answer) -> &str {
    match &answer.decision {
        Decision::Accepted(_) => "accepted",
        Decision::Rejected(rejection) => &rejection.code,
    }
}

/// Sends the commands of some orders, and compares the answers with the expected ones.
async fn shop_for(engine: &Engine, orders: std::ops::Range<u32>, repeated: bool) {
    let mut batch = engine.batch();
    let mut pending = Vec::new();
    for (request, version, code) in commands(orders) {
        let stream = request.stream.clone();
        let command = engine.prepare(request).unwrap();
        let answer = batch.submit(command, Instant::now() + PATIENCE).await;
        pending.push((answer, stream, version, code));
    }
    for (answer, stream, version, expected) in pending {
        let answer = answer.await.unwrap();
        let found = (answer.version, code(&answer), answer.repeated);
        assert_eq!(found, (version, expected, repeated), "{stream}");
    }
}

async fn start_without_store(log: &NewLog) -> Engine {
    let options = EngineOptions::alone(None);
    let engine = Engine::start(Arc::clone(&log.log), shop(), options);
    let engine = engine.await.unwrap();
    engine.ready(PATIENCE).await.unwrap();
    engine
}

/// What the read models hold after these commands, without the columns that depend on the log.
async fn rows(log: &Arc<dyn EventLog>, postgres: &Postgres) -> Vec<String> {
    let url = postgres.create_database().await;
    projector::migrate(&url).await.unwrap();
    projector::catch_up(log, &url, &read_models(), Box::new(|_| {}))
        .await
        .unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut rows = Vec::new();
    for (columns, view) in [
        (
            "order_id, status, placed_at, shipped_at, item_count, items_minor, version",
            "order_summary",
        ),
        ("day, currency, orders, items_minor", "daily_sales"),
        ("command_id, stream, command, code", "rejections"),
        ("stream, version, events", "stream_index"),
    ] {
        let select = format!("SELECT concat_ws('|', {columns}) FROM read.{view} ORDER BY 1");
        let found = sqlx::query_scalar(AssertSqlSafe(select));
        let found: Vec<String> = found.fetch_all(&mut connection).await.unwrap();
        assert!(!found.is_empty(), "{view}");
        rows.extend(found);
    }
    rows
}

/// How many counting commits come after a record that does not count, or after an offset without a
/// record.
async fn commits_behind_a_gap(log: &dyn EventLog, partition: Partition) -> usize {
    let mut chain = Chain::genesis(partition);
    let mut gaps = 0;
    for record in read_all(log, partition).await {
        let before = chain.accepted_offset.map(Offset::next);
        let verdict = chain.judge(&record).unwrap();
        gaps += usize::from(
            matches!(verdict, Verdict::Commit(_))
                && before.is_some_and(|next| next < record.offset),
        );
    }
    gaps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_topic_stops_nobody_and_misleads_nobody() {
    let log = NewLog::make(Kind::Kafka, PARTITIONS).await;
    let stranger = Stranger::at(&log.address);
    strike(&stranger, &*log.log).await;
    let engine = start(&log).await;
    shop_for(&engine, 0..5, false).await;
    strike(&stranger, &*log.log).await;
    shop_for(&engine, 5..10, false).await;
    // A foreign record comes before each command, so that every acknowledgement has a gap before
    // it.
    for order in 10..30 {
        for partition in (0..PARTITIONS).map(Partition) {
            stranger.write(partition, &[foreign("between")]);
        }
        shop_for(&engine, order..order + 1, false).await;
    }
    // Now foreign records also come between the commits of one batch: any acknowledgement may have
    // a gap before it.
    let mut left = Vec::new();
    for partition in (0..PARTITIONS).map(Partition) {
        left.push((partition, leftovers(&*log.log, partition).await));
    }
    let striking = Arc::new(AtomicBool::new(true));
    let strikes = {
        let striking = Arc::clone(&striking);
        std::thread::spawn(move || {
            for count in 0_u64.. {
                for (partition, left) in &left {
                    stranger.write(*partition, &junk()[..3]);
                    stranger.write(*partition, left);
                    if count.is_multiple_of(20) {
                        stranger.transact(*partition);
                    }
                }
                if !striking.load(Ordering::SeqCst) {
                    break;
                }
            }
            stranger
        })
    };
    for order in 30..100 {
        shop_for(&engine, order..order + 1, false).await;
    }
    striking.store(false, Ordering::SeqCst);
    let stranger = strikes.join().unwrap();
    shop_for(&engine, 0..100, true).await;
    engine.drain(PATIENCE).await;
    drop(engine);
    strike(&stranger, &*log.log).await;

    let engine = start(&log).await;
    shop_for(&engine, 0..100, true).await;
    engine.drain(PATIENCE).await;
    drop(engine);
    let engine = start_without_store(&log).await;
    shop_for(&engine, 0..100, true).await;
    shop_for(&engine, 100..101, false).await;
    engine.drain(PATIENCE).await;
    strike(&stranger, &*log.log).await;

    let report = verify(&*log.log, &shop(), &[], |_, _| {}).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let commits: u64 = report
        .partitions
        .iter()
        .map(|p| p.accepted + p.rejected)
        .sum();
    assert_eq!(commits, 101 * 5);
    for part in &report.partitions {
        for reason in [
            Orphan::Late,
            Orphan::Losing,
            Orphan::Duplicate,
            Orphan::Foreign,
        ] {
            assert!(part.orphans.contains_key(&reason), "{reason:?}: {part:?}");
        }
        assert!(
            part.records < part.end_offset.0,
            "there are offsets without records"
        );
    }

    for partition in (0..PARTITIONS).map(Partition) {
        let gaps = commits_behind_a_gap(&*log.log, partition).await;
        assert!(
            gaps > 10,
            "{gaps}: hardly any command met a stranger's record"
        );
        let place = report.partitions[partition.0 as usize].position;
        let mut follower = Subscription::new(Arc::clone(&log.log), vec![(partition, None)]);
        let (deadline, mut at) = (Instant::now() + PATIENCE, None);
        while at != Some(place) {
            assert!(
                Instant::now() < deadline,
                "the subscription stays at {at:?}"
            );
            for batch in follower.next(Duration::from_millis(100)).await.unwrap() {
                at = Some(batch.after.position);
            }
        }
    }

    let quiet = NewLog::make(Kind::Sqlite, PARTITIONS).await;
    let engine = start(&quiet).await;
    shop_for(&engine, 0..101, false).await;
    engine.drain(PATIENCE).await;
    let postgres = Postgres::start();
    assert_eq!(
        rows(&log.log, &postgres).await,
        rows(&quiet.log, &postgres).await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_claims_again_and_again_changes_no_answer() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let log = NewLog::make(kind, PARTITIONS).await;
        let engine = start(&log).await;
        let id = log_of(&*log.log).await;
        for round in 0..4_u32 {
            // Others can write only to a topic; a file has one writer.
            if kind == Kind::Kafka {
                let stranger = Stranger::at(&log.address);
                for partition in (0..PARTITIONS).map(Partition) {
                    // The term is above the current one, however often the owner has claimed
                    // meanwhile.
                    stranger.write(partition, &[claim(u64::from(round + 1) * 500, id)]);
                }
            }
            shop_for(&engine, round * 10..round * 10 + 10, false).await;
        }
        shop_for(&engine, 0..40, true).await;
        engine.drain(PATIENCE).await;
        let report = verify(&*log.log, &shop(), &[], |_, _| {}).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        let claims: u64 = report.partitions.iter().map(|p| p.claims).sum();
        let expected = if kind == Kind::Kafka { 4 + 16 } else { 4 };
        assert!(claims >= expected, "{kind:?}: {claims}");
        let commits: u64 = report
            .partitions
            .iter()
            .map(|p| p.accepted + p.rejected)
            .sum();
        assert_eq!(commits, 40 * 5, "{kind:?}: each once");
    }
}

#[tokio::test]
async fn a_hostile_topic_is_copied_whole() {
    let log = NewLog::make(Kind::Kafka, PARTITIONS).await;
    let stranger = Stranger::at(&log.address);
    let engine = start(&log).await;
    shop_for(&engine, 0..5, false).await;
    strike(&stranger, &*log.log).await;
    shop_for(&engine, 5..10, false).await;
    engine.drain(PATIENCE).await;
    strike(&stranger, &*log.log).await;

    let folder = tempfile::tempdir().unwrap();
    let address = logs::address(Kind::Sqlite, &folder);
    let options = StoreOptions {
        partition_count: PARTITIONS,
        replication: 1,
    };
    let copied = copy(&*log.log, &address, options, |_| {}).await.unwrap();
    assert_eq!(copied.log_id, log.id);
    let target = event_log::log::open(&address).await.unwrap();
    for partition in (0..PARTITIONS).map(Partition) {
        let [from, to] = [&log.log, &target].map(async |log| {
            let records = read_all(&**log, partition).await;
            records.iter().map(again).collect::<Vec<_>>()
        });
        let (from, mut to) = (from.await, to.await);
        to.pop().expect("the claim that ends a copy");
        assert!(from == to, "partition {partition}");
    }
    let report = verify(&*target, &shop(), &[], |_, _| {}).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}
