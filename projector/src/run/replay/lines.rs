//! The one order in which a replay takes the commits of all partitions: by the time of recording (the
//! latest one so far in the partition), then by partition, then by offset.
//!
//! It is the order in which moments follow one another for as-of: at a time, exactly the commits up to
//! that time have been taken. Invariant: a commit is handed out only when the next one of every other
//! partition is known. Deliberately absent: I/O; the caller reads.

use std::collections::{BTreeMap, VecDeque};

use event_log::subscription::Placed;
use position::Partition;

/// The commits of each partition that are still to be taken.
pub(super) struct Lines(BTreeMap<Partition, Line>);

struct Line {
    waiting: VecDeque<Placed>,
    is_at_end: bool,
}

/// What comes next.
pub(super) enum Head<'a> {
    /// Unknown until more of this partition is read.
    Unread(Partition),
    /// A commit.
    Commit(&'a Placed),
    /// Nothing.
    End,
}

impl Lines {
    pub(super) fn new(partitions: impl IntoIterator<Item = Partition>) -> Self {
        let line = |partition| {
            let line = Line {
                waiting: VecDeque::new(),
                is_at_end: false,
            };
            (partition, line)
        };
        Self(partitions.into_iter().map(line).collect())
    }

    /// Adds the next commits of a partition.
    pub(super) fn give(&mut self, partition: Partition, commits: Vec<Placed>) {
        if let Some(line) = self.0.get_mut(&partition) {
            line.waiting.extend(commits);
        }
    }

    /// A partition has no further commits.
    pub(super) fn end(&mut self, partition: Partition) {
        if let Some(line) = self.0.get_mut(&partition) {
            line.is_at_end = true;
        }
    }

    /// How many commits wait to be taken.
    pub(super) fn waiting(&self) -> u64 {
        self.0.values().map(|line| line.waiting.len() as u64).sum()
    }

    pub(super) fn head(&self) -> Head<'_> {
        let mut first: Option<&Placed> = None;
        for (partition, line) in &self.0 {
            match line.waiting.front() {
                None if line.is_at_end => {}
                None => return Head::Unread(*partition),
                // Partitions come in their order, so that the first of equal times stays.
                Some(next) if first.is_none_or(|first| next.at < first.at) => first = Some(next),
                Some(_) => {}
            }
        }
        first.map_or(Head::End, Head::Commit)
    }

    /// Takes the commit that [`Self::head`] showed.
    pub(super) fn take(&mut self) -> Option<Placed> {
        let Head::Commit(first) = self.head() else {
            return None;
        };
        let partition = first.partition;
        self.0.get_mut(&partition)?.waiting.pop_front()
    }
}
