//! The log as the engine sees it: partitions of records, appended in order, read by offset.
//!
//! Invariant: an append is acknowledged only when it is durable, and acknowledgements of one
//! partition come in the order of its appends. Deliberately absent: the meaning of records, and
//! conditional appends; every reader decides which records count (`chain`).

mod address;
mod error;
#[cfg(any(feature = "kafka", feature = "sqlite"))]
mod gathered;
#[cfg(feature = "kafka")]
mod kafka;
mod security;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "kafka")]
pub mod trial;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

pub use address::{AddressError, LogAddress};
pub use error::{LogError, SettingProblem};
pub use security::{KafkaSecurity, LogPlace, Password, Sasl, SaslMechanism, Tls, TlsIdentity};
pub use watch::{LOOK_EVERY, LogWatch};

#[cfg(feature = "kafka")]
pub use kafka::TOPIC_SETTINGS;
#[cfg(feature = "kafka")]
use kafka::{KafkaLog, Topic};
use position::{LogId, Offset, Partition};
#[cfg(feature = "sqlite")]
use sqlite::SqliteLog;

use crate::chain::Acknowledged;
use crate::directory::{Directory, NoDirectory};
use crate::membership::{Everything, Membership, MembershipOptions};
use crate::record::{NewRecord, Record};

/// A log in any store.
///
/// # Errors
/// Every operation fails with `Unavailable` if the store does not answer, or with what its own
/// documentation names.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// The log's address.
    fn address(&self) -> &LogAddress;

    /// The damaged places that the log's readers pass, because an operator has acknowledged them.
    fn acknowledged(&self) -> Acknowledged {
        Acknowledged::default()
    }

    /// The number of the log's partitions. It never changes.
    fn partition_count(&self) -> u32;

    /// Compares the store's settings with what the protocol needs. Returns warnings that do not
    /// prevent the use of the log (such as a single broker).
    ///
    /// # Errors
    /// `Settings` with every wrong setting and the command that corrects it.
    async fn check(&self) -> Result<Vec<String>, LogError>;

    /// The first offset that is kept, and the offset after the last record.
    async fn bounds(&self, partition: Partition) -> Result<Bounds, LogError>;

    /// Reads a piece of a partition from an offset on; used for take-overs, gaps and proofs.
    ///
    /// At the log's end it returns at once.
    ///
    /// # Errors
    /// `OffsetGone` if `from` lies below the first offset or above the end.
    async fn read(&self, partition: Partition, from: Offset) -> Result<Chunk, LogError>;

    /// Reads single records; `None` for an offset without a record.
    async fn read_at(
        &self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError>;

    /// For a proof: the log's end, and the record at an offset that was read or acknowledged
    /// before. A record is reported as gone only after it is certain that the answer came from the
    /// partition's present leader.
    async fn look(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> Result<(Offset, Option<Record>), LogError> {
        let bounds = self.bounds(partition).await?;
        let found = self.read_at(partition, &[offset]).await?;
        Ok((bounds.end, found.into_iter().next().flatten()))
    }

    /// Follows some partitions from given offsets on, until the reader is dropped.
    fn follow(&self, from: &[(Partition, Offset)]) -> Result<Box<dyn LogReader>, LogError>;

    /// The node's one way to append to all partitions.
    ///
    /// # Errors
    /// `Locked` if another process may be writing.
    async fn appender(&self) -> Result<Arc<dyn Appender>, LogError>;

    /// This node's place in the group that shares the partitions. A log that only one process at a
    /// time can write assigns all partitions to each caller.
    fn membership(&self, _options: &MembershipOptions) -> Result<Box<dyn Membership>, LogError> {
        Ok(Box::new(Everything::of(self.partition_count())))
    }

    /// The directory in which the nodes that write this `log` tell each other who owns what.
    async fn directory(&self, _log: LogId) -> Result<Arc<dyn Directory>, LogError> {
        Ok(Arc::new(NoDirectory::default()))
    }
}

/// The offsets of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is kept.
    pub first: Offset,
    /// The offset after the last record.
    pub end: Offset,
}

/// Consecutive records of one partition.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The partition.
    pub partition: Partition,
    /// Records in order of offset. There may be offsets without records between them.
    pub records: Vec<Record>,
    /// Where to continue: no record below this offset is left to read.
    pub next: Offset,
    /// Whether `next` was the log's end when the log was read.
    pub at_end: bool,
}

/// A reader that follows partitions.
#[async_trait]
pub trait LogReader: Send {
    /// The next records of any of the reader's partitions; empty if none came within `wait`.
    ///
    /// # Errors
    /// `Unavailable`; discard the reader after it.
    async fn next(&mut self, wait: Duration) -> Result<Vec<Chunk>, LogError>;
}

