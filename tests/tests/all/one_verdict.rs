//! All readers agree on damage: whatever was changed in a log, the owner, the follower, `annals log
//! verify` and the checker name the same place, or none.
//!
//! A valid log is changed at random: bytes of values and keys, headers, versions, order. Then, as
//! an attacker who knows the format would do, the test links every record after the change again.

use std::collections::BTreeSet;

use bytes::Bytes;
use checker::check::{Checker, Options};
use checker::dump::RawRecord;
use checker::report::{Evidence, Kind as Fault};
use engine::owner::{Action, Entropy, LogAction, NoStore, Now, Owner, OwnerSettings, Phase};
use event_log::chain::{Acknowledged, Stop};
use event_log::log::{self, Chunk, LogPlace};
use event_log::record::{Kind, NewRecord, Record};
use event_log::subscription::Follower;
use event_log::verify::verify;
use kernel::Timestamp;
use kernel::registry::Registry;
use position::{Offset, Partition};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt, SeedableRng};
use tests::harness::logs::Kind as LogKind;

use crate::history::{Scribe, log_id};
use crate::raw_log::{RawLog, edit};

const LOGS: u64 = 120;
/// Replays the log of this seed instead of new ones.
pub(crate) const SEED: &str = "ANNALS_TESTS_SEED";
const STREAMS: [&str; 3] = ["thing-a", "thing-b", "thing-c"];
const P0: Partition = Partition(0);

/// Where a reader stops; `None` if it does not stop.
type Place = Option<Offset>;

struct Counting(u128);

impl Entropy for Counting {
    fn bytes(&mut self) -> [u8; 16] {
        self.0 += 1;
        self.0.to_be_bytes()
    }
}

fn place(stop: &Stop) -> Offset {
    stop.place().expect("a stop within the log").1
}

fn owners_verdict(records: &[Record], acknowledged: &Acknowledged) -> Place {
    let (registry, settings) = (Registry::new(), OwnerSettings::default());
    let (store, entropy) = (Box::new(NoStore), Box::new(Counting(0)));
    let mut owner: Owner<()> = Owner::new(P0, registry, settings, store, entropy);
    owner.pass(acknowledged.clone());
    owner.start(Offset(0));
    let now = Now {
        wall: Timestamp::from_micros(1_800_000_000_000_000).unwrap(),
        monotonic_ms: 0,
        boottime_ms: 0,
    };
    for action in owner.take_actions() {
        if let Action::Log(LogAction::Read { from }) = action {
            let chunk = Chunk {
                partition: P0,
                records: records
                    .iter()
                    .filter(|r| r.offset >= from)
                    .cloned()
                    .collect(),
                next: records.last().map_or(from, |last| last.offset.next()),
                at_end: true,
            };
            owner.read(Ok(chunk), now);
        }
    }
    match owner.phase() {
        Phase::Stopped(stop) => Some(place(stop)),
        _ => None,
    }
}

fn followers_verdict(records: &[Record], acknowledged: &Acknowledged) -> Place {
    let mut follower = Follower::new(P0, None).passing(acknowledged.clone());
    let stop = records
        .iter()
        .find_map(|record| follower.take(record.clone()).err());
    stop.as_ref().map(place)
}

/// The verdicts of followers that resume, one from each place before the damage.
fn resumed_verdicts(records: &[Record], acknowledged: &Acknowledged) -> BTreeSet<Place> {
    let mut verdicts = BTreeSet::new();
    for until in 1..records.len() {
        let mut first = Follower::new(P0, None).passing(acknowledged.clone());
        if records[..until]
            .iter()
            .any(|record| first.take(record.clone()).is_err())
        {
            break;
        }
        let Some(batch) = first.batch() else { continue };
        let mut resumed = Follower::new(P0, Some(batch.after)).passing(acknowledged.clone());
        for place in resumed.places_to_recall() {
            let index = usize::try_from(place.0).unwrap();
            resumed.recall(&records[index]);
        }
        let rest = records[until..].iter();
        let stop = rest
            .clone()
            .find_map(|record| resumed.take(record.clone()).err());
        verdicts.insert(stop.as_ref().map(place));
    }
    verdicts
}

