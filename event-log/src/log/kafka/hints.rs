//! The records of the directory's topic: keys, values, and the entries that a reader takes.
//!
//! Invariant: whatever is in the topic, the known entries stay bounded and belong to the log that
//! is asked for. The last record of a key wins, because that is the record that compaction keeps. A
//! reader of the log decides which of two hints is right. Deliberately absent: the client
//! (`directory`).

use std::collections::BTreeSet;

use position::{LogId, Partition};

use crate::directory::{DirectoryEntries, Hint, NodeEntry};

const VALUE_BYTES_MAX: usize = 16 << 10;
/// How many nodes are kept at most; entries of further nodes are ignored.
const NODES_MAX: usize = 1_000;

pub(super) fn owner_key(partition: Partition) -> String {
    format!("owner/{partition}")
}

pub(super) fn node_key(node: &str) -> String {
    format!("node/{node}")
}

/// Why a record is ignored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    #[error("its key is unknown")]
    Key,
    #[error("its value does not fit its key")]
    Value,
    #[error("there are too many nodes")]
    TooMany,
    /// Such hints are left if the log's topic was deleted and created again.
    #[error("it is about another log")]
    OtherLog,
}

/// What was read from the topic so far.
#[derive(Debug)]
pub(super) struct Heard {
    log: LogId,
    pub(super) known: DirectoryEntries,
    /// The partitions of which a hint was read. Compaction keeps the last record of a key, and an
    /// earlier one may have been a newer hint; so the node that wrote that hint writes it again.
    pub(super) said_of: BTreeSet<Partition>,
}

impl Heard {
    pub(super) fn of(log: LogId) -> Self {
        Self {
            log,
            known: DirectoryEntries::default(),
            said_of: BTreeSet::new(),
        }
    }

    pub(super) fn hear(
        &mut self,
        partition_count: u32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Unread> {
        let key = std::str::from_utf8(key).map_err(|_| Unread::Key)?;
        if let Some(number) = key.strip_prefix("owner/") {
            let number: u32 = number.parse().map_err(|_| Unread::Key)?;
            let partition = Partition(number);
            if number >= partition_count || key != owner_key(partition) {
                return Err(Unread::Key);
            }
            let hint: Hint = read(value.ok_or(Unread::Value)?)?;
            if hint.log != self.log {
                return Err(Unread::OtherLog);
            }
            self.said_of.insert(partition);
            self.known.owners.insert(partition, hint);
            return Ok(());
        }
        let node = key.strip_prefix("node/").ok_or(Unread::Key)?;
        let Some(value) = value else {
            self.known.nodes.remove(node);
            return Ok(());
        };
        let entry: NodeEntry = read(value)?;
        if entry.node != node {
            return Err(Unread::Value);
        }
        if self.known.nodes.len() >= NODES_MAX && !self.known.nodes.contains_key(node) {
            return Err(Unread::TooMany);
        }
        self.known.nodes.insert(node.to_owned(), entry);
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, Unread> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Unread::Value);
    }
    serde_json::from_slice(value).map_err(|_| Unread::Value)
}

/// Forgets the hints of this node for which a hint of a higher term is known.
pub(super) fn give_way(said: &mut DirectoryEntries, known: &DirectoryEntries) {
    said.owners.retain(|partition, said| {
        let known = known.owners.get(partition);
        known.is_none_or(|known| known.term <= said.term)
    });
}

/// This node's hint for a partition, if an older hint was read after it.
pub(super) fn newer<'a>(
    said: &'a DirectoryEntries,
    known: &DirectoryEntries,
    partition: Partition,
) -> Option<&'a Hint> {
    let said = said.owners.get(&partition)?;
    let heard = known.owners.get(&partition)?;
    (heard.term < said.term).then_some(said)
}

#[cfg(test)]
mod tests {
    use position::Term;
    use uuid::Uuid;

    use super::*;

    fn log(number: u128) -> LogId {
        LogId(Uuid::from_u128(number))
    }

    fn heard() -> Heard {
        Heard::of(log(1))
    }

    fn hint(term: u64, node: &str) -> Hint {
        Hint {
            log: log(1),
            term: Term(term),
            node: node.to_owned(),
            address: format!("http://{node}:1"),
        }
    }

    fn hear(heard: &mut Heard, key: &str, value: Option<&str>) -> Result<(), Unread> {
        heard.hear(4, key.as_bytes(), value.map(str::as_bytes))
    }

