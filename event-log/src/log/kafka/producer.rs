//! Appends to a topic, with one idempotent producer for all partitions of the node.
//!
//! Invariant: a failed producer takes no more records, and its sessions close with it. So no record
//! of a claim follows a record that was lost. Callbacks only pass results on.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use position::{Offset, Partition};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as KafkaHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Statistics};

use super::statistics::{self, Figures};
use super::{Topic, failed, locked};
use crate::log::{AppendDone, AppendSession, Appended, Appender, LogError};
use crate::record::NewRecord;

/// How many records may wait in the client, over all partitions.
const QUEUE_RECORDS_MAX: &str = "100000";
/// How many kilobytes of records may wait in the client, over all partitions.
const QUEUE_KB_MAX: &str = "65536";

struct Deliveries {
    failed: AtomicBool,
    figures: Figures,
}

impl ClientContext for Deliveries {
    fn stats(&self, statistics: Statistics) {
        self.figures.take(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.failed.store(true, Ordering::SeqCst);
            tracing::warn!(%error, reason, "the producer failed; another one takes its place");
        } else {
            tracing::debug!(%error, reason, "the producer reports");
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<AppendDone>;

    fn delivery(&self, result: &DeliveryResult<'_>, done: Self::DeliveryOpaque) {
        let result = match result {
            Ok(message) => Ok(Appended {
                offset: u64::try_from(message.offset()).ok().map(Offset),
                appended_at_ms: message.timestamp().to_millis(),
            }),
            Err((error, _)) => {
                self.failed.store(true, Ordering::SeqCst);
                Err(LogError::unavailable("append to the topic", error.clone()))
            }
        };
        done(result);
    }
}

struct KafkaSession {
    topic: String,
    producer: Elsewhere<ThreadedProducer<Deliveries>>,
}

/// Drops its value on a thread of its own. Dropping a producer joins the thread that runs its
/// callbacks. The thread that drops the last reference may be such a callback, or hold a lock that
/// a callback waits for.
struct Elsewhere<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Deref for Elsewhere<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is taken out when it is dropped")
    }
}

impl<T: Send + 'static> Drop for Elsewhere<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        let thread = std::thread::Builder::new().name("annals-closing".to_owned());
        if let Err(error) = thread.spawn(move || drop(value)) {
            tracing::warn!(%error, "no thread to close a producer on; it was closed in place");
        }
    }
}

pub(super) struct KafkaAppender {
    topic: Topic,
    current: Mutex<Arc<KafkaSession>>,
}

impl KafkaAppender {
    pub(super) fn open(topic: &Topic) -> Result<Self, LogError> {
        Ok(Self {
            topic: topic.clone(),
            current: Mutex::new(Arc::new(KafkaSession::open(topic)?)),
        })
    }
}

impl KafkaSession {
    fn open(topic: &Topic) -> Result<Self, LogError> {
        let producer = topic
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("enable.gapless.guarantee", "true")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "0")
            .set("message.max.bytes", "1048576")
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX)
            .set("queue.buffering.max.kbytes", QUEUE_KB_MAX)
            .set("statistics.interval.ms", statistics::EVERY_MS)
            .create_with_context(Deliveries {
                failed: AtomicBool::new(false),
                figures: Figures::of("producer"),
            })
            .map_err(failed("make a Kafka producer"))?;
        Ok(Self {
            topic: topic.name.clone(),
            producer: Elsewhere(Some(producer)),
        })
    }

    fn is_failed(&self) -> bool {
        self.producer.context().failed.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Appender for KafkaAppender {
    fn session(&self) -> Result<Arc<dyn AppendSession>, LogError> {
        let mut current = locked(&self.current);
        if current.is_failed() {
            *current = Arc::new(KafkaSession::open(&self.topic)?);
        }
        Ok(Arc::clone(&*current) as Arc<dyn AppendSession>)
    }

    async fn flush(&self, wait: Duration) {
        let session = Arc::clone(&*locked(&self.current));
        let flushed = tokio::task::spawn_blocking(move || session.producer.flush(wait)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "not every append had an answer in time");
        }
    }
}

impl AppendSession for KafkaSession {
    fn append(
        &self,
        partition: Partition,
        record: &NewRecord,
        done: AppendDone,
    ) -> Result<(), LogError> {
        if self.is_failed() {
            return Err(LogError::Closed);
        }
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.iter().count());
        for (name, value) in record.headers.iter() {
            let Ok(key) = std::str::from_utf8(name) else {
                return Err(LogError::unavailable(
                    "append to the topic",
                    "the client library cannot write a header name that is not UTF-8",
                ));
            };
            headers = headers.insert(KafkaHeader { key, value });
        }
        let number = i32::try_from(partition.0).expect("Kafka numbers partitions with 31 bits");
        let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, Box::new(done))
            .partition(number)
            .headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        self.producer
            .send(message)
            .map_err(|(error, _)| match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => LogError::Full,
                _ => {
                    let failed = &self.producer.context().failed;
                    failed.store(true, Ordering::SeqCst);
                    LogError::unavailable("append to the topic", error)
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A value whose drop blocks until the test allows it, as the drop of a producer waits for a
    /// thread.
    struct Slow {
        may_end: mpsc::Receiver<()>,
        ended: mpsc::Sender<std::thread::ThreadId>,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            self.may_end.recv().expect("the test goes on");
            let _ = self.ended.send(std::thread::current().id());
        }
    }

    #[test]
    fn nobody_who_lets_go_of_a_producer_waits_for_its_end() {
        let (allow, may_end) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        drop(Elsewhere(Some(Slow { may_end, ended })));
        // If the drop ran on this thread, the test would not reach this line.
        allow.send(()).expect("it waits on its thread");
        let thread = end.recv().expect("it ends");
        assert_ne!(thread, std::thread::current().id());
    }
}
