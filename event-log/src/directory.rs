//! Who is said to own each partition, and which nodes there are: hints that every node writes and
//! reads, so that a command finds its owner without asking around.
//!
//! Invariant: a wrong hint is answered with the right one by whoever it led to. Deliberately
//! absent: who owns (the log), and who should (`membership`).

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use kernel::Timestamp;
use position::{LogId, Partition, Term};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::log::LogError;

/// Where a partition's owner is said to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The log that it speaks of: of another's it says nothing.
    pub log: LogId,
    /// The term of its claim: of two hints, the one with the higher term is the newer.
    pub term: Term,
    /// The node's name.
    pub node: String,
    /// The base address of its doors, as other nodes reach it: `http://HOST:PORT`.
    pub address: String,
}

/// A node that writes the log or follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// The node's name.
    pub node: String,
    /// The base address of its doors, as other nodes reach it.
    pub address: String,
    /// Whether it takes commands, and may be asked to take partitions over.
    pub decides: bool,
    /// The highest record format that it reads.
    pub reads_record_version: u16,
    /// The program's version, for people.
    pub program: String,
    /// What tells its list of acknowledged damage from others; absent for an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<String>,
    /// When it last said so, by its own clock. Entries are repeated every few seconds; one that
    /// has not been for long is of a node that is gone.
    pub seen_at: Timestamp,
}

/// Everything that is known from the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryEntries {
    /// The hint of each partition that ever had one.
    pub owners: BTreeMap<Partition, Hint>,
    /// The nodes by name; those that left in order are not among them.
    pub nodes: BTreeMap<String, NodeEntry>,
}

/// After how long without a word a node counts as gone, in milliseconds.
const GONE_AFTER_MS: i64 = 10_000;

impl NodeEntry {
    /// Whether it has said lately that it is there.
    #[must_use]
    pub fn seems_alive(&self, now: Timestamp) -> bool {
        let silent_ms = (now.micros() - self.seen_at.micros()) / 1_000;
        silent_ms < GONE_AFTER_MS
    }
}

impl DirectoryEntries {
    /// The newest record format that every node reads that is there; absent where none is known. A
    /// claim announces no newer one, so that a rolling upgrade goes on in the old format until the
    /// last old node has left.
    #[must_use]
    pub fn read_by_all(&self, now: Timestamp) -> Option<u16> {
        let alive = self.nodes.values().filter(|node| node.seems_alive(now));
        alive.map(|node| node.reads_record_version).min()
    }
}

impl DirectoryEntries {
    /// The lists of acknowledged damage of the nodes that are there and take commands, as digests;
    /// absent where nobody was heard yet.
    #[must_use]
    pub fn lists(&self, now: Timestamp) -> Option<BTreeSet<Option<String>>> {
        let alive = self.nodes.values().filter(|node| node.seems_alive(now));
        let deciding = alive.filter(|node| node.decides);
        let lists = deciding.map(|node| node.acknowledged.clone()).collect();
        (!self.nodes.is_empty()).then_some(lists)
    }
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

    /// What time it is by the brokers that keep the directory: when they appended a record that was
    /// sent for this. Absent where no broker stamps records.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn time(&self) -> Result<Option<Timestamp>, LogError> {
        Ok(None)
    }

    /// What is known, and every change of it.
    ///
    /// # Errors
    /// `Unavailable`.
    fn known(&self) -> Result<watch::Receiver<DirectoryEntries>, LogError>;
}

/// The directory of a node that is alone: knows nobody.
pub struct NoDirectory {
    known: watch::Sender<DirectoryEntries>,
}

impl Default for NoDirectory {
    fn default() -> Self {
        let (known, _) = watch::channel(DirectoryEntries::default());
        Self { known }
    }
}

#[async_trait]
impl Directory for NoDirectory {
    async fn say_owner(&self, _: Partition, _: &Hint) {}

    async fn say_node(&self, _: &NodeEntry) {}

    async fn say_gone(&self, _: &str) {}

    fn known(&self) -> Result<watch::Receiver<DirectoryEntries>, LogError> {
        Ok(self.known.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, reads: u16, seen_at_s: i64) -> (String, NodeEntry) {
        let entry = NodeEntry {
            node: name.to_owned(),
            address: format!("http://{name}:1"),
            decides: true,
            reads_record_version: reads,
            program: "0.1.0".to_owned(),
            acknowledged: None,
            seen_at: Timestamp::from_micros(seen_at_s * 1_000_000).unwrap(),
        };
        (name.to_owned(), entry)
    }

    #[test]
    fn a_claim_announces_no_format_that_a_node_which_is_there_cannot_read() {
        let now = Timestamp::from_micros(100_000_000).unwrap();
        let known = |nodes: Vec<(String, NodeEntry)>| DirectoryEntries {
            nodes: nodes.into_iter().collect(),
            ..DirectoryEntries::default()
        };
        assert_eq!(known(vec![]).read_by_all(now), None);
        let upgraded = vec![node("a", 2, 99), node("b", 3, 98)];
        assert_eq!(known(upgraded).read_by_all(now), Some(2));
        let half = vec![node("a", 2, 99), node("b", 1, 98)];
        assert_eq!(known(half).read_by_all(now), Some(1));
        let old_one_gone = vec![node("a", 2, 99), node("b", 1, 80)];
        assert_eq!(known(old_one_gone).read_by_all(now), Some(2));
    }
}
