//! Trying a decided commit before it is appended: its events change a copy of the stream's state
//! that includes the commits in flight.
//!
//! Invariant: a commit over which the rules fail, or which makes its stream too large, leaves
//! nothing. A copy that was left half changed is made again from the accepted state and the commits
//! in flight.

use std::collections::hash_map::Entry;

use bytes::Bytes;
use kernel::registry::{Aggregate, RuleError};

use crate::command::SubmitError;
use crate::frozen::FrozenBy;
use crate::owner::Submission;
use crate::owner::machine::{OwnCommit, Owner, Speculation, SpeculativeStream};
use crate::owner::memory::size::StateSize;

/// By how many bytes a command may enlarge a state that is too large: enough to note that something
/// has ended.
const STATE_STEP_BYTES: usize = 128;

impl<T> Owner<T> {
    /// Adds a commit to the speculation before it is appended, or refuses it. If the rules fail
    /// over it here, it would freeze the stream in every node once the log has it. If it makes the
    /// stream too large, it would slow down all other streams.
    pub(super) fn speculate(
        &mut self,
        submission: &Submission,
        commit: &OwnCommit,
    ) -> Result<(), SubmitError> {
        if commit.events.is_empty() {
            return Ok(());
        }
        let (key, category) = (&commit.key, submission.request.stream.category());
        let aggregate = self.memory.registry.get(category).cloned();
        let aggregate = &*aggregate.ok_or(SubmitError::Failed)?;
        let max = self.settings.stream_state_bytes_max;
        match self.evolve_copy(aggregate, commit) {
            Ok((before, after)) if is_too_large(before, after, max) => {
                self.speculate_anew(aggregate, key);
                match self.speculation.streams.get_mut(key) {
                    Some(stream) => stream.size = before,
                    None => self.memory.stream(key, category).size = before,
                }
                let size = after.bytes();
                return Err(SubmitError::StreamTooLarge { size, max });
            }
            Ok((before, after)) if before.bytes() <= max / 2 && after.bytes() > max / 2 => {
                warn_of_half(submission, after, max);
            }
            Ok(_) => {}
            Err(error) => {
                let command = &submission.request.command;
                tracing::error!(%error, category, %command, "a rule failed on the events that it decided");
                self.speculate_anew(aggregate, key);
                return Err(SubmitError::Failed);
            }
        }
        let stream = self.speculation.streams.get_mut(key);
        let stream = stream.ok_or(SubmitError::Failed)?;
        stream.version = commit.answer.version;
        stream.in_flight += 1;
        Ok(())
    }

    /// Applies the commit's events to the copy of the stream's state, and tries whether the result
    /// can be written as JSON. Returns the state's size before and after; the size before is exact
    /// if the state may be too large after. After an error, the copy is half changed.
    fn evolve_copy(
        &mut self,
        aggregate: &dyn Aggregate,
        commit: &OwnCommit,
    ) -> Result<(StateSize, StateSize), RuleError> {
        let Speculation {
            streams,
            spare_bytes,
            ..
        } = &mut self.speculation;
        let stream = match streams.entry(commit.key.clone()) {
            Entry::Occupied(there) => {
                let stream = there.into_mut();
                if stream.in_flight == 0 {
                    *spare_bytes = spare_bytes.saturating_sub(stream.size.bytes());
                }
                stream
            }
            Entry::Vacant(free) => {
                let accepted = self.memory.stream(&commit.key, aggregate.category());
                let Some(state) = &accepted.state else {
                    return Ok((accepted.size, accepted.size));
                };
                free.insert(SpeculativeStream {
                    version: accepted.version,
                    state: aggregate.copy(state)?,
                    size: accepted.size,
                    in_flight: 0,
                    is_used: false,
                })
            }
        };
        let max = self.settings.stream_state_bytes_max;
        let data = commit.events.iter().map(|event| event.data.get());
        if !stream.size.is_exact() && stream.size.with(data.clone()).bytes() > max {
            stream.size = StateSize::of(aggregate, &stream.state)?;
        }
        for event in &commit.events {
            aggregate.evolve(&mut stream.state, event, commit.occurred_at)?;
        }
        let before = stream.size;
        let mut after = before.with(data);
        if after.is_due(max) {
            after = StateSize::of(aggregate, &stream.state)?;
        }
        (stream.size, stream.is_used) = (after, true);
        Ok((before, after))
    }

    /// Makes the copy again, from the accepted state and the commits in flight.
    fn speculate_anew(&mut self, aggregate: &dyn Aggregate, key: &Bytes) {
        let Some(torn) = self.speculation.streams.remove(key) else {
            return;
        };
        if torn.in_flight == 0 {
            return;
        }
        let accepted = self.memory.stream(key, aggregate.category());
        let made = accepted.state.as_ref().map(|state| aggregate.copy(state));
        let made = made.map(|state| {
            let mut state = state?;
            for entry in self.window.iter().filter(|entry| entry.commit.key == *key) {
                for event in &entry.commit.events {
                    aggregate.evolve(&mut state, event, entry.commit.occurred_at)?;
                }
            }
            Ok::<_, RuleError>(state)
        });
        match made {
            Some(Ok(state)) => {
                let stream = SpeculativeStream { state, ..torn };
                self.speculation.streams.insert(key.clone(), stream);
            }
            Some(Err(error)) => self.memory.freeze(key, FrozenBy::Rules(error.to_string())),
            None => {}
        }
    }
}

/// Whether a command is refused because of the size of the state after it. A command that hardly
/// enlarges the state is taken, up to twice the limit: a cancellation, say, must note a flag or a
/// moment, which takes some bytes.
fn is_too_large(before: StateSize, after: StateSize, max: usize) -> bool {
    let is_small = after.bytes() <= before.bytes() + STATE_STEP_BYTES && after.bytes() <= 2 * max;
    after.bytes() > max && !is_small
}

fn warn_of_half(submission: &Submission, size: StateSize, max: usize) {
    let (request, bytes) = (&submission.request, size.bytes());
    let (tenant, stream) = (&request.tenant, &request.stream);
    tracing::warn!(%tenant, %stream, bytes, max, "a stream's state takes more than half of what it may");
    metrics::counter!("annals_streams_half_full_total").increment(1);
}
