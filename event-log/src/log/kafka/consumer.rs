//! Reads a topic. Followers have a client and a thread of their own each; probes serve proofs and
//! gap reads, which must not wait.
//!
//! Invariant: no record, however hostile, stops a reader. Header names need not be UTF-8 (the
//! library's own accessor would panic), and keys and values may be absent.

use std::ffi::{CString, c_void};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use position::{Offset, Partition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset as KafkaOffset, TopicPartitionList};
use rdkafka_sys as native;
use tokio::sync::mpsc;

use super::{PROBE_TIMEOUT, Topic, failed};
use crate::log::gathered::Gathered;
use crate::log::{Bounds, Chunk, LogError, LogReader};
use crate::record::{Header, Headers, Record};

const FOLLOW_AHEAD_KB: &str = "8192";
/// An idle probe fetches until it holds this much, so each part of the log that was read once would
/// stay in memory with this much after it.
const PROBE_AHEAD_KB: &str = "1024";
/// How long a client that has fetched enough ahead waits before it checks whether to fetch more, in
/// milliseconds. With the library's default it pauses for a second whenever its reader is faster
/// than the brokers.
const AHEAD_PAUSE_MS: &str = "10";
/// The size of the pieces of memory into which records are copied one after the other. A separate
/// allocation for each part of each record would cost more, and another thread would have to free
/// it. Whoever keeps one part of a record keeps the whole piece alive.
const ROOM_SIZE: usize = 64 << 10;
/// How many reads a follower's thread is ahead at most.
const AHEAD_MAX: usize = 4;
/// How long a follower's thread waits before it checks whether to stop.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// How long the brokers may delay their answer at the end of a topic, in milliseconds.
pub(super) const FOLLOW_WAIT_MS: &str = "500";
const PROBE_WAIT_MS: &str = "10";

/// A client that reads what is assigned to it, joins no group and commits no offset.
pub(super) fn consumer(
    mut config: ClientConfig,
    wait_ms: &str,
    ahead_kb: &str,
) -> Result<BaseConsumer, LogError> {
    config
        .set("group.id", "annals-unused")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_uncommitted")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", wait_ms)
        .set("fetch.error.backoff.ms", "50")
        .set("queued.max.messages.kbytes", ahead_kb)
        .set("fetch.queue.backoff.ms", AHEAD_PAUSE_MS)
        .create()
        .map_err(failed("make a Kafka consumer"))
}

fn partition_number(partition: Partition) -> i32 {
    i32::try_from(partition.0).expect("Kafka numbers partitions with 31 bits")
}

fn assign(
    consumer: &BaseConsumer,
    topic: &str,
    from: &[(Partition, Offset)],
) -> Result<(), LogError> {
    let mut list = TopicPartitionList::new();
    for &(partition, offset) in from {
        let offset = KafkaOffset::Offset(offset.0.cast_signed());
        list.add_partition_offset(topic, partition_number(partition), offset)
            .map_err(failed("assign a partition"))?;
    }
    consumer
        .assign(&list)
        .map_err(failed("assign partitions"))?;
    // To assign a partition again first stops its fetcher. If the partition is then assigned again,
    // or the client is closed, before the library has noted the stop, librdkafka (2.12) stops the
    // fetcher twice and ends the process by an assertion. The answer to `assignment` comes after
    // that note.
    consumer
        .assignment()
        .map(drop)
        .map_err(failed("assign partitions"))
}

/// Copies a record of any writer out of the client's buffer.
fn record_of(message: &BorrowedMessage<'_>, room: &mut BytesMut) -> Record {
    Record {
        offset: Offset(message.offset().cast_unsigned()),
        key: message.key().map(|key| copy(room, key)),
        value: message.payload().map(|value| copy(room, value)),
        headers: headers_of(message, room),
        leader_epoch: leader_epoch(message),
        appended_at_ms: message.timestamp().to_millis(),
    }
}

fn copy(room: &mut BytesMut, bytes: &[u8]) -> Bytes {
    room.extend_from_slice(bytes);
    room.split().freeze()
}

fn leader_epoch(message: &BorrowedMessage<'_>) -> Option<i32> {
    // SAFETY: the message is valid for as long as it is borrowed, and the call only reads it.
    let epoch = unsafe { native::rd_kafka_message_leader_epoch(message.ptr()) };
    (epoch >= 0).then_some(epoch)
}

