//! Folding one record: the chain judges whether the record counts; a record that counts is folded.

use std::iter::repeat_n;

use bytes::Bytes;
use event_log::chain::{Stop, Verdict};
use event_log::claim::Claim;
use event_log::damage::{Damage, DamageKind};
use event_log::directory::Hint;
use event_log::known_bad::KnownBad;
use event_log::record::{ClaimHeaders, CommitHeaders, Record};
use event_log::verdict::{self, Content};
use kernel::registry::Opaque;
use position::{Offset, Position};

use super::{InFlight, Owner, Phase};
use crate::command::Answer;
use crate::owner::Action;
use crate::owner::memory::size::StateSize;
use crate::owner::memory::{OwnCommit, STATE_TIMES};
use crate::owner::store::IdHead;

/// From this size on, a state's copy is kept for the next command, in bytes of JSON.
const SPARE_FROM_BYTES: usize = 16 << 10;
/// Such copies may take one part in this many of the bytes for states.
const SPARE_PART: usize = 4;

impl<T> Owner<T> {
    pub(super) fn fold(&mut self, record: Record) -> Result<(), Stop> {
        let verdict = self.reader.chain.judge(&record)?;
        let is_acknowledged = self.is_acknowledged(record.offset);
        if is_acknowledged && !matches!(verdict, Verdict::Commit(_)) {
            // An acknowledged place may freeze a stream even if its record is not a commit that
            // counts.
            verdict::content(&self.reader.chain, &verdict, &record, &mut self.memory)?;
        }
        match verdict {
            Verdict::Claim(claim, position) => {
                let (found, opened) = (claim.log, self.opened_log.unwrap_or(claim.log));
                if found != opened {
                    return Err(Stop::Gone(format!(
                        "the log at this address is {found} and was {opened} when it was opened: it \
                         was deleted and made anew; bring it back, and start this process again"
                    )));
                }
                let value = record.value.as_deref().and_then(Claim::read);
                if position == Position(1)
                    && let Some(value) = &value
                {
                    self.memory
                        .set_idempotency_window_ms(value.idempotency_window_ms);
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
                self.note_claim(claim, &record);
            }
            Verdict::Commit(headers) => {
                if !is_acknowledged && self.is_own_next(headers) {
                    let entry = self.window.pop_front().expect("it was looked at");
                    let offset = record.offset;
                    self.found_at = record.appended_at_ms.map(|at| (entry.sent_at.wall, at));
                    self.verified(entry, offset);
                } else {
                    self.fold_commit(&record, &verdict, headers.position)?;
                }
            }
            Verdict::Orphan(reason) => {
                *self.orphans.entry(reason).or_default() += 1;
            }
        }
        self.reader.last = Some(record);
        Ok(())
    }

    /// Whether the commit that was just judged is this owner's oldest in flight. Anybody can write
    /// the same headers over another value, so only the chain hash tells.
    fn is_own_next(&self, headers: CommitHeaders) -> bool {
        self.window.front().is_some_and(|entry| {
            entry.headers == headers
                && (entry.head == self.reader.chain.head || self.is(KnownBad::KnowsOwnByHeaders))
        })
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

    pub(super) fn fold_commit(
        &mut self,
        record: &Record,
        verdict: &Verdict,
        position: Position,
    ) -> Result<(), Stop> {
        match verdict::content(&self.reader.chain, verdict, record, &mut self.memory)? {
            Content::Commit(commit) => {
                // In older records, the recorded time may stand still or go back.
                self.reader.last_recorded_at =
                    self.reader.last_recorded_at.max(Some(commit.recorded_at));
                let key = record.key.as_deref().unwrap_or_default();
                let frozen = self.memory.frozen_count();
                self.memory.fold(key, &commit, (record.offset, position));
                if self.is(KnownBad::StopsWhereRulesFail) && self.memory.frozen_count() > frozen {
                    return Err(Stop::Damage(Damage {
                        partition: self.reader.chain.partition,
                        offset: record.offset,
                        kind: DamageKind::Unreadable("the rules fail".to_owned()),
                    }));
                }
            }
            Content::Frozen | Content::Nothing => {
                *self.orphans.entry(verdict::FROZEN).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Whether an operator has acknowledged this place as damaged.
    fn is_acknowledged(&self, offset: Offset) -> bool {
        let acknowledged = &self.reader.chain.acknowledged;
        acknowledged.contains(self.reader.chain.partition, offset)
    }

    /// Folds a record of this owner that the log holds, and answers.
    pub(super) fn verified(&mut self, entry: InFlight<T>, offset: Offset) {
        let size = entry.record.value.as_ref().map_or(0, Bytes::len);
        self.window_bytes = self.window_bytes.saturating_sub(size);
        self.reader.last_recorded_at = Some(entry.recorded_at);
        let state = self.forget_speculation(&entry);
        self.memory.fold_own(OwnCommit {
            key: &entry.key,
            events: &entry.events,
            occurred_at: entry.occurred_at,
            state,
            id: entry.answer.command_id.clone(),
            id_key: entry.id_key,
            head: IdHead {
                offset,
                position: entry.headers.position,
                recorded_at: entry.recorded_at,
                fingerprint: entry.fingerprint,
                version: entry.answer.version,
            },
            decision: &entry.answer.decision,
        });
        self.answer_each(entry.answer, entry.waiters);
        self.reader.last = Some(Record::at(offset, entry.record));
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
    fn forget_speculation(&mut self, entry: &InFlight<T>) -> Option<(Opaque, StateSize)> {
        self.speculation.ids.remove(&entry.id_key);
        if entry.events.is_empty() {
            return None;
        }
        let stream = self.speculation.streams.get_mut(&entry.key)?;
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
        let stream = self.speculation.streams.remove(&entry.key)?;
        Some((stream.state, stream.size))
    }
}
