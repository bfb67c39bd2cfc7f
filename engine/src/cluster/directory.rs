//! Who is said to own each partition, and which nodes there are: hints that every node writes and
//! reads, so that a command finds its owner without asking around.
//!
//! Invariant: a wrong hint is answered with the right one by whoever it led to. Deliberately
//! absent: who owns (the log), and who should (`membership`).

use std::collections::BTreeMap;

use async_trait::async_trait;
use kernel::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::ids::{Partition, Term};
use crate::log::LogError;

/// Where a partition's owner is said to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The term of its claim: of two hints, the one with the higher term is the newer.
    pub term: Term,
    /// The node's name.
    pub node: String,
    /// The base address of its doors, as other nodes reach it: `http://HOST:PORT`.
    pub address: String,
}

/// A node that takes commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// The node's name.
    pub node: String,
    /// The base address of its doors, as other nodes reach it.
    pub address: String,
    /// The highest record format that it reads.
    pub reads_record_version: u16,
    /// The program's version, for people.
    pub program: String,
    /// When it last said so, by its own clock. Entries are repeated every few seconds; one that
    /// has not been for long is of a node that is gone.
    pub seen_at: Timestamp,
}

/// Everything that is known from the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The hint of each partition that ever had one.
    pub owners: BTreeMap<Partition, Hint>,
    /// The nodes by name; those that left in order are not among them.
    pub nodes: BTreeMap<String, NodeEntry>,
}

/// A node's access to the directory.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Says who owns a partition. Best effort: a hint that is lost costs a detour.
    async fn say_owner(&self, partition: Partition, hint: &Hint);

    /// Says that this node is here. To be repeated.
    async fn say_node(&self, entry: &NodeEntry);

    /// Says that a node is no longer here.
    async fn say_gone(&self, node: &str);

    /// What is known, and every change of it.
    ///
    /// # Errors
    /// `Unavailable`.
    fn known(&self) -> Result<watch::Receiver<Known>, LogError>;
}

/// The directory of a node that is alone: knows nobody.
pub struct NoDirectory {
    known: watch::Sender<Known>,
}

impl Default for NoDirectory {
    fn default() -> Self {
        let (known, _) = watch::channel(Known::default());
        Self { known }
    }
}

#[async_trait]
impl Directory for NoDirectory {
    async fn say_owner(&self, _: Partition, _: &Hint) {}

    async fn say_node(&self, _: &NodeEntry) {}

    async fn say_gone(&self, _: &str) {}

    fn known(&self) -> Result<watch::Receiver<Known>, LogError> {
        Ok(self.known.subscribe())
    }
}
