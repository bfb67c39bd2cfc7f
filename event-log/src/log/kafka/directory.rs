//! The directory, kept in a compacted topic beside the log's topic: a small producer writes
//! entries, and a follower reads them.
//!
//! Invariant: nothing here affects the log or its producer. Entries that cannot be written are
//! dropped, and nodes write their entries again if the topic was lost. Deliberately absent: how old
//! an entry may be (the reader of the entry decides).

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kernel::Timestamp;
use position::{LogId, Partition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{
    ClientConfig, ClientContext, Offset as KafkaOffset, Timestamp as KafkaTimestamp,
    TopicPartitionList,
};
use tokio::sync::{oneshot, watch};

use super::consumer::{FOLLOW_WAIT_MS, consumer};
use super::hints::{Heard, give_way, newer, node_key, owner_key};
use super::{REQUEST_TIMEOUT, Topic, failed, is_dropped_within, locked};
use crate::directory::{Directory, DirectoryEntries, Hint, NodeEntry};
use crate::log::LogError;

const FOLLOW_AHEAD_KB: &str = "1024";
const QUEUE_RECORDS_MAX: &str = "10000";
/// How long a record may wait to be written, in milliseconds.
const SAY_WITHIN_MS: &str = "10000";
/// How long a node that leaves waits until the record about its leaving is written.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// How long the follower waits for a record before it checks whether to stop.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// How often the follower checks that the topic is still the one that it reads.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the follower waits after a failure before it starts again.
const BEGIN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the clients keep what they know of the topic, and how long they wait for a missing
/// topic, in milliseconds. (By default a producer keeps for minutes that a topic is missing.)
const BELIEVE_MS: &str = "5000";
const MISSING_MS: &str = "1000";

/// The key of records that are sent only to learn the time of their append.
const PROBE_KEY: &str = "clock";

fn directory_client(topic: &Topic) -> ClientConfig {
    let mut config = topic.client();
    config
        .set("topic.metadata.refresh.interval.ms", BELIEVE_MS)
        .set("topic.metadata.propagation.max.ms", MISSING_MS);
    config
}

struct Deliveries;

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the directory's producer reports");
    }
}

/// Receives the time at which the brokers appended a record.
type Probe = oneshot::Sender<Result<KafkaTimestamp, KafkaError>>;

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Option<Probe>>;

    fn delivery(&self, result: &DeliveryResult<'_>, probe: Self::DeliveryOpaque) {
        let result = match result {
            Ok(message) => Ok(message.timestamp()),
            Err((error, _)) => {
                tracing::debug!(%error, "the brokers did not take a hint");
                Err(error.clone())
            }
        };
        if let Some(probe) = *probe {
            let _ = probe.send(result);
        }
    }
}

/// The writing side.
struct Speaker {
    topic: String,
    producer: ThreadedProducer<Deliveries>,
    /// What this node has written and would write again: its own entry, and its hints that no other
    /// hint has replaced.
    said: Mutex<DirectoryEntries>,
}

impl Speaker {
    fn send(&self, key: &str, value: Option<&[u8]>, probe: Option<Probe>) {
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, Box::new(probe))
            .partition(0)
            .key(key.as_bytes());
        if let Some(value) = value {
            record = record.payload(value);
        }
        if let Err((error, _)) = self.producer.send(record) {
            tracing::debug!(%error, key, "a hint is dropped");
        }
    }

    fn say_value(&self, key: &str, value: &impl serde::Serialize) {
        match serde_json::to_vec(value) {
            Ok(json) => self.send(key, Some(&json), None),
            Err(error) => tracing::debug!(%error, key, "a hint cannot be serialised"),
        }
    }

    /// Writes all entries of this node again, for readers of a topic that was created again.
    fn repeat_all(&self) {
        let DirectoryEntries { owners, nodes } = locked(&self.said).clone();
        for (partition, hint) in owners {
            self.say_value(&owner_key(partition), &hint);
        }
        for (node, entry) in nodes {
            self.say_value(&node_key(&node), &entry);
        }
    }
}

pub(super) struct KafkaDirectory {
    speaker: Arc<Speaker>,
    known: watch::Receiver<DirectoryEntries>,
    /// The follower's thread ends when this is dropped.
    _running: mpsc::Sender<()>,
}

impl KafkaDirectory {
    pub(super) async fn open(
        topic: &Topic,
        (log, partition_count): (LogId, u32),
    ) -> Result<Self, LogError> {
        topic.ensure_owners().await?;
        // A separate producer, because a failure here must not put a partition in doubt. With one
        // request at a time the entries keep their order, also when a request is repeated.
        let producer = directory_client(topic)
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "1")
            .set("message.timeout.ms", SAY_WITHIN_MS)
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX)
            .create_with_context(Deliveries)
            .map_err(failed("make a Kafka producer"))?;
        let speaker = Arc::new(Speaker {
            topic: topic.owners().name,
            producer,
            said: Mutex::default(),
        });
        let (sender, known) = watch::channel(DirectoryEntries::default());
        let (running, stop) = mpsc::channel();
        let follower = Follower {
            topic: topic.clone(),
            partition_count,
            speaker: Arc::clone(&speaker),
            heard: Heard::of(log),
            known: sender,
            stop,
        };
        std::thread::Builder::new()
            .name("annals-owners".to_owned())
            .spawn(move || follower.run())
            .map_err(failed("start a reading thread"))?;
        Ok(Self {
            speaker,
            known,
            _running: running,
        })
    }
}

