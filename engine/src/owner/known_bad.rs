//! What an owner does wrong when a known-bad change is on.
//!
//! Invariant: called only where [`Flaw::is`] is true, hence never without the feature.

use event_log::known_bad::{Flaw, KnownBad};
use event_log::record::{ClaimHeaders, Record};
use position::Offset;

use super::machine::{OwnCommit, Owner};
use crate::command::{Decision, SubmitError, TurnedAway};

impl<T> Owner<T> {
    /// Turns a known-bad change on; it stays on for this owner.
    pub fn set_flaw(&mut self, flaw: Flaw) {
        self.reader.chain.flaw = flaw;
    }

    pub(super) fn is(&self, bad: KnownBad) -> bool {
        self.reader.chain.flaw.is(bad)
    }

    pub(super) fn refuses_now(&self, commit: &OwnCommit) -> bool {
        let is_refusal = matches!(commit.answer.decision, Decision::Rejected(_));
        self.is(KnownBad::RefusesFromMemory) && is_refusal
    }

    pub(super) fn answer_early(&mut self, index: usize) {
        let entry = &mut self.window[index];
        let waiters = std::mem::take(&mut entry.waiters);
        let answer = entry.commit.answer.clone();
        self.answer_each(answer, waiters);
    }

    /// Answers for all commands in flight that they were not attempted.
    pub(super) fn deny_window(&mut self) {
        let error = SubmitError::TurnedAway {
            reason: TurnedAway::NotReady,
            retry_after: std::time::Duration::ZERO,
        };
        for (_, waiters) in self.take_window() {
            self.answer_all(waiters, &error);
        }
    }

    /// Folds the own claim as if no record stood between it and what was folded.
    pub(super) fn skip_to(&mut self, claim: ClaimHeaders, offset: Offset) -> Option<Record> {
        let record = Record::at(offset, claim.record(self.claim_value()));
        self.reader.chain.judge(&record).ok()?;
        Some(record)
    }
}
