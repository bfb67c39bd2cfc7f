//! What claimants were told, and what they would have answered.
//!
//! Deliberately absent: whether it is true (`judge`).

use std::time::{Duration, Instant};

use position::{Offset, Partition, Position, Term, WriterId};

use super::commits::Content;
use super::report::Places;

/// Which record: of a commit also the position.
pub(super) type Key = (Term, WriterId, Option<Position>);

/// An acknowledged record.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) partition: Partition,
    pub(super) key: Key,
    pub(super) content: Content,
    /// Where it stands, if the log said so.
    pub(super) offset: Option<Offset>,
}

/// All that one claimant was told, or several.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) acknowledged: Vec<Acknowledged>,
    /// Own commits, and whether they were said to count.
    pub(super) answers: Vec<(Key, bool)>,
    pub(super) claims_won: u64,
    pub(super) claims_lost: u64,
    /// Records, or whole windows, whose fate had to be read.
    pub(super) doubts: u64,
    /// Acknowledgements after which the log was read before the answer.
    pub(super) slow: u64,
    /// Acknowledgements that came in another order than the records.
    pub(super) out_of_order: Places,
    /// Acknowledged records that no reader was shown in time.
    pub(super) unseen: Places,
    /// Acknowledgements without the time of the append.
    pub(super) untimed: u64,
    /// How far the time of an append lay outside the time between sending and acknowledgement.
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