fn checkers_verdict(records: &[Record], acknowledged: &Acknowledged) -> Place {
    let mut checker = Checker::new(Options::default());
    let places = acknowledged.iter();
    checker.acknowledge(places.map(|((partition, offset), _)| (partition.0, offset.0)));
    for record in records {
        let bytes = |bytes: &Bytes| bytes.to_vec();
        let raw = RawRecord {
            offset: record.offset.0,
            key: record.key.as_ref().map(bytes),
            value: record.value.as_ref().map(bytes),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        };
        checker.record(0, &raw).unwrap();
    }
    let report = checker.finish();
    let faults = report.violations.iter();
    let faults =
        faults.filter(|v| matches!(v.kind, Fault::Damage | Fault::Gap | Fault::NewerFormat));
    let places = faults
        .flat_map(|violation| &violation.evidence)
        .filter_map(|evidence| match evidence {
            Evidence::Log { offset, .. } => Some(Offset(*offset)),
            _ => None,
        });
    places.min()
}

/// All verdicts on one log; the readers pass the acknowledged places.
async fn verdicts(raw: &RawLog, acknowledged: Acknowledged) -> Vec<(&'static str, Place)> {
    let place = LogPlace {
        acknowledged: acknowledged.clone(),
        ..LogPlace::from(&raw.address)
    };
    let log = log::open(place).await.unwrap();
    let records = log.read(P0, Offset(0)).await.unwrap().records;
    let report = verify(&*log, &Registry::new(), &[], |_, _| {})
        .await
        .unwrap();
    vec![
        ("owner", owners_verdict(&records, &acknowledged)),
        ("follower", followers_verdict(&records, &acknowledged)),
        ("verify", report.partitions[0].damage_offset),
        ("checker", checkers_verdict(&records, &acknowledged)),
    ]
}

