//! Folding one record: the chain judges whether the record counts; a record that counts is folded.

use std::iter::repeat_n;

use event_log::chain::{Stop, Verdict};
use event_log::claim::Claim;
use event_log::commit::Commit;
use event_log::damage::{Damage, DamageKind};
use event_log::directory::Hint;
use event_log::known_bad::KnownBad;
use event_log::record::{ClaimHeaders, Record};
use event_log::verdict::{self, Content};
use kernel::registry::Opaque;
use position::{Offset, Position};

use super::{InFlight, OwnCommit, Owner, Phase};
use crate::command::Answer;
use crate::owner::Action;
use crate::owner::memory::STATE_TIMES;
use crate::owner::memory::size::StateSize;

/// From this size on, a state's copy is kept for the next command, in bytes of JSON.
const SPARE_FROM_BYTES: usize = 16 << 10;
/// Such copies may take one part in this many of the bytes for states.
const SPARE_PART: usize = 4;

impl<T> Owner<T> {
    pub(super) fn fold(&mut self, record: Record) -> Result<(), Stop> {
        let verdict = self.reader.chain.judge(&record)?;
        if self.is_own_next(&verdict, record.offset) {
            let entry = self.window.pop_front().expect("it was looked at");
            self.found_at = record.appended_at_ms.map(|at| (entry.sent_at.wall, at));
            self.verified(entry, record.offset);
        } else {
            // An acknowledged place may freeze a stream even if its record does not count.
            let (chain, memory) = (&self.reader.chain, &mut self.memory);
            let content = verdict::content(chain, &verdict, &record, memory)?;
            match (verdict, content) {
                (Verdict::Claim(claim, position), _) => {
                    self.fold_claim(claim, position, &record)?
                }
                (Verdict::Commit(headers), Content::Commit(commit)) => {
                    self.fold_commit(&record, &commit, headers.position)?;
                }
                (Verdict::Commit(_), Content::Frozen | Content::Nothing)
                | (Verdict::Orphan(_), _) => {}
            }
        }
        self.reader.last = Some(record);
        Ok(())
    }

    fn fold_claim(
        &mut self,
        claim: ClaimHeaders,
        position: Position,
        record: &Record,
    ) -> Result<(), Stop> {
        let (found, opened) = (claim.log, self.opened_log.unwrap_or(claim.log));
        if found != opened {
            return Err(Stop::Gone(format!(
                "the log at this address is {found} and was {opened} when it was opened: it was \
                 deleted and made anew; bring it back, and start this process again"
            )));
        }
        let value = record.value.as_deref().and_then(Claim::read);
        if position == Position(1)
            && let Some(value) = &value
        {
            self.memory.idempotency_window_ms = value.idempotency_window_ms;
        }
        self.claimed_list = value.as_ref().and_then(|value| value.acknowledged.clone());
        self.holder = value.and_then(|value| {
            let (node, address) = (value.node, value.address?);
            Some(Hint {
                log: claim.log,
                term: claim.term,
                node,
                address,
            })
        });
        tracing::debug!(partition = %self.reader.chain.partition, term = %claim.term, "claim");
        self.note_claim(claim, record);
        Ok(())
    }

    /// Whether the record that was just judged is this owner's oldest in flight. Anybody can write
    /// the same headers over another value, so only the chain hash tells. At an acknowledged place,
    /// an own record freezes its stream as any other.
    fn is_own_next(&self, verdict: &Verdict, offset: Offset) -> bool {
        let chain = &self.reader.chain;
        let is_same = |entry: &InFlight<T>| {
            *verdict == Verdict::Commit(entry.commit.headers)
                && (entry.commit.head == chain.head || self.is(KnownBad::KnowsOwnByHeaders))
        };
        self.window.front().is_some_and(is_same)
            && !chain.acknowledged.contains(chain.partition, offset)
    }

    /// Notes whether a claim that counts is the one that this owner appended: its value must match
    /// as well as its headers.
    fn note_claim(&mut self, headers: ClaimHeaders, record: &Record) {
        let value = self.claim_value();
        let by_headers = self.is(KnownBad::KnowsOwnByHeaders);
        if let Phase::Claiming {
            claim,
            counts,
            sent_at,
            ..
        } = &mut self.phase
        {
            *counts = *claim == headers && (record.value.as_ref() == Some(&value) || by_headers);
            if *counts {
                self.found_at = record.appended_at_ms.map(|at| (*sent_at, at));
            }
        }
    }

    fn fold_commit(
        &mut self,
        record: &Record,
        commit: &Commit,
        position: Position,
    ) -> Result<(), Stop> {
        // In older records, the recorded time may stand still or go back.
        let last = &mut self.reader.last_recorded_at;
        *last = (*last).max(Some(commit.recorded_at));
        let key = record.key.as_deref().unwrap_or_default();
        let frozen = self.memory.frozen_count;
        let folded = self.memory.fold(key, commit, (record.offset, position));
        folded.map_err(|event| Stop::NewerEvent {
            partition: self.reader.chain.partition,
            offset: record.offset,
            stream: String::from_utf8_lossy(key).into_owned(),
            event,
        })?;
        if self.is(KnownBad::StopsWhereRulesFail) && self.memory.frozen_count > frozen {
            let kind = DamageKind::Unreadable("the rules fail".to_owned());
            return Err(self.damage(record.offset, kind));
        }
        Ok(())
    }

    pub(super) fn damage(&self, offset: Offset, kind: DamageKind) -> Stop {
        let partition = self.reader.chain.partition;
        Stop::Damage(Damage {
            partition,
            offset,
            kind,
        })
    }

    /// Folds a record of this owner that the log holds, and answers.
    pub(super) fn verified(&mut self, entry: InFlight<T>, offset: Offset) {
        let commit = entry.commit;
        self.window_bytes = self.window_bytes.saturating_sub(commit.size());
        self.reader.last_recorded_at = Some(commit.recorded_at);
        let state = self.forget_speculation(&commit);
        self.memory.fold_own(&commit, offset, state);
        self.answer_each(commit.answer, entry.waiters);
        self.reader.last = Some(Record::at(offset, commit.record));
    }

    /// Gives an answer to all clients that wait. The flag of each says whether it gets a
    /// repetition.
    pub(in crate::owner) fn answer_each(&mut self, answer: Answer, waiters: Vec<(T, bool)>) {
        let count = waiters.len();
        for ((ticket, repeated), answer) in waiters.into_iter().zip(repeat_n(answer, count)) {
            let answer = Ok(Answer { repeated, ..answer });
            self.actions.push(Action::Answer { ticket, answer });
        }
    }

    /// Takes a commit out of the speculation. If it was the last one of its stream there, the copy
    /// is the stream's state now and is returned. A large copy stays for the next command instead,
    /// as far as there is room for copies.
    fn forget_speculation(&mut self, commit: &OwnCommit) -> Option<(Opaque, StateSize)> {
        self.speculation.ids.remove(&commit.id_key);
        if commit.events.is_empty() {
            return None;
        }
        let stream = self.speculation.streams.get_mut(&commit.key)?;
        stream.in_flight -= 1;
        if stream.in_flight > 0 {
            return None;
        }
        let (size, spare) = (stream.size.bytes(), self.speculation.spare_bytes);
        let spare_max = self.settings.states_bytes_max / SPARE_PART / STATE_TIMES;
        if size >= SPARE_FROM_BYTES && spare + size <= spare_max {
            self.speculation.spare_bytes += size;
            return None;
        }
        let stream = self.speculation.streams.remove(&commit.key)?;
        Some((stream.state, stream.size))
    }
}
