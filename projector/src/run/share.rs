//! How much of its time a lane that builds may work while lanes of the same process write live read
//! models.
//!
//! Invariant: while live lanes have work, a building lane has rested, after each transaction, at
//! least as long as the given share demands. Without live work it does not rest. Pure: the clock is
//! an argument. Deliberately absent: other processes; Postgres shares its time among them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long a live lane counts as busy after it took up something.
const BUSY_FOR: Duration = Duration::from_millis(500);
/// The longest rest after one transaction.
const REST_MAX: Duration = Duration::from_secs(10);

/// When a live lane of this process last took up something.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveWork(Arc<Mutex<Option<Instant>>>);

impl LiveWork {
    pub(crate) fn note(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    fn is_there(&self, now: Instant) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| now.saturating_duration_since(last) < BUSY_FOR)
    }
}

/// The share of its time that a building lane may work.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    percent: u32,
    live: LiveWork,
    /// When it last began to work.
    since: Option<Instant>,
}

impl Share {
    /// A share of 1 to 100 percent, beside the live work of the process.
    pub(crate) fn new(percent: u32, live: LiveWork) -> Self {
        Self {
            percent: percent.clamp(1, 100),
            live,
            since: None,
        }
    }

    /// Work begins, after a rest or a wait.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// How long the lane must rest now. Call [`Self::begin`] afterwards.
    pub(crate) fn rest(&self, now: Instant) -> Duration {
        let Some(since) = self.since.filter(|_| self.live.is_there(now)) else {
            return Duration::ZERO;
        };
        let worked = now.saturating_duration_since(since);
        (worked * (100 - self.percent) / self.percent).min(REST_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_at_most_the_share_while_live_lanes_have_work() {
        let began = Instant::now();
        for (percent, work_ms) in [(50, 100), (25, 40), (80, 1_000), (1, 30), (99, 500)] {
            let live = LiveWork::default();
            let mut share = Share::new(percent, live.clone());
            let (mut now, mut worked) = (began, Duration::ZERO);
            for _ in 0..100 {
                share.begin(now);
                let work = Duration::from_millis(work_ms);
                (now, worked) = (now + work, worked + work);
                live.note(now);
                now += share.rest(now);
            }
            let whole = (now - began).as_secs_f64();
            let found = 100.0 * worked.as_secs_f64() / whole;
            assert!(
                (found - f64::from(percent)).abs() < 0.1,
                "{percent}: {found}"
            );
        }
    }

    #[test]
    fn it_works_at_full_speed_while_there_is_nothing_live_to_do() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let live = LiveWork::default();
        let mut share = Share::new(10, live.clone());
        share.begin(began);
        assert_eq!(share.rest(at(100)), Duration::ZERO);
        live.note(at(100));
        assert_eq!(share.rest(at(100)), Duration::from_millis(900));
        assert_eq!(share.rest(at(700)), Duration::ZERO);
        // Everything that it may have.
        let share = Share {
            percent: 100,
            ..share
        };
        assert_eq!(share.rest(at(100)), Duration::ZERO);
    }
}
