//! The work on our side: commands of the shop, and the write side that accepts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::command::{Decision, Request};
use engine::{Engine, EngineOptions, Pending};
use event_log::log::LogAddress;
use event_log::record::NewRecord;
use futures::StreamExt as _;
use kernel::TenantId;
use lending::Book;
use position::Partition;
use serde_json::json;
use serde_json::value::to_raw_value;
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::stack::shop;
use tokio::sync::mpsc;

use crate::raw::{RawProducer, per_second};

/// How long an answer may take.
pub const WAIT: Duration = Duration::from_secs(120);
/// How long a start may take; without a local store, a long log is read first.
const READY_WAIT: Duration = Duration::from_secs(900);
/// How many answers may be awaited at the same time.
const ANSWERS_MAX: usize = 8_192;

/// How many different customers place orders.
const CUSTOMERS: usize = 97;

/// The data of an order, as a client sends it.
#[must_use]
pub fn order(number: usize) -> serde_json::Value {
    let brl = |amount: i64| json!({"amount_minor": amount, "currency": "BRL"});
    json!({
        "customer": format!("customer-{}", number % CUSTOMERS),
        "items": [{
            "line": 1, "product": "p", "seller": "s", "price": brl(2_199), "freight": brl(1_185)
        }],
        "estimated_delivery": "2018-06-28T00:00:00Z",
    })
}

/// The stream of an order.
#[must_use]
pub fn stream(seed: u64, number: usize) -> String {
    format!("order-{seed:016x}{number:016x}")
}

/// A command that begins a stream.
#[must_use]
pub fn place(seed: u64, number: usize) -> Request {
    Request {
        tenant: TenantId::default(),
        stream: stream(seed, number).parse().expect("a stream's name"),
        command: "PlaceOrder".into(),
        schema: None,
        id: format!("place-{number}").parse().expect("a command id"),
        occurred_at: Some("2018-06-04T16:44:48Z".parse().expect("a moment")),
        expected_version: None,
        correlation_id: None,
        causation_id: None,
        actor: None,
        trace: None,
        data: to_raw_value(&order(number)).expect("JSON"),
    }
}

/// The command number `number` of a book: it is lent and returned in turn.
#[must_use]
pub fn lend_or_return(book: &str, number: usize) -> Request {
    let (command, data) = if number.is_multiple_of(2) {
        let loan = json!({"reader": 1, "due": "2100-01-01T00:00:00Z"});
        ("LendBook", loan)
    } else {
        ("ReturnBook", json!({}))
    };
    Request {
        stream: book.parse().expect("a stream's name"),
        command: command.into(),
        occurred_at: None,
        expected_version: Some(number as u64),
        data: to_raw_value(&data).expect("JSON"),
        ..place(0, number)
    }
}

/// A write side on a log.
pub struct WriteSide {
    log: NewLog,
    /// The engine.
    pub engine: Engine,
}

impl WriteSide {
    /// Starts a write side on a new log, with its local store.
    pub async fn start(kind: Kind, partitions: u32) -> Self {
        let log = NewLog::make(kind, partitions).await;
        let options = EngineOptions::alone(Some(log.store()));
        Self::open(log, options).await
    }

    /// Starts a write side on an existing log.
    pub async fn open(log: NewLog, options: EngineOptions) -> Self {
        let registry = shop().with::<Book>();
        let engine = Engine::start(Arc::clone(&log.log), registry, options);
        let engine = engine.await.expect("a write side");
        engine
            .ready(READY_WAIT)
            .await
            .expect("owners of all partitions");
        Self { log, engine }
    }

    /// The log of the write side.
    #[must_use]
    pub fn log(&self) -> &NewLog {
        &self.log
    }

    /// Sends commands that begin streams of their own, many in flight, until each has its answer.
    /// Returns how many were answered per second.
    pub async fn commands_per_second(&self, seed: u64, count: usize) -> f64 {
        let requests: Vec<Request> = (0..count).map(|number| place(seed, number)).collect();
        self.answered_per_second(requests).await
    }

