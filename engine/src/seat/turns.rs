//! How long the commands of one partition wait for their turn.
//!
//! Invariant: only a command that waited too long although other commands had their turns is turned
//! away. Deliberately absent: whose turn it is (`fair`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a command may wait for its turn while other commands have theirs.
const TURN_WITHIN: Duration = Duration::from_secs(1);
/// If no command had its turn for so long, the partition stood still; waiting times then start
/// anew.
const STANDSTILL: Duration = Duration::from_millis(250);

/// Measures how long the commands of one partition wait for their turn. When more commands come
/// than the partition can take, each would wait as long as its client does, and be decided after
/// the client has gone. So commands that waited too long are turned away, unless they waited
/// because of a standstill (a move, a slow log).
pub struct Turns(Mutex<Turn>);

struct Turn {
    last: Instant,
    /// When the last standstill ended.
    flows_since: Instant,
}

impl Turns {
    /// For a partition where no command waits yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Turn {
            last: now,
            flows_since: now,
        }))
    }

    /// Notes that a command, which has waited since `queued`, has its turn; returns whether it has
    /// waited too long.
    #[must_use]
    pub fn came_too_late(&self, queued: Instant, now: Instant) -> bool {
        let mut turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(turn.last) > STANDSTILL {
            turn.flows_since = now;
        }
        turn.last = now;
        now.saturating_duration_since(queued.max(turn.flows_since)) > TURN_WITHIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_too_long_among_others_is_turned_away_and_who_waited_for_a_standstill_is_not() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let turns = Turns::new(start);
        // One turn every 100 ms, each for a command that has waited longer than the one before.
        for millis in (100..=1_000).step_by(100) {
            assert!(!turns.came_too_late(start, at(millis)));
        }
        assert!(turns.came_too_late(start, at(1_100)));
        assert!(!turns.came_too_late(at(200), at(1_200)));
        // There is no turn for five seconds; after that, everything that waited has one more
        // second.
        assert!(!turns.came_too_late(start, at(6_200)));
        assert!(!turns.came_too_late(start, at(6_300)));
        for millis in (6_400..=7_200).step_by(100) {
            assert!(!turns.came_too_late(start, at(millis)));
        }
        assert!(turns.came_too_late(start, at(7_300)));
    }
}
