//! Finding out what became of appends: acknowledgements, failures, and time.
//!
//! Invariant: only the oldest unverified append, acknowledged right after the last verified offset,
//! counts without being read; everything else is looked up in the log.

use event_log::damage::DamageKind;
use event_log::known_bad::KnownBad;
use event_log::log::Appended;
use event_log::reading::Goal;
use event_log::record::Record;
use kernel::{Timestamp, explained};

use super::without_store::Refusals;
use super::{Owner, Phase};
use crate::owner::store::SavedPlace;
use crate::owner::{Action, LogAction, NotOwning, Now};

/// The pause before the local checkpoint is tried again, in milliseconds.
const STORE_RETRY_MS: u64 = 250;
/// The pause before the owner checks again whether the local store has room, in milliseconds.
const ROOM_RETRY_MS: u64 = 1_000;

impl<T> Owner<T> {
    /// Takes the log's acknowledgement of an append.
    pub fn acknowledged(&mut self, sequence: u64, appended: Appended, now: Now) {
        match &mut self.phase {
            Phase::Stopped(_) => return,
            Phase::Claiming {
                sequence: own,
                sent_at,
                acknowledged,
                ..
            } if *own == sequence => {
                *acknowledged = Some(appended.offset);
                let sent_at = *sent_at;
                return self.claim_acknowledged(sent_at, appended, now);
            }
            _ => {}
        }
        let Some(index) = self.in_window(sequence) else {
            return;
        };
        let entry = &mut self.window[index];
        entry.acknowledged = Some(appended.offset);
        let sent_at = entry.sent_at.wall;
        if self.phase != Phase::Owning {
            return;
        }
        let behind_last = appended.offset == Some(self.reader.next_offset());
        if self.is(KnownBad::AnswersOnAcknowledgement)
            || (self.is(KnownBad::AnswersNotTheOldest) && behind_last)
        {
            self.answer_early(index);
        }
        if self.is(KnownBad::CallsOrphanByGap) && !behind_last {
            self.deny_window();
            return self.doubt();
        }
        if let Some(offset) = appended.offset
            && offset < self.reader.next_offset()
        {
            if sequence < self.sent_after_read {
                // The record was read before its acknowledgement came, and did not count.
                return self.doubt();
            }
            let reason = "an append was acknowledged at an offset that had been read before";
            let kind = DamageKind::ProofFailed(reason.to_owned());
            return self.stop(self.damage(offset, kind));
        }
        if self.differs_from_broker(sent_at, appended.appended_at_ms, now) {
            self.letting_go = true;
        }
        self.settle(now);
    }

    /// Owns once everything up to the claim is folded. A claim right after the last folded record
    /// is folded at once without being read, as commits are.
    fn claim_acknowledged(&mut self, sent_at: Timestamp, appended: Appended, now: Now) {
        if self.differs_from_broker(sent_at, appended.appended_at_ms, now) {
            return self.back_off(now, NotOwning::TakingOver);
        }
        let Some(offset) = appended.offset else {
            return self.read_to(Goal::End);
        };
        if self.is(KnownBad::FoldsToBeforeOwnClaim)
            && let Phase::Claiming { claim, .. } = &self.phase
            && let Some(record) = self.skip_to(*claim, offset)
        {
            self.reader.last = Some(record);
            return self.own(now);
        }
        if offset < self.reader.next_offset() {
            return self.reached(now);
        }
        if let Phase::Claiming { claim, .. } = &self.phase
            && offset == self.reader.next_offset()
            && !self.reader.is_suspicious
            && !self.reader.awaits_proof()
        {
            let record = Record::at(offset, claim.record(self.claim_value()));
            return match self.fold(record) {
                Ok(()) => self.reached(now),
                Err(stop) => self.stop(stop),
            };
        }
        self.read_to(Goal::Behind(offset))
    }

    /// Compares this clock with the broker's timestamp of what was sent at `sent_at`, if it is
    /// known; `true` if the two lie too far apart. The broker stamped it between sending and now.
    pub(super) fn differs_from_broker(
        &mut self,
        sent_at: Timestamp,
        appended_at_ms: Option<i64>,
        now: Now,
    ) -> bool {
        let Some(at_ms) = appended_at_ms else {
            return false;
        };
        let ahead_ms = sent_at.micros() / 1_000 - at_ms;
        let behind_ms = at_ms - now.wall.micros() / 1_000;
        let most_ms = self.settings.clock_skew_max_ms;
        let off_ms = match (ahead_ms > most_ms, behind_ms > most_ms) {
            (true, _) => ahead_ms,
            (false, true) => -behind_ms,
            (false, false) => {
                self.clock.agrees();
                return false;
            }
        };
        tracing::warn!(off_ms, "this node's clock and the broker's differ too much");
        self.clock
            .refuse(off_ms, now, self.settings.clock_back_off_ms);
        true
    }

    /// Answers the oldest unverified appends, as long as each stands right after the last verified
    /// offset; for any other acknowledged append, reads the log.
    pub(super) fn settle(&mut self, now: Now) {
        if self.reader.goal.is_some() {
            return;
        }
        while let Some(front) = self.window.front()
            && let Some(Some(offset)) = front.acknowledged
            && offset == self.reader.next_offset()
        {
            if !self.reader.chain.is_continued_by(&front.commit.headers) {
                return self.doubt();
            }
            let entry = self.window.pop_front().expect("it was looked at");
            let (headers, head) = (entry.commit.headers, entry.commit.head);
            self.reader.chain.accept_commit(headers, head, offset);
            self.verified(entry, offset);
        }
        if self.memory.is_stale() {
            return self.doubt();
        }
        let acknowledged = self.window.iter().filter_map(|entry| entry.acknowledged);
        let furthest = acknowledged.map(|offset| offset.map_or(Goal::End, Goal::Behind));
        match furthest.last() {
            Some(goal) => self.read_to(goal),
            None => {
                self.decide_again(now);
                self.let_go_if_drained(now);
            }
        }
    }