fn agreed(said: &[(&'static str, Place)], about: &str) -> Place {
    let first = said[0].1;
    assert!(
        said.iter().all(|(_, place)| *place == first),
        "{said:?}: {about}"
    );
    first
}

/// What a writer would have appended: the key and the value of a claim or a commit.
type Said = (Option<Bytes>, Bytes);

fn valid(random: &mut StdRng) -> Vec<Said> {
    let mut scribe = Scribe::new();
    scribe.claim();
    for _ in 0..random.random_range(3..12) {
        match random.random_range(0..8) {
            0 => scribe.claim(),
            _ => scribe.commits(&[STREAMS.choose(random).unwrap()]),
        };
    }
    let said = |record: &NewRecord| (record.key.clone(), record.value.clone().unwrap());
    scribe.records().iter().map(said).collect()
}

/// Records of a partition with these keys and values, each linked to the one before.
fn linked(partition: Partition, said: &[Said]) -> Vec<NewRecord> {
    let mut scribe = Scribe::of(partition, log_id());
    for (key, value) in said {
        match key {
            None => scribe.claim(),
            Some(key) => {
                let key = String::from_utf8_lossy(key).into_owned();
                let record = scribe.record_of(&key, value.clone(), |_| {});
                scribe.add(record)
            }
        };
    }
    scribe.records().to_vec()
}

const VERSIONS: [u64; 7] = [0, 1, 2, 7, 1 << 63, u64::MAX - 1, u64::MAX];

/// Words of a commit, and what someone could replace them with.
const WORDS: [(&str, &str); 12] = [
    ("\"accepted\"", "\"rejected\""),
    ("\"accepted\"", "\"maybe\""),
    ("\"schema\":1", "\"schema\":-1"),
    ("\"schema\":1", "\"schema\":2"),
    ("\"stream\":\"thing", "\"stream\":\"Thing"),
    (
        "\"stream\":\"thing",
        "\"tenant\":\"north\",\"stream\":\"thing",
    ),
    ("\"recorded_at\":\"2", "\"recorded_at\":\"+2"),
    ("\"recorded_at\":\"20", "\"recorded_at\":\"00"),
    ("Z\"", "+00:00\""),
    ("\"events\":[", "\"events\":[null,"),
    ("\"from_version\"", "\"version\""),
    ("\"command\":{", "\"more\":1,\"command\":{"),
];

/// Changes the content of one commit.
fn change(random: &mut StdRng, said: &mut Said) {
    let value = String::from_utf8(said.1.to_vec()).unwrap();
    let mut bytes = said.1.to_vec();
    match random.random_range(0..5) {
        0 => {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        1 => bytes.truncate(random.random_range(0..bytes.len())),
        2 | 3 => {
            let (_, rest) = value.split_once("\"from_version\":").unwrap();
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let other = VERSIONS.choose(random).unwrap();
            let (from, to) = (
                format!("_version\":{digits}"),
                format!("_version\":{other}"),
            );
            bytes = value.replacen(&from, &to, 1).into_bytes();
        }
        _ => {
            let (from, to) = WORDS.choose(random).unwrap();
            bytes = value.replacen(from, to, 1).into_bytes();
        }
    }
    said.1 = bytes.into();
    if random.random_bool(0.1) {
        let keys = ["main/thing-a", "north/thing-a", "main", "", "main/\u{fffd}"];
        said.0 = Some(Bytes::from_static(keys.choose(random).unwrap().as_bytes()));
    }
}

/// A log that was changed at random.
pub(crate) fn changed(partition: Partition, random: &mut StdRng) -> Vec<NewRecord> {
    let mut said = valid(random);
    let commits: Vec<usize> = (0..said.len()).filter(|&n| said[n].0.is_some()).collect();
    let Some(&at) = commits.choose(random) else {
        return linked(partition, &said);
    };
    let is_linked_anew = random.random_bool(0.7);
    let mut records = linked(partition, &said);
    match random.random_range(0..6) {
        0..3 => {
            change(random, &mut said[at]);
            records[at].key.clone_from(&said[at].0);
            records[at].value = Some(said[at].1.clone());
        }
        3 => {
            said.remove(at);
            records.remove(at);
        }
        4 => {
            let other = *commits.choose(random).unwrap();
            said.swap(at, other);
            records.swap(at, other);
        }
        _ => {
            said.insert(at, said[at].clone());
            records.insert(at, records[at].clone());
        }
    }
    match is_linked_anew {
        true => linked(partition, &said),
        false => records,
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var(SEED) {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let first: u64 = rand::random();
            println!("seeds from {first}; one of them again: {SEED}=…");
            (0..LOGS).map(|n| first.wrapping_add(n)).collect()
        }
    }
}

fn acknowledge(place: Offset) -> Acknowledged {
    [((P0, place), "looked at".to_owned())]
        .into_iter()
        .collect()
}

#[tokio::test]
async fn all_readers_call_the_same_place_of_a_changed_log_damaged() {
    let raw = RawLog::empty(LogKind::Sqlite, 1).await;
    let mut damaged = 0;
    for seed in seeds() {
        let mut random = StdRng::seed_from_u64(seed);
        let records = changed(P0, &mut random);
        raw.replace(&records).await;
        let about = format!("{SEED}={seed}");
        let place = agreed(&verdicts(&raw, Acknowledged::default()).await, &about);
        damaged += usize::from(place.is_some());
        let Some(place) = place else { continue };
        // After an acknowledged place, all readers agree again, wherever they begin.
        let passing = acknowledge(place);
        let next = agreed(&verdicts(&raw, passing.clone()).await, &about);
        assert_ne!(next, Some(place), "{about}");
        let records = raw.log.read(P0, Offset(0)).await.unwrap().records;
        let resumed = resumed_verdicts(&records, &passing);
        // A resumed follower may not know a stream's version. It then passes a version gap, which
        // only the projector looks up, and may stop later. It never reports damage where the others
        // find none.
        let is_behind = |one: &Place| match (one, next) {
            (None, _) => true,
            (Some(one), Some(next)) => *one >= next,
            (Some(_), None) => false,
        };
        assert!(
            resumed.iter().all(is_behind),
            "{resumed:?} {next:?}: {about}"
        );
    }
    assert!(
        damaged > 20 || std::env::var(SEED).is_ok(),
        "{damaged} of {LOGS}"
    );
}

#[tokio::test]
async fn a_column_of_another_sqlite_type_counts_by_its_bytes_and_is_no_missing_log() {
    let raw = RawLog::empty(LogKind::Sqlite, 1).await;
    let path = match &raw.address {
        event_log::log::LogAddress::Sqlite { path } => path.clone(),
        event_log::log::LogAddress::Kafka { .. } => unreachable!("it is a file"),
    };
    let said = valid(&mut StdRng::seed_from_u64(7));
    let records = linked(P0, &said);
    for at in 0..records.len() {
        for change in [
            "value = 5",
            "value = 1.5",
            "value = 'text'",
            "value = NULL",
            "key = 5",
            "headers = 5",
            "headers = 'text'",
            "appended_at_ms = 'soon'",
        ] {
            raw.replace(&records).await;
            let mut file = edit(&path).await;
            let change_it =
                sqlx::AssertSqlSafe(format!("UPDATE record SET {change} WHERE id = {at}"));
            sqlx::query(change_it).execute(&mut file).await.unwrap();
            drop(file);
            let about = format!("{change} at {at} of {}", records.len());
            let place = agreed(&verdicts(&raw, Acknowledged::default()).await, &about);
            let is_commit = records[at].key.is_some();
            let is_content =
                change.starts_with("value = 5") || change.starts_with("value = 'text'");
            if is_commit && is_content {
                assert_eq!(place, Some(Offset(at as u64)), "{about}");
            }
        }
    }
}

#[tokio::test]
async fn acknowledging_a_place_freezes_its_stream_and_loses_nothing_else() {
    let mut scribe = Scribe::new();
    scribe.claim();
    scribe.commits(&["thing-a", "thing-b"]);
    let poison = scribe.record_of("main/thing-a", Bytes::from_static(b"{}"), |_| {});
    scribe.add(poison);
    scribe.commits(&["thing-b", "thing-a", "thing-c"]);
    let raw = RawLog::holding(LogKind::Sqlite, scribe.records()).await;
    let place = agreed(&verdicts(&raw, Acknowledged::default()).await, "before");
    assert_eq!(place, Some(Offset(3)));
    let passing = acknowledge(Offset(3));
    assert_eq!(
        agreed(&verdicts(&raw, passing.clone()).await, "after"),
        None
    );
    let records = raw.log.read(P0, Offset(0)).await.unwrap().records;
    let mut follower = Follower::new(P0, None).passing(passing.clone());
    records
        .iter()
        .for_each(|record| follower.take(record.clone()).unwrap());
    let batch = follower.batch().unwrap();
    let taken: Vec<_> = batch
        .commits
        .iter()
        .map(|placed| placed.record.offset.0)
        .collect();
    assert_eq!(
        taken,
        [1, 2, 4, 6],
        "all but what came for the stream from there on"
    );
    let kinds = records
        .iter()
        .filter(|r| matches!(Kind::of(r), Kind::Commit(_)))
        .count();
    assert_eq!(kinds, 6);
    // A follower that begins after the place leaves out the same commits.
    assert_eq!(resumed_verdicts(&records, &passing), BTreeSet::from([None]));
    let mut first = Follower::new(P0, None).passing(passing.clone());
    records[..4]
        .iter()
        .for_each(|record| first.take(record.clone()).unwrap());
    let mut resumed = Follower::new(P0, Some(first.batch().unwrap().after)).passing(passing);
    assert_eq!(resumed.places_to_recall(), [Offset(3)]);
    resumed.recall(&records[3]);
    records[4..]
        .iter()
        .for_each(|record| resumed.take(record.clone()).unwrap());
    resumed.prove(Offset(7), Some(&records[3])).unwrap();
    let batch = resumed.batch().unwrap();
    let taken: Vec<_> = batch
        .commits
        .iter()
        .map(|placed| placed.record.offset.0)
        .collect();
    assert_eq!(taken, [4, 6]);
}
