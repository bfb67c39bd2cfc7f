//! The limit on Kafka: what the client library does without the engine, in code that is as fast as
//! we can honestly write it. The raw SQLite loop is in `rows::embedded`, the raw HTTP route in
//! `rows::http`.
//!
//! Invariant: the same bytes, the same partitions and the same durability as on our side.
//! Deliberately absent: everything of the engine except the records that it wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use event_log::record::NewRecord;
use position::Partition;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

/// How long any operation may take.
const WAIT: Duration = Duration::from_secs(120);
/// The pause before the next try while the queue is full.
const FULL_PAUSE: Duration = Duration::from_micros(200);

/// What is told about a delivery: a common counter, or a single waiter.
pub enum Waiter {
    /// Adds one to the counter.
    Counted(Arc<AtomicUsize>),
    /// Tells the one that asked.
    One(oneshot::Sender<bool>),
}

/// Passes each delivery to its [`Waiter`].
pub struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Waiter>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiter: Self::DeliveryOpaque) {
        match *waiter {
            Waiter::Counted(count) => {
                assert!(result.is_ok(), "a record was lost");
                count.fetch_add(1, Ordering::Release);
            }
            Waiter::One(one) => {
                let _ = one.send(result.is_ok());
            }
        }
    }
}

/// An idempotent producer that waits for all replicas, as the engine's producer does.
pub struct RawProducer {
    topic: String,
    producer: ThreadedProducer<Deliveries>,
}

impl RawProducer {
    /// A producer for a topic. `linger_ms` is how long it collects records for a request.
    ///
    /// # Panics
    /// If the client library refuses its settings.
    #[must_use]
    pub fn open(bootstrap: &str, topic: &str, linger_ms: u32) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", linger_ms.to_string())
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144")
            .create_with_context(Deliveries)
            .expect("settings that the client library takes");
        Self {
            topic: topic.to_owned(),
            producer,
        }
    }

    /// Hands a record over, and waits while the queue is full.
    ///
    /// # Panics
    /// If it is refused for another reason.
    pub fn send(&self, partition: Partition, record: &NewRecord, waiter: Waiter) {
        let number = i32::try_from(partition.0).expect("a few partitions");
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.iter().count());
        for (name, value) in record.headers.iter() {
            headers = headers.insert(Header {
                key: std::str::from_utf8(name).expect("names of ours are UTF-8"),
                value,
            });
        }
        let mut message =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, Box::new(waiter))
                .partition(number)
                .headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        let mut message = message;
        loop {
            match self.producer.send(message) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    std::thread::sleep(FULL_PAUSE);
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
    }

    /// Appends one record and waits for its acknowledgement.
    ///
    /// # Panics
    /// If the record is lost.
    pub async fn append(&self, partition: Partition, record: &NewRecord) {
        let (one, acknowledged) = oneshot::channel();
        self.send(partition, record, Waiter::One(one));
        assert_eq!(acknowledged.await, Ok(true), "a record is acknowledged");
    }

    /// Appends all records, and returns how many were acknowledged per second.
    ///
    /// # Panics
    /// If a record is lost.
    #[must_use]
    pub fn append_all(&self, records: &[(Partition, NewRecord)]) -> f64 {
        let count = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        for (partition, record) in records {
            self.send(*partition, record, Waiter::Counted(Arc::clone(&count)));
        }
        self.producer
            .flush(WAIT)
            .expect("every record is acknowledged");
        let took = began.elapsed();
        assert_eq!(count.load(Ordering::Acquire), records.len());
        per_second(records.len(), took)
    }
}

/// A count per second.
#[must_use]
pub fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Makes the brokers flush each record of a log's topic to disk before they acknowledge it.
///
/// # Panics
/// If the brokers refuse.
pub async fn flush_every_record(bootstrap: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .expect("settings that the client library takes");
    // A setting that is not listed here returns to its default.
    let settings = AlterConfig::new(ResourceSpecifier::Topic(topic))
        .set("cleanup.policy", "delete")
        .set("retention.ms", "-1")
        .set("retention.bytes", "-1")
        .set("message.timestamp.type", "LogAppendTime")
        .set("max.message.bytes", "2097152")
        .set("min.insync.replicas", "1")
        .set("flush.messages", "1");
    let altered = admin.alter_configs([&settings], &AdminOptions::new());
    for altered in altered.await.expect("brokers that answer") {
        altered.expect("a topic that takes it");
    }
}

/// A consumer without a group, which reads a topic to the ends given when it is opened.
pub struct RawConsumer {
    consumer: BaseConsumer,
    missing: u64,
}

impl RawConsumer {
    /// Reads these partitions, each up to the record before its end offset.
    ///
    /// # Panics
    /// If the client library refuses its settings.
    #[must_use]
    pub fn open(bootstrap: &str, topic: &str, ends: &[(Partition, u64)]) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "raw")
            .set("enable.auto.commit", "false")
            .set("check.crcs", "false")
            .set("fetch.min.bytes", "1")
            .set("fetch.message.max.bytes", "8388608")
            .set("queued.min.messages", "1000000")
            .set("queued.max.messages.kbytes", "262144")
            .create()
            .expect("settings that the client library takes");
        let mut list = TopicPartitionList::new();
        for (partition, _) in ends {
            let number = i32::try_from(partition.0).expect("a few partitions");
            list.add_partition_offset(topic, number, Offset::Beginning)
                .expect("an offset");
        }
        consumer.assign(&list).expect("an assignment");
        let missing = ends.iter().map(|(_, end)| end).sum();
        Self { consumer, missing }
    }

    /// Passes on the next records, at most `most`: waits for the first, then takes those that are
    /// ready. Returns how many there were; 0 after the last record.
    ///
    /// # Panics
    /// If no record comes in time.
    pub fn take(&mut self, most: usize, mut with: impl FnMut(&BorrowedMessage<'_>)) -> usize {
        let mut taken = 0;
        while taken < most && self.missing > 0 {
            let wait = if taken == 0 { WAIT } else { Duration::ZERO };
            let Some(message) = self.consumer.poll(wait) else {
                assert!(taken > 0, "a record comes");
                break;
            };
            with(&message.expect("no error"));
            taken += 1;
            self.missing -= 1;
        }
        taken
    }
}

/// Reads a whole topic, counts its bytes, and returns how many records came per second. The time
/// begins with the first record: the time to find the brokers is not part of the throughput.
///
/// # Panics
/// If a record does not come.
#[must_use]
pub fn count_all(bootstrap: &str, topic: &str, ends: &[(Partition, u64)]) -> f64 {
    let mut bytes = 0;
    let mut consumer = RawConsumer::open(bootstrap, topic, ends);
    let mut count = |message: &BorrowedMessage<'_>| {
        bytes += message.payload_len() + message.key_len();
    };
    let mut records = consumer.take(1, &mut count);
    let began = Instant::now();
    loop {
        match consumer.take(usize::MAX, &mut count) {
            0 => break,
            taken => records += taken,
        }
    }
    let took = began.elapsed();
    assert!(bytes > 0, "records have bytes");
    per_second(records, took)
}