    /// The log was read up to everything that was acknowledged when the reading began.
    pub(super) fn settle_gap(&mut self, now: Now) {
        let next = self.reader.next_offset();
        // Acknowledged, read past, and not accepted: the append is an orphan.
        let acknowledged = self.window.front().and_then(|entry| entry.acknowledged);
        let is_orphan = acknowledged.is_some_and(|at| at.is_none_or(|offset| offset < next));
        if is_orphan || !self.holds() {
            self.doubt()
        } else {
            self.settle(now)
        }
    }

    /// Notes that an append failed, or that its fate is unknown.
    pub fn append_failed(&mut self, sequence: u64, now: Now) {
        match &self.phase {
            Phase::Claiming { sequence: own, .. } if *own == sequence => {
                self.back_off(now, NotOwning::TakingOver);
            }
            Phase::Owning if self.in_window(sequence).is_some() => self.doubt(),
            _ => {}
        }
    }

    /// Sends nothing more under the current claim, and reads the log to learn what became of what
    /// was sent.
    pub(in crate::owner) fn doubt(&mut self) {
        tracing::warn!(
            partition = %self.reader.chain.partition,
            in_flight = self.window.len(),
            "the outcome of appends is unknown; reading the log to learn it"
        );
        self.phase = Phase::Doubt;
        if self.memory.is_stale() {
            return self.go_back();
        }
        // An append may fail because the log lost what it had acknowledged.
        self.reader.is_suspicious = true;
        self.read_to(Goal::End);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Now) {
        self.clock_is_off(now);
        match &self.phase {
            Phase::BackingOff { until_ms, .. } if now.monotonic_ms >= *until_ms => self.resume(),
            // The claim may be in the log, or may still get there: another claim settles that.
            Phase::Claiming {
                acknowledged: None,
                until_ms,
                ..
            } if now.monotonic_ms >= *until_ms => self.back_off(now, NotOwning::TakingOver),
            Phase::AwaitingStore { .. } if self.is_refused_for_good() => {}
            Phase::AwaitingStore { retry_at_ms: None } => {
                let pause_ms = match self.without_room {
                    true => ROOM_RETRY_MS,
                    false => STORE_RETRY_MS,
                };
                let retry_at_ms = Some(now.monotonic_ms + pause_ms);
                self.phase = Phase::AwaitingStore { retry_at_ms };
            }
            Phase::AwaitingStore {
                retry_at_ms: Some(at_ms),
            } if now.monotonic_ms >= *at_ms => self.try_store(),
            Phase::Asking { until_ms } if now.monotonic_ms >= *until_ms => {
                self.owner_answered(now);
            }
            Phase::Standby {
                read_at_ms: Some(read_at_ms),
            } if now.monotonic_ms >= *read_at_ms => {
                self.phase = Phase::Standby { read_at_ms: None };
                self.actions.push(Action::Log(LogAction::Peek));
            }
            Phase::Owning => {
                let oldest = self.window.front().map(|entry| entry.sent_at.monotonic_ms);
                let patience_ms = self.settings.append_doubt_after_ms;
                if oldest.is_some_and(|sent| now.monotonic_ms >= sent + patience_ms) {
                    self.doubt();
                } else {
                    self.look_on(now);
                    self.let_go_if_drained(now);
                }
            }
            _ => {}
        }
    }

    /// Whether a save is due: enough commits are unsaved, or `it_is_time` and any are.
    #[must_use]
    pub fn is_save_due(&self, it_is_time: bool) -> bool {
        let unsaved = self.memory.unsaved_commits;
        let is_worth_it =
            unsaved >= self.settings.save_every_commits || (it_is_time && unsaved > 0);
        is_worth_it && !matches!(self.phase, Phase::Stopped(_) | Phase::AwaitingStore { .. })
    }

    /// Writes the local checkpoint, if there is anything to write.
    pub fn save(&mut self) {
        if !self.is_save_due(true) {
            return;
        }
        let Some(checkpoint) = self.reader.place() else {
            return;
        };
        let place = SavedPlace {
            acknowledged: self.acknowledged_up_to(checkpoint.offset),
            checkpoint,
            seen: self.reader.seen.clone(),
            holder: self.holder.clone(),
            claimed_list: self.claimed_list.clone(),
        };
        let most = self.settings.states_bytes_max;
        match self.memory.save(place, most) {
            Ok(()) => {
                self.store_failures = 0;
                self.refusals = Refusals::default();
            }
            Err(error) => {
                let error = explained(&error);
                if self.refusals.reason.is_none() {
                    let partition = self.reader.chain.partition;
                    tracing::warn!(
                        error,
                        %partition,
                        "the local checkpoint could not be written; its data stays in memory"
                    );
                }
                self.refusals.reason = Some(error);
                if self.memory.unsaved_bytes() > self.settings.unsaved_bytes_max {
                    self.abandon();
                }
            }
        }
    }
}
