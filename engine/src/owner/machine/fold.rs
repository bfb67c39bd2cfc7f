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
use crate::owner::memory::OwnCommit;
use crate::owner::store::IdHead;
use crate::record::Record;
use crate::registry::Opaque;

impl<T> Owner<T> {
    pub(super) fn fold(&mut self, record: Record) -> Result<(), Stop> {
        match self.chain.judge(&record)? {
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
        // In older records it may stand still or fall.
        self.last_recorded_at = self.last_recorded_at.max(Some(commit.recorded_at));
        self.memory
            .fold(key, &commit, (offset, position))
            .map_err(damage)?;
        Ok(())
    }

    /// Takes up a record of ours that the log has, and answers.
    pub(super) fn verified(&mut self, entry: InFlight<T>, offset: Offset) {
        let size = entry.record.value.as_ref().map_or(0, Bytes::len);
        self.window_bytes = self.window_bytes.saturating_sub(size);
        self.last_recorded_at = Some(entry.recorded_at);
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

    /// Takes a commit out of what is speculative. If it was the only one of its stream there, what the
    /// stream's state was to become is its state now.
    fn forget_speculation(&mut self, entry: &InFlight<T>) -> Option<Opaque> {
        self.speculation.ids.remove(&entry.id_key);
        let stream = self.speculation.streams.get_mut(&entry.key)?;
        stream.in_flight -= 1;
        if stream.in_flight > 0 {
            return None;
        }
        let stream = self.speculation.streams.remove(&entry.key)?;
        Some(stream.state)
    }
}