#[async_trait]
impl Directory for KafkaDirectory {
    async fn say_owner(&self, partition: Partition, hint: &Hint) {
        locked(&self.speaker.said)
            .owners
            .insert(partition, hint.clone());
        self.speaker.say_value(&owner_key(partition), hint);
    }

    async fn say_node(&self, entry: &NodeEntry) {
        let node = entry.node.clone();
        locked(&self.speaker.said).nodes.insert(node, entry.clone());
        self.speaker.say_value(&node_key(&entry.node), entry);
    }

    async fn say_gone(&self, node: &str) {
        locked(&self.speaker.said).nodes.remove(node);
        self.speaker.send(&node_key(node), None, None);
        // Wait for it: this is mostly the last record that a process writes.
        let speaker = Arc::clone(&self.speaker);
        let flushed =
            tokio::task::spawn_blocking(move || speaker.producer.flush(GONE_WITHIN)).await;
        if let Ok(Err(error)) = flushed {
            tracing::debug!(%error, "the record that a node has left was not written in time");
        }
    }

    async fn time(&self) -> Result<Option<Timestamp>, LogError> {
        const OPERATION: &str = "ask the brokers what time it is";
        let (probe, answer) = oneshot::channel();
        // A record without a value, so that compaction removes it.
        self.speaker.send(PROBE_KEY, None, Some(probe));
        let dropped = |_| LogError::unavailable(OPERATION, "the question was dropped");
        let appended = answer.await.map_err(dropped)?.map_err(failed(OPERATION))?;
        let KafkaTimestamp::LogAppendTime(ms) = appended else {
            let why = "the directory's topic has another message.timestamp.type than LogAppendTime";
            return Err(LogError::unavailable(OPERATION, why));
        };
        let at = Timestamp::from_micros(ms.saturating_mul(1_000));
        at.map(Some).map_err(failed(OPERATION))
    }

    fn known(&self) -> watch::Receiver<DirectoryEntries> {
        self.known.clone()
    }
}

/// The reading side: a thread that reads the topic from its beginning, and starts again whenever
/// the topic may be another one.
struct Follower {
    /// The log's topic.
    topic: Topic,
    partition_count: u32,
    speaker: Arc<Speaker>,
    heard: Heard,
    known: watch::Sender<DirectoryEntries>,
    stop: mpsc::Receiver<()>,
}

impl Follower {
    fn run(mut self) {
        let mut is_first = true;
        loop {
            match self.connect(is_first) {
                Ok(consumer) => self.follow(&consumer, is_first),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the directory cannot be read; retrying");
                }
            }
            is_first = false;
            if is_dropped_within(BEGIN_AGAIN_AFTER, &self.stop) {
                return;
            }
        }
    }

    fn connect(&self, is_first: bool) -> Result<BaseConsumer, LogError> {
        if !is_first {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .map_err(failed("make the directory's topic"))?;
            runtime.block_on(self.topic.ensure_owners())?;
        }
        let config = directory_client(&self.topic);
        let consumer = consumer(config, FOLLOW_WAIT_MS, FOLLOW_AHEAD_KB)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.speaker.topic, 0, KafkaOffset::Beginning)
            .and_then(|()| consumer.assign(&list))
            .map_err(failed("assign the directory"))?;
        Ok(consumer)
    }

    /// Reads until the follower is stopped, or until the topic must be read from its beginning.
    fn follow(&mut self, consumer: &BaseConsumer, is_first: bool) {
        let (mut next, mut has_caught_up) = (0, false);
        let mut look_at = Instant::now() + LOOK_EVERY;
        while !is_dropped_within(Duration::ZERO, &self.stop) {
            match consumer.poll(POLL_EVERY) {
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    let key = message.key().unwrap_or_default();
                    let heard = self
                        .heard
                        .hear(self.partition_count, key, message.payload());
                    if let Err(reason) = heard {
                        tracing::debug!(%reason, "a record of the directory is skipped");
                    }
                    if has_caught_up {
                        self.publish();
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.publish();
                    if !has_caught_up && !is_first {
                        self.speaker.repeat_all();
                    }
                    has_caught_up = true;
                    self.correct();
                }
                Some(Err(error)) if must_begin_again(&error) => {
                    tracing::debug!(%error, "the directory is read again from its beginning");
                    return;
                }
                Some(Err(error)) => tracing::debug!(%error, "the directory's reader reports"),
                None => {}
            }
            if Instant::now() >= look_at {
                let topic = &self.speaker.topic;
                match consumer.fetch_watermarks(topic, 0, REQUEST_TIMEOUT) {
                    Ok((_, end)) if end < next => return,
                    Err(error) if must_begin_again(&error) => return,
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "the directory's end is not known"),
                }
                look_at = Instant::now() + LOOK_EVERY;
            }
        }
    }

    fn publish(&self) {
        let heard = &self.heard.known;
        self.known.send_if_modified(|known| {
            let is_change = known != heard;
            if is_change {
                known.clone_from(heard);
            }
            is_change
        });
        give_way(&mut locked(&self.speaker.said), heard);
    }

    /// Writes this node's hint again if an older hint of another node was written after it.
    fn correct(&mut self) {
        for partition in std::mem::take(&mut self.heard.said_of) {
            let newer = newer(&locked(&self.speaker.said), &self.heard.known, partition).cloned();
            if let Some(hint) = newer {
                self.speaker.say_value(&owner_key(partition), &hint);
            }
        }
    }
}

/// Whether the topic is gone, or shorter than before, or the client cannot be used any more.
fn must_begin_again(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::NoOffset
            )
        )
}
