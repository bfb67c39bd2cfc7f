//! The log as the engine sees it: partitions of records, appended in order, read by offset.
//!
//! Invariant: an append is acknowledged only when it is durable, and acknowledgements of one
//! partition come in the order of its appends. Deliberately absent: what a record means. There is
//! no conditional append either; which records count is decided by every reader (`chain`).

mod acknowledging;
mod address;
mod error;
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

pub use acknowledging::acknowledging;
pub use address::{AddressError, LogAddress};
pub use error::{LogError, SettingProblem};
#[cfg(feature = "kafka")]
pub use kafka::KafkaLog;
pub use security::{KafkaSecurity, LogPlace, Password, Sasl, SaslMechanism, Tls, TlsIdentity};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLog;
pub use watch::{Beginnings, LOOK_EVERY, LogWatch};

use position::{LogId, Offset, Partition};

use crate::chain::Acknowledged;
use crate::directory::{Directory, NoDirectory};
use crate::membership::{Everything, Membership, MembershipOptions};
use crate::record::{NewRecord, Record};

/// A log, whichever store it is kept in.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Where it is.
    fn address(&self) -> &LogAddress;

    /// The damaged places that its readers pass, because an operator has acknowledged them.
    fn acknowledged(&self) -> Acknowledged {
        Acknowledged::default()
    }

    /// The number of its partitions; it never changes.
    fn partition_count(&self) -> u32;

    /// Holds the store's settings against what the protocol needs; returns what should be known
    /// but stops nobody (such as a single broker).
    ///
    /// # Errors
    /// `Settings` with every wrong setting and the command that mends it; `Unavailable`.
    async fn check(&self) -> Result<Vec<String>, LogError>;

    /// The first offset that is kept and the offset behind the last record.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn bounds(&self, partition: Partition) -> Result<Bounds, LogError>;

    /// Reads a piece of a partition from an offset on; for take-overs, gaps and proofs.
    ///
    /// Returns at once at the log's end.
    ///
    /// # Errors
    /// `Unavailable`; `OffsetGone` where `from` lies below the first offset or above the end.
    async fn read(&self, partition: Partition, from: Offset) -> Result<Chunk, LogError>;

    /// Reads single records; absent is what has no record at that offset.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn read_at(
        &self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError>;

    /// What stands at an offset that was read or acknowledged before, and where the log ends, for a
    /// proof. Nothing is said to be gone before it is certain that whoever says so leads the
    /// partition now.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn look(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> Result<(Offset, Option<Record>), LogError> {
        let bounds = self.bounds(partition).await?;
        let found = self.read_at(partition, &[offset]).await?;
        Ok((bounds.end, found.into_iter().next().flatten()))
    }

    /// Follows some partitions from given offsets on, for as long as the reader is kept.
    ///
    /// # Errors
    /// `Unavailable`.
    fn follow(&self, from: &[(Partition, Offset)]) -> Result<Box<dyn LogReader>, LogError>;

    /// The node's one way to append to all partitions.
    ///
    /// # Errors
    /// `Locked` where another process may be writing; `Unavailable`.
    async fn appender(&self) -> Result<Arc<dyn Appender>, LogError>;

    /// This node's place among those that share out the partitions. A log that one process at a
    /// time can write gives all of them to whoever asks.
    ///
    /// # Errors
    /// `Unavailable`.
    fn membership(&self, _options: &MembershipOptions) -> Result<Box<dyn Membership>, LogError> {
        Ok(Box::new(Everything::of(self.partition_count())))
    }

    /// Where nodes that write this `log` tell each other who owns what.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn directory(&self, _log: LogId) -> Result<Arc<dyn Directory>, LogError> {
        Ok(Arc::new(NoDirectory::default()))
    }
}

/// The offsets of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is kept.
    pub first: Offset,
    /// The offset behind the last record.
    pub end: Offset,
}

/// Consecutive records of one partition.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The partition.
    pub partition: Partition,
    /// Records in order of offset; offsets without records are possible between them.
    pub records: Vec<Record>,
    /// Where to go on: no record below this offset is missing from what was read so far.
    pub next: Offset,
    /// Whether `next` was the end of the log when it was read.
    pub at_end: bool,
}

/// A reader that follows partitions.
#[async_trait]
pub trait LogReader: Send {
    /// The next records, of any of its partitions; empty when none came within `wait`.
    ///
    /// # Errors
    /// `Unavailable`, after which the reader is to be thrown away.
    async fn next(&mut self, wait: Duration) -> Result<Vec<Chunk>, LogError>;
}

/// What an append came to.
pub type AppendResult = Result<Appended, LogError>;

/// Told of the result, from a thread that must not be held up: it may only pass it on.
pub type AppendDone = Box<dyn FnOnce(AppendResult) + Send + Sync>;

/// A durable append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it stands, if the log said so.
    pub offset: Option<Offset>,
    /// When the log appended it, in milliseconds since 1970, if the log said so.
    pub appended_at_ms: Option<i64>,
}

/// The appending side of a log.
#[async_trait]
pub trait Appender: Send + Sync + 'static {
    /// The way to append under one claim. Whoever claims takes a new one: a session whose client
    /// failed takes nothing more, ever, so that no record follows one that was lost.
    ///
    /// # Errors
    /// `Unavailable`.
    fn session(&self) -> Result<Arc<dyn AppendSession>, LogError>;

    /// Waits up to `wait` until everything handed over has an answer.
    async fn flush(&self, wait: Duration);
}

/// The way to append under one claim.
pub trait AppendSession: Send + Sync + 'static {
    /// Hands over a record; `done` is told when it is durable or when its fate is in doubt.
    ///
    /// # Errors
    /// `Full`: nothing was taken, try again a little later. `Closed` or anything else: nothing was
    /// taken, and the session takes nothing more.
    fn append(
        &self,
        partition: Partition,
        record: &NewRecord,
        done: AppendDone,
    ) -> Result<(), LogError>;
}

/// Opens the log at a place, or at an address that lets everybody in.
///
/// # Errors
/// `Missing` if there is none; `Unavailable`; `NotBuilt`.
pub async fn open(place: impl Into<LogPlace>) -> Result<Arc<dyn EventLog>, LogError> {
    let place = place.into();
    Ok(match &place.address {
        #[cfg(feature = "sqlite")]
        LogAddress::Sqlite { path } => Arc::new(SqliteLog::open(path).await?),
        #[cfg(feature = "kafka")]
        LogAddress::Kafka { brokers, topic } => {
            Arc::new(KafkaLog::open(brokers, topic, &place.kafka).await?)
        }
        #[cfg(not(all(feature = "kafka", feature = "sqlite")))]
        other => return Err(LogError::not_built(other)),
    })
}

/// How the store of a new log is made.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// The number of partitions.
    pub partition_count: u32,
    /// How many brokers keep each partition; of no meaning for SQLite.
    pub replication: u16,
}

/// Makes the store of a log if there is none: a topic or a file, with no records yet.
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
            KafkaLog::create(brokers, topic, options, &place.kafka).await
        }
        #[cfg(not(all(feature = "kafka", feature = "sqlite")))]
        other => Err(LogError::not_built(other)),
    }
}
