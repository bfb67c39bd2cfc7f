//! How much of its time a lane that builds may work while live read models are written, by this
//! process or another one.
//!
//! Invariant: while live read models move, a building lane has rested, after each transaction, at
//! least as long as the given share demands. Without live work it does not rest. Pure: the clock is
//! an argument. Deliberately absent: who writes the live read models; every process sees them move
//! when it looks at the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use position::{Offset, Partition};

use crate::store::members::{GenerationId, GenerationState, Look};

/// The share in percent if nobody says another.
pub(crate) const SHARE: u32 = 50;
/// For how long live read models count as being written after they moved: a transaction may take as
/// long, and longer beside a rebuild.
const BUSY_FOR: Duration = Duration::from_secs(2);
/// The longest rest after one transaction.
const REST_MAX: Duration = Duration::from_secs(10);

/// When live read models last moved.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveWork(Arc<Mutex<Option<Instant>>>);

impl LiveWork {
    fn note(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    fn is_there(&self, now: Instant) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| now.saturating_duration_since(last) < BUSY_FOR)
    }
}

/// Compares each look with the one before.
#[derive(Debug, Default)]
pub(crate) struct LiveWatch {
    places: BTreeMap<GenerationId, BTreeMap<Partition, Offset>>,
    work: LiveWork,
}

impl LiveWatch {
    /// What it finds, for the lanes.
    pub(crate) fn work(&self) -> LiveWork {
        self.work.clone()
    }

    pub(crate) fn look(&mut self, look: &Look, now: Instant) {
        let live = look.generations.iter();
        let live = live.filter(|(_, seen)| seen.state == GenerationState::Live);
        let places: BTreeMap<_, _> = live
            .map(|(id, seen)| (id.clone(), seen.places.clone()))
            .collect();
        let moved = |(id, at): (&GenerationId, _)| {
            // One that was not live at the look before was switched, and may be all that moved.
            let before = self.places.get(id);
            before.is_some_and(|before| before != at)
        };
        if places.iter().any(moved) {
            self.work.note(now);
        }
        self.places = places;
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
    /// A share of 1 to 100 percent, beside this live work.
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
    use crate::store::members::Seen;

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
    fn live_work_is_seen_when_a_live_read_model_moves_whoever_moves_it() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let id = |number| GenerationId {
            projection: "p".to_owned(),
            number,
        };
        let seen = |state, offset| Seen {
            state,
            rule: String::new(),
            version: 1,
            places: BTreeMap::from([(Partition(0), Offset(offset))]),
            leases: BTreeMap::new(),
            waits: false,
            by_itself: false,
            is_paused: false,
            stopped: BTreeMap::new(),
        };
        let look = |generations: &[(i32, GenerationState, u64)]| Look {
            members: Vec::new(),
            generations: generations
                .iter()
                .map(|(number, state, offset)| (id(*number), seen(*state, *offset)))
                .collect(),
        };
        let (live, building) = (GenerationState::Live, GenerationState::Building);
        let mut watch = LiveWatch::default();
        let work = watch.work();
        // What stood at the first look may have stood for long, and a building is not live.
        watch.look(&look(&[(1, live, 7), (2, building, 3)]), at(0));
        watch.look(&look(&[(1, live, 7), (2, building, 9)]), at(500));
        assert!(!work.is_there(at(500)));
        watch.look(&look(&[(1, live, 8), (2, building, 9)]), at(1_000));
        assert!(work.is_there(at(1_000)));
        assert!(work.is_there(at(2_900)));
        assert!(!work.is_there(at(3_000)));
        // Live since a switch.
        watch.look(&look(&[(2, live, 9)]), at(4_000));
        assert!(!work.is_there(at(4_000)));
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
        assert_eq!(share.rest(at(2_200)), Duration::ZERO);
        // Everything that it may have.
        let share = Share {
            percent: 100,
            ..share
        };
        assert_eq!(share.rest(at(100)), Duration::ZERO);
    }
}
