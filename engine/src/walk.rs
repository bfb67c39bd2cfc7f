//! When a command took each step of its way through this node, for whoever traces it.
//!
//! Invariant: nothing is decided by these times, and a command that nobody traces has none. Deliberately
//! absent: what becomes of them (the doors make spans of them).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A step on a command's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits in its partition's queue.
    Queued,
    /// It was taken out of the queue.
    Taken,
    /// It was sent to the node that owns the partition.
    Sent,
    /// Its record was handed to the log.
    Appended,
    /// The log acknowledged its record.
    Acknowledged,
    /// It has its answer.
    Answered,
}

const STAGES: usize = 6;

/// Whether any command of this process is traced: until then, nobody looks for walks.
static ANY: AtomicBool = AtomicBool::new(false);

pub(crate) fn are_any() -> bool {
    ANY.load(Ordering::Relaxed)
}

/// The times at which one command took its steps.
#[derive(Debug)]
pub struct Walk {
    began: Instant,
    /// Nanoseconds from the beginning, plus 1; 0: the command did not get there.
    nanos: [AtomicU64; STAGES],
}

/// A part of a command's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What happened to the command meanwhile.
    pub name: &'static str,
    pub from: Instant,
    pub to: Instant,
}

impl Walk {
    /// A walk that begins now.
    #[must_use]
    pub fn begin() -> Arc<Self> {
        ANY.store(true, Ordering::Relaxed);
        Arc::new(Self {
            began: Instant::now(),
            nanos: Default::default(),
        })
    }

    /// Notes that the command takes a step now. Of several attempts, the last one counts.
    pub(crate) fn note(&self, stage: Stage) {
        let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        self.nanos[stage as usize].store(nanos + 1, Ordering::Relaxed);
    }

    fn at(&self, stage: Stage) -> Option<Instant> {
        let nanos = self.nanos[stage as usize].load(Ordering::Relaxed);
        Some(self.began + Duration::from_nanos(nanos.checked_sub(1)?))
    }

    /// The parts of the way, in order.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let [queued, taken, sent, appended, acknowledged, answered] = [
            Stage::Queued,
            Stage::Taken,
            Stage::Sent,
            Stage::Appended,
            Stage::Acknowledged,
            Stage::Answered,
        ]
        .map(|stage| self.at(stage));
        let decided = appended.or(if sent.is_none() { answered } else { None });
        let parts = [
            ("queue", queued, taken),
            ("forward", sent, answered),
            ("decide", taken, decided),
            ("append", appended, acknowledged),
            ("acknowledge", acknowledged, answered),
        ];
        let whole = |(name, from, to): (&'static str, Option<Instant>, Option<Instant>)| {
            let (from, to) = (from?, to?);
            (from <= to).then_some(Part { name, from, to })
        };
        parts.into_iter().filter_map(whole).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stages: &[Stage]) -> Vec<&'static str> {
        let walk = Walk::begin();
        stages.iter().for_each(|stage| walk.note(*stage));
        walk.parts().iter().map(|part| part.name).collect()
    }

    #[test]
    fn a_walk_has_the_parts_that_the_command_went_through() {
        use Stage::{Acknowledged, Answered, Appended, Queued, Sent, Taken};
        let whole = [Queued, Taken, Appended, Acknowledged, Answered];
        assert_eq!(names(&whole), ["queue", "decide", "append", "acknowledge"]);
        // The answer to a repeated command needs no record.
        assert_eq!(names(&[Queued, Taken, Answered]), ["queue", "decide"]);
        assert_eq!(
            names(&[Queued, Taken, Sent, Answered]),
            ["queue", "forward"]
        );
        // Nobody knows what became of it.
        assert_eq!(names(&[Queued, Taken, Appended]), ["queue", "decide"]);
        assert_eq!(names(&[Queued]), [""; 0]);
    }
}