    fn json(value: &impl serde::Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn what_was_said_last_is_known_and_whoever_said_something_newer_says_it_again() {
        let (mut heard, mut said) = (heard(), DirectoryEntries::default());
        said.owners.insert(Partition(1), hint(3, "me"));
        for (term, node, again) in [(3, "me", false), (2, "b", true), (4, "c", false)] {
            hear(&mut heard, "owner/1", Some(&json(&hint(term, node)))).unwrap();
            assert_eq!(heard.known.owners[&Partition(1)].node, node);
            assert!(heard.said_of.remove(&Partition(1)));
            let newer = newer(&said, &heard.known, Partition(1));
            assert_eq!(newer.is_some(), again, "{node}");
        }
    }

    #[test]
    fn a_hint_of_another_log_says_nothing_however_high_its_term() {
        let mut heard = heard();
        let left_behind = Hint {
            log: log(2),
            ..hint(u64::MAX, "gone")
        };
        let said = hear(&mut heard, "owner/1", Some(&json(&left_behind)));
        assert_eq!(said, Err(Unread::OtherLog));
        assert_eq!(heard.known, DirectoryEntries::default());
    }

    #[test]
    fn what_is_foreign_or_unreadable_changes_nothing() {
        let mut heard = heard();
        hear(&mut heard, "owner/1", Some(&json(&hint(1, "a")))).unwrap();
        let before = heard.known.clone();
        let good = json(&hint(9, "z"));
        let long = format!(
            "{{\"log\":\"00000000-0000-0000-0000-000000000001\",\"term\":9,\"node\":\"{}\",\"address\":\"\"}}",
            "z".repeat(20_000)
        );
        for (key, value, reason) in [
            ("", Some(&*good), Unread::Key),
            ("owner", Some(&*good), Unread::Key),
            ("owner/", Some(&*good), Unread::Key),
            ("owner/4", Some(&*good), Unread::Key),
            ("owner/+1", Some(&*good), Unread::Key),
            ("owner/01", Some(&*good), Unread::Key),
            ("owner/4294967297", Some(&*good), Unread::Key),
            ("Node/z", Some(&*good), Unread::Key),
            ("owner/1", None, Unread::Value),
            ("owner/1", Some(""), Unread::Value),
            ("owner/1", Some("[9]"), Unread::Value),
            (
                "owner/1",
                Some("{\"term\":-1,\"node\":\"z\",\"address\":\"\"}"),
                Unread::Value,
            ),
            ("owner/1", Some(&*long), Unread::Value),
            ("node/z", Some(&*good), Unread::Value),
        ] {
            assert_eq!(hear(&mut heard, key, value), Err(reason), "{key} {value:?}");
        }
        assert_eq!(heard.hear(4, b"\xff", None), Err(Unread::Key));
        assert_eq!(heard.known, before);
    }

    #[test]
    fn nodes_come_and_go_and_cannot_be_without_number() {
        let entry = |node: &str| NodeEntry {
            decides: true,
            node: node.to_owned(),
            address: String::new(),
            reads_record_version: 1,
            program: String::new(),
            acknowledged: None,
            seen_at: kernel::Timestamp::from_micros(0).unwrap(),
        };
        let mut heard = heard();
        hear(&mut heard, "node/a", Some(&json(&entry("a")))).unwrap();
        assert_eq!(heard.known.nodes.len(), 1);
        assert_eq!(
            hear(&mut heard, "node/a", Some(&json(&entry("b")))),
            Err(Unread::Value),
            "the key names another node"
        );
        hear(&mut heard, "node/a", None).unwrap();
        hear(&mut heard, "node/never-there", None).unwrap();
        assert!(heard.known.nodes.is_empty());
        for number in 0..NODES_MAX {
            let node = number.to_string();
            hear(&mut heard, &node_key(&node), Some(&json(&entry(&node)))).unwrap();
        }
        assert_eq!(
            hear(&mut heard, "node/more", Some(&json(&entry("more")))),
            Err(Unread::TooMany)
        );
        hear(&mut heard, "node/7", Some(&json(&entry("7")))).unwrap();
        assert_eq!(heard.known.nodes.len(), NODES_MAX);
    }

    #[test]
    fn a_node_says_again_only_what_nobody_has_outdone() {
        let mut said = DirectoryEntries::default();
        said.owners.insert(Partition(0), hint(5, "me"));
        said.owners.insert(Partition(1), hint(5, "me"));
        let mut known = DirectoryEntries::default();
        known.owners.insert(Partition(0), hint(6, "you"));
        known.owners.insert(Partition(1), hint(4, "you"));
        give_way(&mut said, &known);
        assert_eq!(newer(&said, &known, Partition(0)), None);
        assert_eq!(said.owners, [(Partition(1), hint(5, "me"))].into());
    }
}
