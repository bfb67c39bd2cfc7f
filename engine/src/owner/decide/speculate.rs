//! Taking up what was decided, in a copy of the stream's state behind the commits in flight, before
//! anything of it is appended.
//!
//! Invariant: what the rules fail over here, or what makes a stream too large, leaves nothing. A copy
//! that was torn is made again from the accepted state and the commits in flight.

use std::collections::hash_map::Entry;

use bytes::Bytes;
use event_log::commit::Commit;
use kernel::registry::{Aggregate, RuleError};

use super::Made;
use crate::command::SubmitError;
use crate::frozen::FrozenBy;
use crate::owner::machine::{Owner, Speculation, SpeculativeStream};
use crate::owner::memory::size::StateSize;

/// By how many bytes a command may enlarge a state that is too large: by what it takes to note that
/// something is over.
const STATE_STEP_BYTES: usize = 128;

impl<T> Owner<T> {
    /// Takes a commit up as speculative, before anything of it is appended: what the rules fail over
    /// here would freeze the stream in every node once the log has it, and what makes the stream too
    /// large would slow all others.
    pub(super) fn speculate(&mut self, made: &Made) -> Result<(), SubmitError> {
        if made.events.is_empty() {
            return Ok(());
        }
        let (key, category) = (&made.key, made.commit.stream.category());
        let aggregate = self.memory.registry().get(category).cloned();
        let aggregate = &*aggregate.ok_or(SubmitError::Failed)?;
        let max = self.settings.stream_state_bytes_max;
        let taken = self
            .evolve_copy(aggregate, made)
            .and_then(|(before, after)| {
                if after.bytes() <= max / 2 || before.bytes() > max / 2 && after.bytes() <= max {
                    return Ok(None);
                }
                if after.bytes() <= max {
                    warn_of_half(&made.commit, after, max);
                    return Ok(None);
                }
                self.enlarged(aggregate, made, before, after)
            });
        match taken {
            Ok(None) => {}
            Ok(Some(size)) => return Err(SubmitError::StreamTooLarge { size, max }),
            Err(error) => {
                let command = &made.commit.command.type_name;
                tracing::error!(%error, category, %command, "a rule failed over what it decided");
                self.speculate_anew(aggregate, key);
                return Err(SubmitError::Failed);
            }
        }
        let stream = self.speculation.streams.get_mut(key);
        let stream = stream.ok_or(SubmitError::Failed)?;
        stream.version = made.commit.version();
        stream.in_flight += 1;
        Ok(())
    }

    /// Takes what was decided up in the copy of the stream's state behind the commits in flight, and
    /// tries out whether the result can be written; says how large the state was and is. Where this
    /// fails the copy is torn.
    fn evolve_copy(
        &mut self,
        aggregate: &dyn Aggregate,
        made: &Made,
    ) -> Result<(StateSize, StateSize), RuleError> {
        let Speculation {
            streams,
            spare_bytes,
            ..
        } = &mut self.speculation;
        let stream = match streams.entry(made.key.clone()) {
            Entry::Occupied(there) => {
                let stream = there.into_mut();
                if stream.in_flight == 0 {
                    *spare_bytes = spare_bytes.saturating_sub(stream.size.bytes());
                }
                stream
            }
            Entry::Vacant(free) => {
                let accepted = self.memory.stream(&made.key, aggregate.category());
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
        for event in &made.events {
            aggregate.evolve(&mut stream.state, event, made.occurred_at)?;
        }
        let before = stream.size;
        let mut after = before.with(made.events.iter().map(|event| event.data.get()));
        if after.is_due(self.settings.stream_state_bytes_max) {
            after = StateSize::of(aggregate, &stream.state)?;
        }
        (stream.size, stream.is_used) = (after, true);
        Ok((before, after))
    }

    /// Whether a command may enlarge a state that is too large with it: its size, if not, and then
    /// nothing of the command is left. One that does not enlarge the state, as when something is
    /// called off, is always judged; what such a command notes (a flag, a moment) takes some bytes.
    fn enlarged(
        &mut self,
        aggregate: &dyn Aggregate,
        made: &Made,
        before: StateSize,
        after: StateSize,
    ) -> Result<Option<usize>, RuleError> {
        let max = self.settings.stream_state_bytes_max;
        let is_small = |before: StateSize| {
            after.bytes() <= before.bytes() + STATE_STEP_BYTES && after.bytes() <= 2 * max
        };
        if before.is_exact() && is_small(before) {
            return Ok(None);
        }
        // It is as before; where that was only estimated, it is looked up, and taken up again.
        self.speculate_anew(aggregate, &made.key);
        let state = match self.speculation.streams.get(&made.key) {
            Some(stream) => Some(&stream.state),
            None => {
                let accepted = self.memory.stream(&made.key, aggregate.category());
                accepted.state.as_ref()
            }
        };
        let exact = match state {
            Some(state) if !before.is_exact() => StateSize::of(aggregate, state)?,
            _ => before,
        };
        match self.speculation.streams.get_mut(&made.key) {
            Some(stream) => stream.size = exact,
            None => self.memory.stream(&made.key, aggregate.category()).size = exact,
        }
        if !is_small(exact) {
            return Ok(Some(after.bytes()));
        }
        self.evolve_copy(aggregate, made)?;
        Ok(None)
    }

    /// Makes the state behind the commits in flight again, from the accepted one and those.
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
            for entry in self.window.iter().filter(|entry| entry.key == *key) {
                for event in &entry.events {
                    aggregate.evolve(&mut state, event, entry.occurred_at)?;
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

fn warn_of_half(commit: &Commit, size: StateSize, max: usize) {
    let (tenant, stream, bytes) = (&commit.tenant, &commit.stream, size.bytes());
    tracing::warn!(%tenant, %stream, bytes, max, "a stream's state takes more than half of what it may");
    metrics::counter!("annals_streams_half_full_total").increment(1);
}