/// The result of an append.
pub type AppendResult = Result<Appended, LogError>;

/// Receives the result, on a thread that must not be delayed: it may only pass the result on.
pub type AppendDone = Box<dyn FnOnce(AppendResult) + Send + Sync>;

/// A durable append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record's offset, if the log reported it.
    pub offset: Option<Offset>,
    /// When the log appended the record, in milliseconds since 1970, if the log reported it.
    pub appended_at_ms: Option<i64>,
}

/// The appending side of a log.
#[async_trait]
pub trait Appender: Send + Sync + 'static {
    /// Opens a way to append under one claim. Every claim needs a new session. A session whose
    /// client failed takes no more records, ever, so that no record follows a record that was lost.
    fn session(&self) -> Result<Arc<dyn AppendSession>, LogError>;

    /// Waits up to `wait` until every record that was handed over has an answer.
    async fn flush(&self, wait: Duration);
}

/// The way to append under one claim.
pub trait AppendSession: Send + Sync + 'static {
    /// Hands over a record. `done` is called when the record is durable or its fate is in doubt.
    ///
    /// # Errors
    /// `Full`: the record was not taken; try again a little later. `Closed` and all other errors:
    /// the record was not taken, and the session takes no more records.
    fn append(
        &self,
        partition: Partition,
        record: &NewRecord,
        done: AppendDone,
    ) -> Result<(), LogError>;
}

/// Hands over a record, and returns where its result arrives.
pub(crate) fn append(
    session: &dyn AppendSession,
    partition: Partition,
    record: &NewRecord,
) -> Result<oneshot::Receiver<AppendResult>, LogError> {
    let (done, result) = oneshot::channel();
    let done = Box::new(move |appended| {
        // The receiver may be gone.
        let _ = done.send(appended);
    });
    session.append(partition, record, done)?;
    Ok(result)
}

/// The records of a partition, piece by piece, up to the end that the log had at the start.
pub(crate) struct Pieces<'a> {
    log: &'a dyn EventLog,
    pub(crate) partition: Partition,
    /// Where the next piece begins; at the start, the first offset that is kept.
    pub(crate) next: Offset,
    pub(crate) end: Offset,
}

impl<'a> Pieces<'a> {
    pub(crate) async fn of(log: &'a dyn EventLog, partition: Partition) -> Result<Self, LogError> {
        let Bounds { first, end } = log.bounds(partition).await?;
        Ok(Self {
            log,
            partition,
            next: first,
            end,
        })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Record>>, LogError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let chunk = self.log.read(self.partition, self.next).await?;
        self.next = match chunk.at_end {
            true => self.end,
            false => chunk.next,
        };
        Ok(Some(chunk.records))
    }
}

/// Opens the log at a place, or at an address that needs no authentication.
///
/// # Errors
/// `Missing` if there is no log; `Unavailable`; `NotBuilt`.
pub async fn open(place: impl Into<LogPlace>) -> Result<Arc<dyn EventLog>, LogError> {
    let place = place.into();
    match &place.address {
        #[cfg(feature = "sqlite")]
        LogAddress::Sqlite { path } => Ok(Arc::new(SqliteLog::open(path, &place).await?)),
        #[cfg(feature = "kafka")]
        LogAddress::Kafka { brokers, topic } => {
            let topic = Topic::new(brokers, topic, &place.kafka);
            Ok(Arc::new(KafkaLog::open(topic, &place).await?))
        }
        #[cfg(not(all(feature = "kafka", feature = "sqlite")))]
        other => Err(LogError::NotBuilt(other.clone())),
    }
}

/// How the store of a new log is created.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// The number of partitions.
    pub partition_count: u32,
    /// How many brokers keep each partition; ignored for SQLite.
    pub replication: u16,
}

/// Creates the store of a log if there is none: a topic or a file without records.
///
/// # Errors
/// `Unavailable`, with the store's reason; `NotBuilt`.
#[cfg_attr(
    not(any(feature = "kafka", feature = "sqlite")),
    expect(unused_variables, clippy::unused_async, reason = "there is no store")
)]
pub async fn create_store(
    place: impl Into<LogPlace>,
    options: StoreOptions,
) -> Result<(), LogError> {
    let place = place.into();
    match &place.address {
        #[cfg(feature = "sqlite")]
        LogAddress::Sqlite { path } => SqliteLog::create(path, options.partition_count).await,
        #[cfg(feature = "kafka")]
        LogAddress::Kafka { brokers, topic } => {
            let topic = Topic::new(brokers, topic, &place.kafka);
            topic.create(options).await
        }
        #[cfg(not(all(feature = "kafka", feature = "sqlite")))]
        other => Err(LogError::NotBuilt(other.clone())),
    }
}
