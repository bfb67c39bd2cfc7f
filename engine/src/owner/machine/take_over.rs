//! Taking a partition over: prove, fold to the end, ask the present owner to hand over, claim, fold
//! to the own claim. Also letting the partition go, and what follows a lost claim or a stop.
//!
//! Deliberately absent: what is read and proven, and when (`event_log::reading`), how a record is
//! folded (`fold`), what an acknowledgement means (`settle`), and a local store that fails
//! (`without_store`).

use bytes::Bytes;
use event_log::chain::Stop;
use event_log::claim::Claim;
use event_log::known_bad::KnownBad;
use event_log::log::{Chunk, LogError};
use event_log::reading::{Goal, Step};
use event_log::record::{ClaimHeaders, Record};
use kernel::{Timestamp, explained};
use position::{Offset, Term, WriterId};
use uuid::Uuid;

use super::{Owner, Phase, Speculation};
use crate::command::SubmitError;
use crate::owner::store::SavedPlace;
use crate::owner::{Action, LogAction, NotOwning, Now, Submission};

/// A loss within this time after another belongs to the same struggle between two nodes, in
/// milliseconds.
const STRUGGLE_MS: u64 = 10_000;
/// How often the pause between tries doubles while two nodes struggle for a partition.
const DOUBLINGS_MAX: u32 = 5;

impl<T> Owner<T> {
    /// Sets whether this node should own the partition. A node that owns goes on, wanted or not,
    /// until it is asked to hand over or another node claims.
    pub fn want(&mut self, wanted: bool, now: Now) {
        self.wanted = wanted;
        match &self.phase {
            Phase::Standby { .. } if wanted => self.resume(),
            Phase::BackingOff { .. } if !wanted && !self.must_settle() => self.stand_by(now),
            Phase::AwaitingStore { .. } => self.release_unless_mine(),
            _ => {}
        }
    }

    /// Asks the owner to decide nothing more, and to let go once nothing is in flight. The owner is
    /// not wanted any more until [`Owner::want`] says so again.
    pub fn hand_over(&mut self, now: Now) {
        self.wanted = false;
        match &self.phase {
            Phase::Owning | Phase::Doubt | Phase::Claiming { .. } => {
                self.letting_go = true;
                self.let_go_if_drained(now);
            }
            _ => self.want(false, now),
        }
    }

