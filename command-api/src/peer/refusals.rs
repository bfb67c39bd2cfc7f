//! Warnings about refused requests that do not seem to come from a peer; their number is limited.
//!
//! Invariant: at most one warning in each interval; it says how many refusals were left out before
//! it. So requests cannot fill the disk. Deliberately absent: clocks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The interval in which at most one warning is logged.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Decides which refusals are logged.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told_at: Option<Instant>,
    untold: u64,
}

impl Refusals {
    /// Counts a refusal. If it should be logged, returns how many refusals before it were not.
    pub(super) fn count(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_early = |told_at: Instant| now.saturating_duration_since(told_at) < WARN_EVERY;
        if state.told_at.is_some_and(is_early) {
            state.untold += 1;
            return None;
        }
        state.told_at = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_gives_a_few_warnings_with_its_count() {
        let (refusals, begin) = (Refusals::default(), Instant::now());
        let flood = (0..100_000).map(|ms| begin + Duration::from_millis(ms));
        let told: Vec<u64> = flood.filter_map(|now| refusals.count(now)).collect();
        assert_eq!(told.len(), 10);
        assert_eq!((told[0], told[1]), (0, 9_999));
    }
}
