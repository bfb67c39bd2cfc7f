//! Folding one record: the rule says whether it counts, and what counts is taken up.

use std::iter::repeat_n;

use bytes::Bytes;

use super::{InFlight, Owner};
use crate::chain::{Orphan, Stop, Verdict};
use crate::claim::Claim;
use crate::cluster::Hint;
use crate::command::Answer;
use crate::commit::Commit;
use crate::damage::{Damage, DamageKind};
use crate::ids::{Offset, Position};
use crate::owner::Action;
use crate::owner::memory::{OwnCommit, decision_of, id_key};
use crate::record::Record;

impl<T> Owner<T> {
    pub(super) fn fold(&mut self, record: Record) -> Result<(), Stop> {
        match self.chain.judge(&record)? {
            Verdict::Claim(claim, position) => {
                let value = record.value.as_deref().and_then(Claim::read);
                if position == Position(1)
                    && let Some(value) = &value
                {
                    self.memory
                        .set_idempotency_window_ms(value.idempotency_window_ms);
                }
                self.holder = value.and_then(|value| {
                    let (node, address) = (value.node, value.address?);
                    let term = claim.term;
                    Some(Hint {
                        term,
                        node,
                        address,
                    })
                });
                tracing::debug!(partition = %self.chain.partition, term = %claim.term, "claim");
                self.last = Some(record);
            }
            Verdict::Commit(headers) => {
                let ours = self
                    .window
                    .front()
                    .is_some_and(|entry| entry.headers == headers);
                if ours {
                    let entry = self.window.pop_front().expect("it was looked at");
                    let offset = record.offset;
                    self.verified(entry, offset);
                    self.last = Some(record);
                } else {
                    let place = (self.chain.partition, record.offset);
                    match self.fold_commit(&record, headers.position) {
                        Err(_) if self.chain.acknowledged.contains(place.0, place.1) => {
                            *self.orphans.entry(Orphan::Acknowledged).or_default() += 1;
                        }
                        folded => folded?,
                    }
                    self.last = Some(record);
                }
            }
            Verdict::Orphan(reason) => {
                *self.orphans.entry(reason).or_default() += 1;
                self.last = Some(record);
            }
        }
        Ok(())
    }

    pub(super) fn fold_commit(&mut self, record: &Record, position: Position) -> Result<(), Stop> {
        let (partition, offset) = (self.chain.partition, record.offset);
        let damage = |kind| Damage {
            partition,
            offset,
            kind,
        };
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let unreadable = |reason: String| damage(DamageKind::Unreadable(reason));
        let commit = Commit::read(key, value).map_err(|error| unreadable(error.to_string()))?;
        let decision = decision_of(&commit)
            .ok_or_else(|| unreadable("a refusal without a reason".to_owned()))?;
        self.last_recorded_at = Some(commit.recorded_at);
        self.memory
            .fold(&commit, decision, (offset, position))
            .map_err(damage)?;
        Ok(())
    }

    /// Takes up a record of ours that the log has, and answers.
    pub(super) fn verified(&mut self, entry: InFlight<T>, offset: Offset) {
        let size = entry.record.value.as_ref().map_or(0, Bytes::len);
        self.window_bytes = self.window_bytes.saturating_sub(size);
        self.last_recorded_at = Some(entry.commit.recorded_at);
        self.forget_speculation(&entry);
        let own = OwnCommit {
            commit: &entry.commit,
            key: &entry.key,
            events: &entry.events,
        };
        let place = (offset, entry.headers.position);
        self.memory
            .fold_own(own, entry.fingerprint, entry.answer.decision.clone(), place);
        self.answer_each(entry.answer, entry.waiters);
        self.last = Some(Record::at(offset, entry.record));
    }

    /// Gives an answer to all who wait for it, each of whom may have sent the command first or again.
    pub(in crate::owner) fn answer_each(&mut self, answer: Answer, waiters: Vec<(T, bool)>) {
        let count = waiters.len();
        for ((ticket, repeated), answer) in waiters.into_iter().zip(repeat_n(answer, count)) {
            let answer = Ok(Answer { repeated, ..answer });
            self.actions.push(Action::Answer { ticket, answer });
        }
    }

    pub(super) fn forget_speculation(&mut self, entry: &InFlight<T>) {
        self.speculation
            .ids
            .remove(&id_key(&entry.key, &entry.commit.command.id));
        if let Some(stream) = self.speculation.streams.get_mut(&entry.key) {
            stream.in_flight -= 1;
            if stream.in_flight == 0 {
                self.speculation.streams.remove(&entry.key);
            }
        }
    }
}