    /// Notes that the present owner has handed over, or will not.
    pub fn owner_answered(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Asking { .. }) {
            return;
        }
        if self.may_claim() {
            // Folding up to the claim takes in what was written since. If another node has claimed
            // meanwhile, this claim loses. The records that are there by now are read while the
            // claim is on its way.
            self.claim(now);
            self.read_once();
        } else {
            self.stand_by(now);
        }
    }

    /// Takes the log's end; `None` if it could not be found out. A standby reads on only if there
    /// is something to read.
    pub fn peeked(&mut self, end: Option<Offset>, now: Now) {
        if !matches!(self.phase, Phase::Standby { .. }) {
            return;
        }
        match end {
            Some(end) if end != self.reader.next_offset() => self.resume(),
            Some(_) | None => self.stand_by(now),
        }
    }

    /// Reads on in the log now, if the owner stands by.
    pub fn look(&mut self) {
        if matches!(self.phase, Phase::Standby { .. }) {
            self.resume();
        }
    }

    /// Reads up to the present end of the log, unless reading is under way already.
    pub fn read_to_end(&mut self) {
        match self.phase {
            Phase::Owning if !self.reader.is_busy() => {
                self.reader.is_suspicious = true;
                self.read_once();
            }
            _ => self.look(),
        }
    }

    /// Whether some of this owner's appends may still count, so that only a claim can settle their
    /// fate.
    pub(super) fn must_settle(&self) -> bool {
        !self.window.is_empty() && self.holds()
    }

    pub(in crate::owner) fn let_go_if_drained(&mut self, now: Now) {
        // With a wrong clock nothing is decided again: other nodes decide the commands that wait.
        let is_off = self.clock.off().is_some();
        let is_drained = self.is_drained() || (is_off && self.window.is_empty());
        if self.letting_go && self.phase == Phase::Owning && is_drained {
            self.stand_by(now);
            if self.may_claim() {
                // This node became wanted again meanwhile. The node that asked has its turn first;
                // this node then asks it in return.
                self.back_off(now, NotOwning::TakingOver);
            }
        }
    }

    /// Leaves the partition to other nodes, and releases the commands that they are to decide.
    pub(super) fn stand_by(&mut self, now: Now) {
        self.release();
        self.letting_go = false;
        if self.without_room {
            return self.await_room();
        }
        self.reader.goal = None;
        let every_ms = self.settings.standby_read_every_ms;
        self.phase = Phase::Standby {
            read_at_ms: every_ms.map(|every_ms| now.monotonic_ms + every_ms),
        };
    }

    /// Releases the commands in flight and those that wait. They do not count: there is another
    /// claim, or none of this owner's.
    pub(super) fn release(&mut self) {
        let window = self.take_window();
        let again = std::mem::take(&mut self.again);
        let released = window
            .chain(again)
            .map(|(submission, waiters)| Action::Release {
                submission,
                waiters,
            });
        self.actions.extend(released);
    }

    /// Takes the commands in flight out of the window, with everything that was speculated.
    pub(in crate::owner) fn take_window(
        &mut self,
    ) -> impl DoubleEndedIterator<Item = (Submission, Vec<(T, bool)>)> + use<T> {
        self.speculation = Speculation::default();
        self.window_bytes = 0;
        let window = std::mem::take(&mut self.window).into_iter();
        window.map(|entry| (entry.submission, entry.waiters))
    }

    /// Reads on after the last folded record, with a proof.
    pub(super) fn resume(&mut self) {
        self.phase = Phase::Proving;
        let step = self.reader.prove();
        self.carry_out(step);
    }

    /// Deletes the local state and folds from the first record.
    pub(super) fn start_over(&mut self) {
        if let Err(error) = self.memory.clear() {
            let error = explained(&error);
            tracing::warn!(error, "the local checkpoint store could not be cleared");
        }
        self.go_to(None);
        self.catch_up();
    }

    /// Moves to the place of the local checkpoint, or before the first record.
    pub(super) fn go_to(&mut self, place: Option<SavedPlace>) {
        let known = place.map(|it| (Some(it.checkpoint), it.seen, it.holder, it.claimed_list));
        let (place, seen, holder, claimed_list) = known.unwrap_or_default();
        self.reader.go_to(place, seen);
        self.holder = holder;
        self.claimed_list = claimed_list;
    }

    /// Does what the reader needs next.
    fn carry_out(&mut self, step: Step<Now>) {
        match step {
            Step::Wait => {}
            Step::Read(from) => self.actions.push(Action::Log(LogAction::Read { from })),
            Step::Prove(offset) => self.actions.push(Action::Log(LogAction::Prove { offset })),
            Step::Fold(chunk, now) => self.take_up(chunk, now),
            Step::Proven => self.catch_up(),
            Step::Changed(stop) => self.stop(stop),
            // It gave answers about records that are gone.
            Step::Disproven(stop) if self.claimed.is_some() => self.stop(stop),
            Step::Disproven(stop) => {
                tracing::warn!(%stop, "the local checkpoint does not match the log; folding the log from its beginning");
                self.start_over();
            }
        }
    }

    fn catch_up(&mut self) {
        self.phase = Phase::Following;
        self.read_to(Goal::End);
    }

    pub(super) fn read_to(&mut self, goal: Goal) {
        let step = self.reader.read_to(goal);
        self.carry_out(step);
    }

    fn read_once(&mut self) {
        let step = self.reader.read_once();
        self.carry_out(step);
    }

    /// Reads on, and proves that the log still holds what was folded, while commands go on.
    pub(super) fn look_on(&mut self, now: Now) {
        let Some(every_ms) = self.settings.look_every_ms else {
            return;
        };
        if now.monotonic_ms >= self.look_at_ms && !self.reader.awaits_proof() {
            self.look_at_ms = now.monotonic_ms + every_ms;
            self.speculation.drop_spares();
            self.reader.is_suspicious = true;
            self.read_once();
        }
    }

    /// Takes the result of a [`LogAction::Read`].
    pub fn read(&mut self, read: Result<Chunk, LogError>, now: Now) {
        if matches!(self.phase, Phase::Stopped(_)) {
            return;
        }
        let step = match read {
            Ok(chunk) => self.reader.read(chunk, now),
            Err(LogError::OffsetGone { .. }) => self.reader.offset_gone(now),
            Err(_) => self.reader.read_failed(),
        };
        self.carry_out(step);
    }

    /// Takes the result of a [`LogAction::Prove`]: the log's end, and its record at `offset`.
    pub fn proven(&mut self, offset: Offset, found: Result<(Offset, Option<Record>), LogError>) {
        let step = match found {
            Ok((end, record)) => self.reader.proven(offset, end, record.as_ref()),
            Err(_) => self.reader.proof_failed(),
        };
        self.carry_out(step);
    }

    /// Folds a chunk of the log.
    fn take_up(&mut self, chunk: Chunk, now: Now) {
        let were_seen = self.reader.is_all_seen();
        for record in chunk.records {
            if record.offset < self.reader.next_offset() {
                continue;
            }
            if let Err(stop) = self.fold(record) {
                return self.stop(stop);
            }
            if self.memory.is_stale() {
                return self.go_back();
            }
        }
        self.reader.folded(chunk.at_end, were_seen);
        self.sent_after_read = self.next_sequence;
        if self.phase == Phase::Owning && !self.may_go_on() {
            // Nothing is decided any more, however much is still to be read.
            return self.doubt();
        }
        if self.phase == Phase::Owning && self.reader.goal.is_none() {
            return self.reached(now);
        }
        match self.reader.go_on(chunk.at_end) {
            Some(step) => self.carry_out(step),
            None => self.reached(now),
        }
    }

    /// Whether no other writer has claimed, and the records in flight still continue the chain. If
    /// somebody else wrote a record under this claim, all later appends of this owner would link to
    /// a record that is not in the chain.
    fn may_go_on(&self) -> bool {
        let front = self.window.front();
        let continues =
            front.is_none_or(|entry| self.reader.chain.is_continued_by(&entry.commit.headers));
        (self.holds() && continues) || self.is(KnownBad::DecidesBehindAnothersClaim)
    }

    /// Compares this clock with the newest append of this owner that reading found, since its
    /// acknowledgement may have had no time or may never have come. This is done only when reading
    /// is through, because the broker's time is believed for seconds only.
    fn compare_what_was_found(&mut self, now: Now) {
        if let Some((sent_at, at_ms)) = self.found_at.take() {
            let differs = self.differs_from_broker(sent_at, Some(at_ms), now);
            self.letting_go |= differs && self.phase == Phase::Owning;
        }
    }

    /// Goes on after reading has reached its goal.
    pub(super) fn reached(&mut self, now: Now) {
        self.compare_what_was_found(now);
        match &self.phase {
            Phase::Following => self.caught_up(now),
            Phase::Claiming { claim, counts, .. } => {
                let by_term =
                    self.is(KnownBad::OwnsByTermAlone) && claim.term == self.reader.chain.term;
                if *counts || by_term {
                    self.own(now)
                } else {
                    self.back_off(now, NotOwning::Deposed)
                }
            }
            Phase::Owning => self.settle_gap(now),
            Phase::Doubt if self.holds() && self.is(KnownBad::LooksOnceAfterDoubt) => {
                self.deny_window();
                self.own(now)
            }
            Phase::Doubt if self.holds() => self.claim(now),
            Phase::Doubt => self.back_off(now, NotOwning::Deposed),
            Phase::Proving
            | Phase::Asking { .. }
            | Phase::Standby { .. }
            | Phase::BackingOff { .. }
            | Phase::AwaitingStore { .. }
            | Phase::Stopped(_) => {}
        }
    }

    /// Everything in the log is folded: claim, first ask the present owner to hand over, or stand
    /// by.
    fn caught_up(&mut self, now: Now) {
        if self.must_settle() {
            return self.claim(now);
        }
        self.release();
        if !self.may_claim() {
            return self.stand_by(now);
        }
        if self.holds() {
            return self.claim(now);
        }
        self.phase = Phase::Asking {
            until_ms: now.monotonic_ms + self.settings.hand_over_wait_ms,
        };
        self.actions.push(Action::AskOwner);
    }

    pub(super) fn claim(&mut self, now: Now) {
        if self.clock_is_off(now) {
            return self.back_off(now, NotOwning::TakingOver);
        }
        let Some(log) = self.reader.chain.log.or(self.new_log) else {
            return self.back_off(now, NotOwning::TakingOver);
        };
        let claim = ClaimHeaders {
            term: Term(self.reader.chain.term.0 + 1),
            writer: WriterId(uuid::Builder::from_random_bytes(self.entropy.writer()).into_uuid()),
            log,
            version: self.record_version,
        };
        let sequence = self.sequence();
        let record = claim.record(self.claim_value());
        self.actions.push(Action::Log(LogAction::Append {
            sequence,
            record,
            claim: true,
        }));
        self.phase = Phase::Claiming {
            claim,
            sequence,
            sent_at: now.wall,
            acknowledged: None,
            counts: false,
            until_ms: now.monotonic_ms + self.settings.append_doubt_after_ms,
        };
    }

    pub(in crate::owner) fn claim_value(&self) -> Bytes {
        let value = Claim {
            node: self.settings.node.clone(),
            address: self.settings.address.clone(),
            idempotency_window_ms: self.settings.idempotency_window_ms,
            acknowledged: self.reader.chain.acknowledged.digest(),
            copied: None,
        };
        value.to_value()
    }

    /// The claim counts. The folded state is final, and each append in flight that is not in it is
    /// an orphan.
    pub(super) fn own(&mut self, now: Now) {
        self.phase = Phase::Owning;
        let every_ms = self.settings.look_every_ms.unwrap_or_default();
        self.look_at_ms = now.monotonic_ms + every_ms;
        self.claimed = Some((self.reader.chain.term, self.reader.chain.writer));
        if self.is(KnownBad::ForgetsIdsAtTakeOver) {
            self.memory.forget_ids();
        }
        for orphaned in self.take_window().rev() {
            self.again.push_front(orphaned);
        }
        self.tell_if_log_is_ahead(now);
        self.letting_go |= self.clock_is_off(now);
        self.decide_again(now);
        self.let_go_if_drained(now);
    }

    /// Decides waiting commands again, as far as the limits allow.
    pub(super) fn decide_again(&mut self, now: Now) {
        while self.phase == Phase::Owning
            && self.clock.off().is_none()
            && self.window.len() < self.settings.in_flight_max
            && let Some((submission, waiters)) = self.again.pop_front()
        {
            self.decide(submission, waiters, now);
        }
    }

    pub(super) fn back_off(&mut self, now: Now, reason: NotOwning) {
        if reason == NotOwning::Deposed {
            // An append of this owner that is not in the log by now will never count.
            self.release();
            // The request to let go ends here; it does not hold for a later claim.
            self.letting_go = false;
            if now.monotonic_ms > self.lost_at_ms + STRUGGLE_MS {
                self.losses = 0;
            }
            self.losses += 1;
            self.lost_at_ms = now.monotonic_ms;
        }
        if !self.may_claim() && !self.must_settle() {
            return self.stand_by(now);
        }
        let chance = u64::from(self.entropy.bytes()[0]);
        let least_ms = match reason {
            NotOwning::Deposed => {
                let doublings = self.losses.saturating_sub(1).min(DOUBLINGS_MAX);
                self.settings.back_off_ms << doublings
            }
            _ => self.settings.back_off_ms,
        };
        let pause_ms = least_ms * (256 + chance) / 256;
        self.reader.goal = None;
        self.phase = Phase::BackingOff {
            until_ms: now.monotonic_ms + pause_ms,
            reason,
        };
    }

    /// Whether no other claim has counted since ours.
    pub(super) fn holds(&self) -> bool {
        self.claimed == Some((self.reader.chain.term, self.reader.chain.writer))
    }

    /// Stops for good: the log is no longer the one that was opened.
    pub fn log_gone(&mut self, reason: String) {
        if !matches!(self.phase, Phase::Stopped(_)) {
            self.stop(Stop::Gone(reason));
        }
    }

    pub(super) fn stop(&mut self, stop: Stop) {
        if stop.asks_for_upgrade() {
            tracing::error!(%stop, "the owner stops: this program must be upgraded");
        } else {
            tracing::error!(%stop, "the owner stops: an operator must look at the log");
        }
        self.reader.stop();
        self.letting_go = false;
        self.phase = Phase::Stopped(stop);
        let window = std::mem::take(&mut self.window).into_iter();
        let again = std::mem::take(&mut self.again).into_iter();
        let again = again.map(|(_, waiters)| waiters);
        // What was in flight may be in the log, so the only true answer is unknown.
        for waiters in window.map(|entry| entry.waiters).chain(again) {
            self.answer_all(waiters, &SubmitError::Unknown);
        }
    }

    pub(in crate::owner) fn sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// A fresh UUID v7 of this moment (RFC 9562 §5.7).
    pub(in crate::owner) fn uuid_v7(&mut self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.micros() / 1_000).unwrap_or(0);
        let [random @ .., _, _, _, _, _, _] = self.entropy.bytes();
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}
