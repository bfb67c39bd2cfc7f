//! The size of a stream's state, without serialising the state for each command.
//!
//! A small state is measured each time. A large one is measured again once its new events add a
//! fixed part to it, so that the cost of measuring is proportional to what changed.

use kernel::registry::{Aggregate, Opaque, RuleError};

/// Up to this size a state is measured with each command, in bytes.
const MEASURED_EACH_TIME_BYTES: usize = 4 << 10;
/// A larger state is measured again once events have added one part in this many.
const ADDED_PART: usize = 8;
/// The approximate size that an event adds apart from its data, in bytes: times, names of members.
const EVENT_BYTES: usize = 64;

/// A state's size as JSON, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::owner) struct StateSize {
    /// The size at the last measurement.
    measured: usize,
    /// The approximate size that events have added since.
    added: usize,
}

impl StateSize {
    /// The size of a state that was just written.
    pub(in crate::owner) fn measured(bytes: usize) -> Self {
        Self {
            measured: bytes,
            added: 0,
        }
    }

    /// The size after events with these data.
    pub(in crate::owner) fn with<'a>(self, data: impl Iterator<Item = &'a str>) -> Self {
        let added: usize = data.map(|data| data.len() + EVENT_BYTES).sum();
        Self {
            added: self.added + added,
            ..self
        }
    }

    /// About how large the state is, in bytes.
    pub(in crate::owner) fn bytes(self) -> usize {
        self.measured + self.added
    }

    /// Whether the size is measured and not estimated.
    pub(in crate::owner) fn is_exact(self) -> bool {
        self.added == 0
    }

    /// Whether the state must be measured again to judge it by the limit `max`.
    pub(in crate::owner) fn is_due(self, max: usize) -> bool {
        self.bytes() <= MEASURED_EACH_TIME_BYTES
            || self.bytes() > max
            || self.added > self.measured / ADDED_PART
    }

    /// Measures a state; this also tries whether it can be written.
    pub(in crate::owner) fn of(
        aggregate: &dyn Aggregate,
        state: &Opaque,
    ) -> Result<Self, RuleError> {
        Ok(Self::measured(aggregate.measure_state(state)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_state_is_measured_again_only_once_much_was_added() {
        let max = 1 << 20;
        let mut size = StateSize::measured(100 << 10);
        let mut count = 0;
        while !size.is_due(max) {
            size = size.with(std::iter::once("x".repeat(1_000).as_str()));
            count += 1;
        }
        assert!((11..14).contains(&count), "{count}");
        assert!(StateSize::measured(1_000).is_due(max), "a small one always");
        assert!(
            StateSize::measured(max + 1).is_due(max),
            "where the limit is passed"
        );
    }
}