fn headers_of(message: &BorrowedMessage<'_>, room: &mut BytesMut) -> Headers {
    let mut list = std::ptr::null_mut();
    // SAFETY: the message is valid; on success `list` points to headers that it owns.
    let error = unsafe { native::rd_kafka_message_headers(message.ptr(), &raw mut list) };
    if error != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || list.is_null() {
        return Headers::default();
    }
    // SAFETY: `list` was just filled.
    let count = unsafe { native::rd_kafka_header_cnt(list) };
    let header = |index| -> Option<Header<'_>> {
        let mut name = std::ptr::null();
        let mut value: *const c_void = std::ptr::null();
        let mut size = 0;
        // SAFETY: all pointers are valid for writing; what they receive is owned by the message.
        let error = unsafe {
            native::rd_kafka_header_get_all(
                list,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            )
        };
        if error != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: the name is a C string; the value, unless null, has `size` bytes.
        unsafe {
            let name = std::ffi::CStr::from_ptr(name).to_bytes();
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast(), size));
            Some((name, value))
        }
    };
    Headers::pack(room, (0..count).map_while(header))
}

fn partition_of(number: i32) -> Partition {
    Partition(number.cast_unsigned())
}

fn read_error(error: KafkaError, partition: Partition, offset: Offset) -> LogError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::NoOffset,
        ) => LogError::OffsetGone { partition, offset },
        _ => LogError::unavailable("read the topic", error),
    }
}

/// A client for proofs and gap reads: it reads one partition at a time and answers at once.
pub(super) struct Probe {
    consumer: BaseConsumer,
    topic: String,
    assigned: Option<Partition>,
    /// Where the next record can be read without a seek.
    pub(super) left: Left,
    pub(super) left_at: Instant,
}

/// Where an idle client for proofs and gap reads stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    /// At no useful place, or at the end of a partition.
    Nowhere,
    /// After a single record that was looked at.
    Looked(Partition, Offset),
    /// Where a reader will most likely continue, because the client got there by reading on.
    Reading(Partition, Offset),
}

impl Left {
    pub(super) fn reads_on(&self) -> bool {
        matches!(self, Self::Reading(..))
    }

    pub(super) fn is_at(&self, place: (Partition, Offset)) -> bool {
        matches!(*self, Self::Looked(partition, offset) | Self::Reading(partition, offset)
            if (partition, offset) == place)
    }
}

impl Probe {
    pub(super) fn connect(topic: &Topic) -> Result<Self, LogError> {
        Ok(Self {
            consumer: consumer(topic.client(), PROBE_WAIT_MS, PROBE_AHEAD_KB)?,
            topic: topic.name.clone(),
            assigned: None,
            left: Left::Nowhere,
            left_at: Instant::now(),
        })
    }

    /// Stops the client from fetching, unless a reader will most likely continue with it. At the
    /// end of a partition it would otherwise ask a broker for more a hundred times a second.
    pub(super) fn rest(&mut self) {
        self.left_at = Instant::now();
        if self.left.reads_on() || self.assigned.take().is_none() {
            return;
        }
        self.left = Left::Nowhere;
        // Wait for an answer as in `assign`. If the client cannot answer, it goes on fetching.
        let _ = self.consumer.unassign();
        let _ = self.consumer.assignment();
    }

    pub(super) fn bounds(&self, partition: Partition) -> Result<Bounds, LogError> {
        let (first, end) = self
            .consumer
            .fetch_watermarks(&self.topic, partition_number(partition), PROBE_TIMEOUT)
            .map_err(failed("ask the brokers for the end of the topic"))?;
        Ok(Bounds {
            first: Offset(first.cast_unsigned()),
            end: Offset(end.cast_unsigned()),
        })
    }

    /// Moves the client to an offset. Returns `true` if the client stood there already after the
    /// call before. Then the client may report an end of the log that it fetched long ago.
    fn seek(&mut self, partition: Partition, from: Offset) -> Result<bool, LogError> {
        let goes_on = self.left.is_at((partition, from));
        // Whatever happens below, the client no longer stands at `from`.
        self.left = Left::Nowhere;
        if goes_on {
            return Ok(true);
        }
        if self.assigned == Some(partition) {
            // Never assign a partition that is assigned already: if the first stop is still under
            // way, the client stops the partition twice and aborts the process (librdkafka #5573).
            let number = partition_number(partition);
            let offset = KafkaOffset::Offset(from.0.cast_signed());
            self.consumer
                .seek(&self.topic, number, offset, PROBE_TIMEOUT)
                .map_err(failed("seek in the topic"))?;
        } else {
            assign(&self.consumer, &self.topic, &[(partition, from)])?;
            self.assigned = Some(partition);
        }
        Ok(false)
    }

