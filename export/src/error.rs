//! Why an export or its verification did not get to its end.
//!
//! Deliberately absent: what verification found (`verify`).

use std::io;
use std::path::{Path, PathBuf};

use event_log::chain::Stop;
use event_log::log::LogError;
use event_log::subscription::SubscriptionError;

/// Why an export did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log did not answer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log goes no further.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// Postgres did not answer, or refused.
    #[error("could not {what}: {source}")]
    Postgres {
        /// What was tried.
        what: &'static str,
        /// Its error.
        source: sqlx::Error,
    },
    /// A file could not be read or written.
    #[error("could not {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The disk is full.
    #[error(
        "the disk of {} is full: {written} bytes are written, and about {missing} bytes more are \
         needed; make room and repeat the same command, which goes on where it stopped",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// How many bytes the export has so far.
        written: u64,
        /// How many bytes more it will need, as far as that can be told.
        missing: u64,
    },
    /// The data could not be brought into the format.
    #[error("could not write {what} as {format}: {reason}")]
    Format {
        /// What could not be written.
        what: String,
        /// The format.
        format: &'static str,
        /// Why.
        reason: String,
    },
    /// What was asked cannot be done.
    #[error("{0}")]
    Asked(String),
    /// The folder holds something else.
    #[error("{0}")]
    Folder(String),
    /// The reader of stdout has gone.
    #[error("nobody reads stdout any more")]
    Closed,
    /// A stop was requested.
    #[error("stopped")]
    Stopped,
}

impl From<SubscriptionError> for ExportError {
    fn from(error: SubscriptionError) -> Self {
        match error {
            SubscriptionError::Stop(stop) => Self::Stop(stop),
            SubscriptionError::Log(error) => Self::Log(error),
        }
    }
}

impl ExportError {
    /// For `map_err`: a failure with a file.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                path,
                written: 0,
                missing: 0,
            },
            _ => Self::File { what, path, source },
        }
    }

    /// For `map_err`: a failure with a database file.
    pub(crate) fn database(what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            // SQLITE_FULL
            let code = source.as_database_error().and_then(|error| error.code());
            match code.as_deref() {
                Some("13") => Self::Asked(format!(
                    "could not {what}: the disk is full; make room and repeat the command"
                )),
                _ => Self::Postgres { what, source },
            }
        }
    }

    pub(crate) fn postgres(what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Postgres { what, source }
    }
}