    /// Sends commands, many in flight, until each has its answer. Returns how many were answered
    /// per second.
    pub async fn answered_per_second(&self, requests: impl IntoIterator<Item = Request>) -> f64 {
        let began = Instant::now();
        let mut batch = self.engine.batch();
        let (pending, mut answers) = mpsc::channel::<Pending>(ANSWERS_MAX);
        let counting = tokio::spawn(async move {
            let mut accepted = 0;
            while let Some(answer) = answers.recv().await {
                let answer = answer.await.expect("an answer from the log");
                let is_accepted = matches!(answer.decision, Decision::Accepted(_));
                assert!(is_accepted, "every command is accepted: {answer:?}");
                accepted += 1;
            }
            accepted
        });
        for request in requests {
            let command = self.engine.prepare(request).expect("a well-formed command");
            let answer = batch.submit(command, Instant::now() + WAIT).await;
            pending.send(answer).await.expect("somebody who counts");
        }
        drop(pending);
        let accepted = counting.await.expect("a count");
        per_second(accepted, began.elapsed())
    }

    /// Stops the engine, and returns its log.
    pub async fn stop(self) -> NewLog {
        self.engine.drain(WAIT).await;
        self.log
    }
}

/// The client library alone, on a new log.
pub struct RawSide {
    _log: NewLog,
    /// The producer.
    pub producer: Arc<RawProducer>,
}

impl RawSide {
    /// A producer on a new Kafka log; `linger_ms` is how long it collects records for a request.
    pub async fn start(partitions: u32, linger_ms: u32) -> Self {
        Self::on(NewLog::make(Kind::Kafka, partitions).await, linger_ms)
    }

    /// A producer on an existing log.
    pub fn on(log: NewLog, linger_ms: u32) -> Self {
        let bootstrap = kafka::shared().bootstrap();
        let producer = RawProducer::open(bootstrap, &topic(&log), linger_ms);
        Self {
            _log: log,
            producer: Arc::new(producer),
        }
    }
}

/// Lets the broker compile its hot code, so that the first rows do not pay for it: many records in
/// few requests, and few records in many requests.
pub async fn warm_up_broker() {
    const PARTITIONS: u32 = 16;
    const MANY: usize = 60_000;
    const FEW: usize = 30_000;
    const WAITING: usize = 32;
    let side = WriteSide::start(Kind::Kafka, PARTITIONS).await;
    side.commands_per_second(fresh_seed(), MANY).await;
    let records = records_of(side.log()).await;
    side.stop().await;
    let raw = RawSide::start(PARTITIONS, 0).await;
    let append = async |(partition, record): &(Partition, NewRecord)| {
        raw.producer.append(*partition, record).await;
    };
    let waiting = records[..FEW].iter().map(append);
    futures::stream::iter(waiting)
        .buffer_unordered(WAITING)
        .collect::<Vec<()>>()
        .await;
}

/// A seed that no round has used.
#[must_use]
pub fn fresh_seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The topic of a log.
#[must_use]
pub fn topic(log: &NewLog) -> String {
    match &log.address {
        LogAddress::Kafka { topic, .. } => topic.clone(),
        LogAddress::Sqlite { .. } => panic!("a file has no topic"),
    }
}

/// The end offset of each partition of a log.
pub async fn ends_of(log: &NewLog) -> Vec<(Partition, u64)> {
    let mut ends = Vec::new();
    for partition in (0..log.log.partition_count()).map(Partition) {
        let bounds = log.log.bounds(partition).await.expect("a log that answers");
        ends.push((partition, bounds.end.0));
    }
    ends
}

/// Every record of a log, with its partition; the partitions take turns.
pub async fn records_of(log: &NewLog) -> Vec<(Partition, NewRecord)> {
    let log = &log.log;
    let mut partitions = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        let bounds = log.bounds(partition).await.expect("a log that answers");
        let (mut next, mut records) = (bounds.first, Vec::new());
        while next < bounds.end {
            let chunk = log.read(partition, next).await.expect("a log that answers");
            records.extend(chunk.records.into_iter().map(|record| {
                let new = NewRecord {
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                };
                (partition, new)
            }));
            next = chunk.next;
        }
        partitions.push(records.into_iter());
    }
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(partitions.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}