    pub(super) fn read(&mut self, partition: Partition, from: Offset) -> Result<Chunk, LogError> {
        let mut goes_on = self.seek(partition, from)?;
        let deadline = Instant::now() + PROBE_TIMEOUT;
        let mut room = BytesMut::with_capacity(ROOM_SIZE);
        let mut gathered = Gathered::default();
        let (mut next, mut at_end) = (from, false);
        while !at_end && !gathered.is_full() {
            let wait = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let record = record_of(&message, &mut room);
                    next = record.offset.next();
                    gathered.push(partition, record);
                    // Otherwise the brokers would delay their answer that nothing follows.
                    at_end = !goes_on && self.heard_end(partition) == Some(next);
                }
                Some(Err(KafkaError::PartitionEOF(_))) if goes_on => {
                    goes_on = self.seek(partition, next)?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => at_end = true,
                Some(Err(error)) => return Err(read_error(error, partition, from)),
                None => return Err(LogError::unavailable("read the topic", "no answer in time")),
            }
        }
        if !at_end {
            self.left = Left::Reading(partition, next);
        }
        Ok(gathered.one(partition, from, at_end))
    }

    /// The end of a partition when its records were last fetched.
    fn heard_end(&self, partition: Partition) -> Option<Offset> {
        let topic = CString::new(self.topic.as_str()).ok()?;
        let (mut first, mut end) = (-1, -1);
        // SAFETY: the client and the topic's name live longer than the call, and the call only
        // fills the two numbers.
        let error = unsafe {
            native::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition_number(partition),
                &raw mut first,
                &raw mut end,
            )
        };
        let is_known = error == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        u64::try_from(end).ok().filter(|_| is_known).map(Offset)
    }

    /// Single records as they are now; those that stand close together are read in one go. What the
    /// client fetched ahead in an earlier call proves nothing: it may be gone from the log.
    pub(super) fn read_at(
        &mut self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError> {
        let bounds = self.bounds(partition)?;
        self.left = Left::Nowhere;
        let each = offsets.iter();
        each.map(|offset| self.read_one(bounds, partition, *offset))
            .collect()
    }

    /// The bounds of a partition and the record at an offset. With `anew`, the client first asks
    /// the brokers who leads now.
    pub(super) fn look(
        &mut self,
        partition: Partition,
        offset: Offset,
        anew: bool,
    ) -> Result<(Bounds, Option<Record>), LogError> {
        if anew {
            self.consumer
                .fetch_metadata(Some(&self.topic), PROBE_TIMEOUT)
                .map_err(failed("ask the brokers who leads"))?;
        }
        let bounds = self.bounds(partition)?;
        self.left = Left::Nowhere;
        Ok((bounds, self.read_one(bounds, partition, offset)?))
    }

    fn read_one(
        &mut self,
        bounds: Bounds,
        partition: Partition,
        offset: Offset,
    ) -> Result<Option<Record>, LogError> {
        if offset < bounds.first || offset >= bounds.end {
            return Ok(None);
        }
        let goes_on = self.seek(partition, offset)?;
        match self.consumer.poll(PROBE_TIMEOUT) {
            Some(Err(KafkaError::PartitionEOF(_))) if goes_on => {
                self.read_one(bounds, partition, offset)
            }
            Some(Ok(message)) => {
                let record = record_of(&message, &mut BytesMut::new());
                self.left = Left::Looked(partition, record.offset.next());
                Ok((record.offset == offset).then_some(record))
            }
            Some(Err(KafkaError::PartitionEOF(_))) => self.none_at(partition, offset),
            Some(Err(error)) => match read_error(error, partition, offset) {
                LogError::OffsetGone { .. } => self.none_at(partition, offset),
                error => Err(error),
            },
            None => Err(LogError::unavailable("read the topic", "no answer in time")),
        }
    }

    /// Decides what it means that a read found nothing before the reported end of the log. A new
    /// leader answers reads before it knows how much of its log counts, and then its log seems to
    /// end too early. It answers questions about the end only once it knows (KIP-207). So ask for
    /// the end again.
    fn none_at(&self, partition: Partition, offset: Offset) -> Result<Option<Record>, LogError> {
        if self.bounds(partition)?.end <= offset {
            return Ok(None);
        }
        let reason = "the leader does not know yet how much of its log counts";
        Err(LogError::unavailable("read the topic", reason))
    }
}

