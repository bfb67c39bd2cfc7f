//! Hints about which node owns each partition, and the list of nodes. Every node writes and reads
//! both, so that a command finds its owner without asking several nodes.
//!
//! Invariant: a node to which a wrong hint leads answers with the right hint. Deliberately absent:
//! which node owns (the log says that), and which node should own (`membership`).

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use kernel::Timestamp;
use position::{LogId, Partition, Term};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::log::LogError;

/// The node that is said to own a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The log that the hint is about; it says nothing about other logs.
    pub log: LogId,
    /// The term of the owner's claim. Of two hints, the one with the higher term is newer.
    pub term: Term,
    /// The node's name.
    pub node: String,
    /// The base address of the node's APIs, as other nodes reach it: `http://HOST:PORT`.
    pub address: String,
}

/// A node that writes the log or follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// The node's name.
    pub node: String,
    /// The base address of the node's APIs, as other nodes reach it.
    pub address: String,
    /// Whether the node takes commands, and may be asked to take over partitions.
    pub decides: bool,
    /// The highest record format that the node reads.
    pub reads_record_version: u16,
    /// The program's version, to be read by people.
    pub program: String,
    /// The digest of the node's list of acknowledged damage; absent for an empty list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<String>,
    /// When the node last wrote this entry, by the node's own clock. Nodes repeat their entries
    /// every few seconds; an old entry belongs to a node that is gone.
    pub seen_at: Timestamp,
}

/// Everything that the directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryEntries {
    /// The last hint of each partition that ever had one.
    pub owners: BTreeMap<Partition, Hint>,
    /// The nodes by name, without the nodes that left in order.
    pub nodes: BTreeMap<String, NodeEntry>,
}

/// A node counts as gone when its entry is this old, in milliseconds.
const GONE_AFTER_MS: i64 = 10_000;

impl NodeEntry {
    /// Whether the node has written its entry lately.
    #[must_use]
    pub fn seems_alive(&self, now: Timestamp) -> bool {
        let silent_ms = (now.micros() - self.seen_at.micros()) / 1_000;
        silent_ms < GONE_AFTER_MS
    }
}

impl DirectoryEntries {
    /// The newest record format that every live node reads; absent if no live node is known. A
    /// claim announces no newer format, so a rolling upgrade keeps the old format until the last
    /// old node has left.
    #[must_use]
    pub fn read_by_all(&self, now: Timestamp) -> Option<u16> {
        let alive = self.nodes.values().filter(|node| node.seems_alive(now));
        alive.map(|node| node.reads_record_version).min()
    }

    /// The digests of the lists of acknowledged damage, of all live nodes that take commands;
    /// absent while no node is known.
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
    /// Publishes who owns a partition. Best effort: a lost hint costs a detour.
    async fn say_owner(&self, partition: Partition, hint: &Hint);

    /// Publishes that this node is alive. The caller repeats this.
    async fn say_node(&self, entry: &NodeEntry);

    /// Publishes that a node is gone.
    async fn say_gone(&self, node: &str);

    /// The present time by the clock of the brokers that keep the directory: the append time of a
    /// record that is sent for this purpose. Absent if no broker stamps records.
    async fn time(&self) -> Result<Option<Timestamp>, LogError> {
        Ok(None)
    }

    /// The present entries, and every change of them.
    fn known(&self) -> watch::Receiver<DirectoryEntries>;
}

/// The directory of a single node: it knows no other node.
#[derive(Default)]
pub struct NoDirectory {
    known: watch::Sender<DirectoryEntries>,
}

#[async_trait]
impl Directory for NoDirectory {
    async fn say_owner(&self, _: Partition, _: &Hint) {}

    async fn say_node(&self, _: &NodeEntry) {}

    async fn say_gone(&self, _: &str) {}

    fn known(&self) -> watch::Receiver<DirectoryEntries> {
        self.known.subscribe()
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
