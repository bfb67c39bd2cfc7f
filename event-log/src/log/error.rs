//! What can go wrong with a log, apart from damage.
//!
//! Deliberately absent: damage (`damage`), which no retry repairs.

use std::error::Error;

use position::{Offset, Partition};

use super::LogAddress;

/// A setting of the log's store that breaks a condition of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {found} and must be {needed}; mend it with: {mend}")]
pub struct SettingProblem {
    /// The setting's name.
    pub setting: String,
    /// Its value.
    pub found: String,
    /// The value that the protocol needs.
    pub needed: String,
    /// A command that corrects the setting.
    pub mend: String,
}

/// A failed operation on a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store did not answer or refused; another try may succeed.
    #[error("could not {operation}")]
    Unavailable {
        /// The operation, as in "could not …".
        operation: &'static str,
        /// The error of the store's client.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no log at the address.
    #[error(
        "there is no log at {address}; make one with: annals log create --log {address}",
        address = .0
    )]
    Missing(LogAddress),
    /// This program was built without the store that keeps the log.
    #[error("this program was built without what reads {0}; use one that has it, such as annals")]
    NotBuilt(LogAddress),
    /// The store's settings would lose or change records.
    #[error("the log's settings are unsafe: {}", list(.0))]
    Settings(Vec<SettingProblem>),
    /// Another process holds the log for writing.
    #[error("another process writes to {0}; stop it first")]
    Locked(LogAddress),
    /// The file at the address is not the file that was opened: that one was deleted, moved or
    /// replaced. The text says which file, and what happened to it.
    #[error(
        "{0} while it was open; nothing more is read or written: as long as process {process} \
         runs, the files in /proc/{process}/fd still hold all of it; put back the file with its -wal \
         file, or a copy, and start again",
        process = std::process::id()
    )]
    Replaced(String),
    /// The log's first records are gone, so no reader can fold the log any more.
    #[error(
        "the beginning of partition {partition} was deleted: its first record is at offset {first}, \
         and the log's first claim was before it; nothing can be built from this log any more: let \
         nothing else be deleted, and go on with a copy that is whole"
    )]
    BeginningGone {
        /// The partition.
        partition: Partition,
        /// The first offset that is kept.
        first: Offset,
    },
    /// The offset asked for is not in the log.
    #[error("partition {partition} has no offset {offset}")]
    OffsetGone {
        /// The partition.
        partition: Partition,
        /// The offset.
        offset: Offset,
    },
    /// The appender's queue is full; nothing was taken.
    #[error("the queue of appends is full")]
    Full,
    /// The appender was closed before the append had an answer.
    #[error("the appender was closed")]
    Closed,
}

impl LogError {
    /// Whether every other try in this process fails, too: the log is not the one that was opened.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Replaced(_))
    }

    /// A failed operation, with the error of the store's client.
    pub fn unavailable(
        operation: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable {
            operation,
            source: source.into(),
        }
    }
}

/// Makes a store client's error the error of `operation`.
#[cfg(any(feature = "kafka", feature = "sqlite"))]
pub(super) fn failed<E: Into<Box<dyn Error + Send + Sync>>>(
    operation: &'static str,
) -> impl FnOnce(E) -> LogError {
    move |error| LogError::unavailable(operation, error)
}

fn list(problems: &[SettingProblem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