/// A follower: a polling thread and a bounded channel.
pub(super) struct KafkaReader {
    reads: mpsc::Receiver<Result<Gathered, LogError>>,
    /// An error that came after chunks that were handed out.
    failed: Option<LogError>,
}

impl KafkaReader {
    pub(super) fn open(topic: &Topic, from: &[(Partition, Offset)]) -> Result<Self, LogError> {
        let consumer = consumer(topic.client(), FOLLOW_WAIT_MS, FOLLOW_AHEAD_KB)?;
        assign(&consumer, &topic.name, from)?;
        let (sender, reads) = mpsc::channel(AHEAD_MAX);
        std::thread::Builder::new()
            .name("annals-follow".to_owned())
            .spawn(move || follow(&consumer, &sender))
            .map_err(failed("start a reading thread"))?;
        Ok(Self {
            reads,
            failed: None,
        })
    }
}

/// Reads until an error, or until the reader is dropped.
fn follow(consumer: &BaseConsumer, reads: &mpsc::Sender<Result<Gathered, LogError>>) {
    let mut room = BytesMut::with_capacity(ROOM_SIZE);
    while !reads.is_closed() {
        let gathered = gather(consumer, &mut room);
        let ended = gathered.is_err();
        if matches!(&gathered, Ok(gathered) if gathered.chunks.is_empty()) {
            continue;
        }
        if reads.blocking_send(gathered).is_err() || ended {
            return;
        }
    }
}

/// The records that are available, after a short wait for the first one.
fn gather(consumer: &BaseConsumer, room: &mut BytesMut) -> Result<Gathered, LogError> {
    let mut gathered = Gathered::default();
    let mut wait = POLL_EVERY;
    while !gathered.is_full() {
        match consumer.poll(wait) {
            None => break,
            Some(Ok(message)) => {
                gathered.push(partition_of(message.partition()), record_of(&message, room));
            }
            Some(Err(KafkaError::PartitionEOF(number))) => {
                if let Some(chunk) = gathered.chunk_of(partition_of(number)) {
                    chunk.at_end = true;
                }
            }
            Some(Err(error)) => return Err(LogError::unavailable("read the topic", error)),
        }
        wait = Duration::ZERO;
    }
    Ok(gathered)
}

#[async_trait]
impl LogReader for KafkaReader {
    /// Returns everything that was read meanwhile, up to a limit. Otherwise a caller that is slow
    /// with each result would always be `AHEAD_MAX` reads behind.
    async fn next(&mut self, wait: Duration) -> Result<Vec<Chunk>, LogError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut gathered = match tokio::time::timeout(wait, self.reads.recv()).await {
            Err(_elapsed) => return Ok(Vec::new()),
            Ok(Some(gathered)) => gathered?,
            Ok(None) => return Err(LogError::Closed),
        };
        while !gathered.is_full() {
            match self.reads.try_recv() {
                Ok(Ok(more)) => gathered.extend(more),
                Ok(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                Err(_) => break,
            }
        }
        Ok(gathered.chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::NewRecord;

    fn set(offset: u64) -> Gathered {
        let record = NewRecord {
            key: None,
            value: None,
            headers: Headers::default(),
        };
        let mut gathered = Gathered::default();
        gathered.push(Partition(0), Record::at(Offset(offset), record));
        gathered
    }

    #[tokio::test]
    async fn who_took_long_gets_all_that_was_read_meanwhile_and_then_what_went_wrong() {
        let (sender, reads) = mpsc::channel(AHEAD_MAX);
        let mut reader = KafkaReader {
            reads,
            failed: None,
        };
        for offset in 0..3 {
            sender.send(Ok(set(offset))).await.unwrap();
        }
        let gone = LogError::OffsetGone {
            partition: Partition(0),
            offset: Offset(4),
        };
        sender.send(Err(gone)).await.unwrap();
        let chunks = reader.next(Duration::ZERO).await.unwrap();
        let read: Vec<u64> = chunks.iter().map(|chunk| chunk.next.0).collect();
        assert_eq!(read, [1, 2, 3]);
        let error = reader.next(Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, LogError::OffsetGone { .. }));
        assert!(reader.next(Duration::ZERO).await.unwrap().is_empty());
    }
}
