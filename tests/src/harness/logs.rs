//! A new log in each kind of store, for tests that must hold on all of them.

use std::path::PathBuf;
use std::sync::Arc;

use event_log::create::{CreateOptions, create};
use event_log::log::{EventLog, LogAddress, StoreOptions};
use position::LogId;
use tempfile::TempDir;

use super::{kafka, unique_name};

/// The stores that can hold a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Sqlite,
    /// A topic of the shared broker.
    Kafka,
}

/// A new log, and a folder that is removed with it.
pub struct NewLog {
    /// The log's address.
    pub address: LogAddress,
    /// The log's id.
    pub id: LogId,
    /// The log, open.
    pub log: Arc<dyn EventLog>,
    /// For local state.
    pub folder: TempDir,
}

impl NewLog {
    /// Makes a log with a first claim in each partition.
    ///
    /// # Panics
    /// If the log cannot be made.
    pub async fn make(kind: Kind, partition_count: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = address(kind, &folder);
        let options = CreateOptions {
            store: StoreOptions {
                partition_count,
                replication: 1,
            },
            idempotency_window_ms: event_log::claim::IDEMPOTENCY_WINDOW_MS,
            node: "test".to_owned(),
        };
        let (log, id, _) = create(&address, &options).await.expect("a new log");
        Self {
            address,
            id,
            log,
            folder,
        }
    }

    /// A folder for the local store of an owner.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }
}

/// An address at which there is no log yet.
#[must_use]
pub fn address(kind: Kind, folder: &TempDir) -> LogAddress {
    match kind {
        Kind::Sqlite => LogAddress::Sqlite {
            path: folder.path().join("log.db"),
        },
        Kind::Kafka => LogAddress::Kafka {
            brokers: kafka::shared().bootstrap().to_owned(),
            topic: unique_name("log"),
        },
    }
}
