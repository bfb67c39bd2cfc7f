//! What claimants learned from the log, and what they would have answered.
//!
//! Deliberately absent: whether these answers are true (`judge`).

use std::time::{Duration, Instant};

use position::{Offset, Partition, Position, Term, WriterId};

use super::commits::Content;
use super::report::Places;

/// Identifies a record; for a commit also by its position.
pub(super) type Key = (Term, WriterId, Option<Position>);

/// An acknowledged record.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) partition: Partition,
    pub(super) key: Key,
    pub(super) content: Content,
    /// Its offset, if the acknowledgement named one.
    pub(super) offset: Option<Offset>,
}

/// Everything that one claimant or several learned.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) acknowledged: Vec<Acknowledged>,
    /// Own commits, and whether the claimant would have answered that they count.
    pub(super) answers: Vec<(Key, bool)>,
    pub(super) claims_won: u64,
    pub(super) claims_lost: u64,
    /// Records, or whole windows, whose fate had to be read from the log.
    pub(super) doubts: u64,
    /// Acknowledgements after which the claimant read the log before its answer.
    pub(super) slow: u64,
    /// Acknowledgements that came in another order than the records were sent.
    pub(super) out_of_order: Places,
    /// Acknowledged records that a reader did not get in time.
    pub(super) unseen: Places,
    /// Acknowledgements without the time of the append.
    pub(super) untimed: u64,
    /// How far the append time of a record lay outside the interval between sending and
    /// acknowledgement, at most.
    pub(super) skew_max_ms: u64,
    /// The longest wait for an acknowledgement.
    pub(super) wait_max: Duration,
}

impl Ledger {
    pub(super) fn note(
        &mut self,
        one: Acknowledged,
        appended_at_ms: Option<i64>,
        now_ms: i64,
        (sent_at, told_at): (Instant, Instant),
    ) {
        self.acknowledged.push(one);
        let waited = told_at.duration_since(sent_at);
        self.wait_max = self.wait_max.max(waited);
        let Some(at) = appended_at_ms else {
            self.untimed += 1;
            return;
        };
        let sent_ms = now_ms - i64::try_from(sent_at.elapsed().as_millis()).unwrap_or(0);
        let outside = (sent_ms - at).max(at - now_ms).max(0);
        self.skew_max_ms = self.skew_max_ms.max(outside.unsigned_abs());
    }

    pub(super) fn extend(&mut self, other: Self) {
        let Self {
            acknowledged,
            answers,
            claims_won,
            claims_lost,
            doubts,
            slow,
            out_of_order,
            unseen,
            untimed,
            skew_max_ms,
            wait_max,
        } = other;
        self.acknowledged.extend(acknowledged);
        self.answers.extend(answers);
        self.claims_won += claims_won;
        self.claims_lost += claims_lost;
        self.doubts += doubts;
        self.slow += slow;
        self.out_of_order.extend(out_of_order);
        self.unseen.extend(unseen);
        self.untimed += untimed;
        self.skew_max_ms = self.skew_max_ms.max(skew_max_ms);
        self.wait_max = self.wait_max.max(wait_max);
    }
}
