//! Checks whether this node's clock is right: compares it with a reference time that does not
//! change when somebody sets the clock.
//!
//! Recorded times decide how long command ids are remembered. If the clock jumps a day ahead, ids
//! expire too early, and an honest retry counts twice. A [`Reference`] is a moment as the log's
//! brokers stated it (or, where the log is a file, as this clock stated it when the process began),
//! together with the reading of a clock that nobody sets and that counts suspended time. Invariant:
//! while the wall clock differs from the reference by more than the bound, this node neither claims
//! nor appends. Deliberately absent: I/O; clock readings come in as [`Now`].

pub(crate) mod system;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use kernel::Timestamp;
use tokio::sync::watch;

use crate::owner::Now;

/// The longest round trip of a probe that is used, in milliseconds. The result of a slower probe is
/// too uncertain.
const PROBE_MS_MAX: u64 = 10_000;
/// How many times the pause doubles before an owner asks again whether the broker's clock agrees.
const DOUBLINGS_MAX: u32 = 5;
/// If the log is ahead of the clock by no more than this, nothing is reported, in microseconds: the
/// clocks of two nodes differ.
const AHEAD_NOTED_US: i64 = 1_000_000;

/// Where a reference comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This clock, when the process began.
    Start,
    /// The append time of a record in the directory.
    Directory,
    /// The append time of a record in the partition itself.
    Broker,
}

/// A moment, and the reading at that moment of the clock that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    at: Timestamp,
    boottime_ms: u64,
    source: Source,
}

impl Reference {
    /// This machine's clock as it is now: the only reference where no broker stamps records.
    #[must_use]
    pub fn at_start(now: Now) -> Self {
        Self {
            at: now.wall,
            boottime_ms: now.boottime_ms,
            source: Source::Start,
        }
    }

    /// The reference from a probe that was sent and acknowledged at these moments. `None` if the
    /// probe took longer than `PROBE_MS_MAX`, because its result is too uncertain.
    #[must_use]
    pub fn from_probe(
        sent_boottime_ms: u64,
        heard_boottime_ms: u64,
        appended_at: Timestamp,
    ) -> Option<Self> {
        let took_ms = heard_boottime_ms.checked_sub(sent_boottime_ms)?;
        (took_ms <= PROBE_MS_MAX).then_some(Self {
            at: appended_at,
            boottime_ms: sent_boottime_ms + took_ms / 2,
            source: Source::Directory,
        })
    }

    /// The time by the reference when the clock that nobody sets reads `boottime_ms`.
    fn at(&self, boottime_ms: u64) -> Timestamp {
        let passed_us = boottime_ms
            .saturating_sub(self.boottime_ms)
            .saturating_mul(1_000);
        let passed_us = i64::try_from(passed_us).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.at.micros().saturating_add(passed_us)).unwrap_or(self.at)
    }

    /// How far the clock is ahead of the reference (negative: behind it), in milliseconds.
    #[must_use]
    pub fn off_ms(&self, now: Now) -> i64 {
        (now.wall.micros() - self.at(now.boottime_ms).micros()) / 1_000
    }
}

/// The time by the log's brokers; until a broker has stated a time, by this machine's clock as it
/// was when the process began. Two nodes agree on this time even if one node's clock is wrong. A
/// process has one such clock; all clones share it.
#[derive(Clone, Debug)]
pub struct LogClock(Arc<watch::Sender<Reference>>);

impl Default for LogClock {
    /// Starts with the present time of this machine's clock.
    fn default() -> Self {
        let reference = Reference::at_start(system::now(Instant::now()));
        Self(Arc::new(watch::Sender::new(reference)))
    }
}

impl LogClock {
    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.borrow().at(system::boottime_ms())
    }

    pub(crate) fn set(&self, reference: Reference) {
        self.0.send_replace(reference);
    }

    pub(crate) fn reference(&self) -> Reference {
        *self.0.borrow()
    }
}

/// How far this node's clock is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOff {
    /// How far it is ahead (negative: behind), in milliseconds.
    pub ms: i64,
    /// The reference that it was compared with.
    pub source: Source,
}

impl fmt::Display for ClockOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.ms.unsigned_abs();
        let where_to = if self.ms > 0 { "ahead of" } else { "behind" };
        match self.source {
            Source::Start => write!(
                f,
                "this machine's clock was set while this process ran, and is {ms} ms {where_to} what \
                 it was before: nothing is written until it is set back; if it is right now, restart \
                 this process"
            ),
            Source::Directory | Source::Broker => write!(
                f,
                "this machine's clock is {ms} ms {where_to} the brokers': nothing is written here \
                 until they agree; let a time server (NTP) set it, and look at the brokers' too"
            ),
        }
    }
}

/// What a check of the clock found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing has changed.
    None,
    /// The clock has just gone wrong.
    WentOff(ClockOff),
    /// The clock agrees again.
    Agrees,
}

/// What is known about a node's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    reference: Option<Reference>,
    off: Option<ClockOff>,
    /// What the partition's own broker said, and until when this is believed, as a monotonic time
    /// in milliseconds.
    refused: Option<(ClockOff, u64)>,
    /// How many times in a row the broker said so.
    refusals: u32,
    /// Whether it was already reported that the log is ahead of this clock.
    is_ahead_told: bool,
}

impl Clock {
    /// Takes a newer reference.
    pub fn set_reference(&mut self, reference: Reference) {
        self.reference = Some(reference);
    }

    /// Checks whether the clock is off by more than `most_ms`. A clock that was off agrees again
    /// only once it is off by at most half of `most_ms`.
    pub fn look(&mut self, now: Now, most_ms: i64) -> Change {
        let before = self.off();
        self.refused
            .take_if(|(_, until_ms)| now.monotonic_ms >= *until_ms);
        let bound_ms = match self.off {
            Some(_) => most_ms / 2,
            None => most_ms,
        };
        self.off = self.reference.and_then(|reference| {
            let ms = reference.off_ms(now);
            let source = reference.source;
            (ms.saturating_abs() > bound_ms).then_some(ClockOff { ms, source })
        });
        match (before, self.off()) {
            (None, Some(off)) => Change::WentOff(off),
            (Some(_), None) => Change::Agrees,
            (None, None) | (Some(_), Some(_)) => Change::None,
        }
    }

    /// How far the clock was off at the last check.
    #[must_use]
    pub fn off(&self) -> Option<ClockOff> {
        self.off.or(self.refused.map(|(off, _)| off))
    }

    /// Notes that the partition's broker stamped a record with a time too far from this clock's.
    /// The broker is believed for `least_ms`, and for longer each time it says so again. Everything
    /// that was in flight together counts as one refusal.
    pub fn refuse(&mut self, ms: i64, now: Now, least_ms: u64) {
        let is_believed = |(_, until_ms): &(ClockOff, u64)| now.monotonic_ms < *until_ms;
        if self.refused.as_ref().is_some_and(is_believed) {
            return;
        }
        let pause_ms = least_ms << self.refusals.min(DOUBLINGS_MAX);
        self.refusals += 1;
        let source = Source::Broker;
        self.refused = Some((ClockOff { ms, source }, now.monotonic_ms + pause_ms));
    }

    /// Notes that the broker's time agrees.
    pub fn agrees(&mut self) {
        self.refusals = 0;
    }

    /// Whether to report now that the log is ahead, given the time of its newest record. This is
    /// reported once, and again only after the log was no longer ahead.
    pub fn tells_ahead(&mut self, last: Timestamp, now: Now) -> bool {
        let is_ahead = last.micros() - now.wall.micros() > AHEAD_NOTED_US;
        let was_told = std::mem::replace(&mut self.is_ahead_told, is_ahead);
        is_ahead && !was_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_MS: i64 = 60_000;
    const DAY_MS: i64 = 86_400_000;

    fn now(wall_ms: i64, boottime_ms: u64) -> Now {
        Now {
            wall: Timestamp::from_micros(wall_ms * 1_000).unwrap(),
            monotonic_ms: boottime_ms,
            boottime_ms,
        }
    }

    fn started_at(wall_ms: i64) -> Clock {
        let mut clock = Clock::default();
        clock.set_reference(Reference::at_start(now(wall_ms, 0)));
        clock
    }

    #[test]
    fn a_day_of_suspended_time_is_no_jump_and_a_day_without_is_one() {
        let mut clock = started_at(5 * DAY_MS);
        let slept = now(6 * DAY_MS, DAY_MS.unsigned_abs());
        assert_eq!(clock.look(slept, MOST_MS), Change::None);
        for days in [-1, 1] {
            let mut clock = started_at(5 * DAY_MS);
            let jumped = now((5 + days) * DAY_MS, 10);
            let found = clock.look(jumped, MOST_MS);
            let ms = days * DAY_MS - 10;
            let source = Source::Start;
            assert_eq!(found, Change::WentOff(ClockOff { ms, source }));
            assert_eq!(clock.look(jumped, MOST_MS), Change::None, "told once");
            assert_eq!(clock.look(now(5 * DAY_MS, 20), MOST_MS), Change::Agrees);
        }
    }

    #[test]
    fn all_that_was_in_flight_when_the_clock_went_wrong_is_one_refusal() {
        let mut clock = started_at(0);
        for _ in 0..100 {
            clock.refuse(DAY_MS, now(0, 3_000), 1_000);
        }
        assert_eq!(clock.look(now(1_000, 4_000), MOST_MS), Change::Agrees);
    }

    #[test]
    fn what_broker_and_probe_say_replaces_what_this_clock_said_of_itself() {
        let mut clock = started_at(DAY_MS);
        let probe = |took_ms| {
            let at = Timestamp::from_micros(0).unwrap();
            Reference::from_probe(1_000, 1_000 + took_ms, at)
        };
        assert_eq!(probe(PROBE_MS_MAX + 1), None, "it says too little");
        clock.set_reference(probe(4_000).unwrap());
        let wrong = now(DAY_MS, 3_000);
        let source = Source::Directory;
        let ms = DAY_MS;
        assert_eq!(
            clock.look(wrong, MOST_MS),
            Change::WentOff(ClockOff { ms, source })
        );
        assert_eq!(clock.look(now(0, 3_000), MOST_MS), Change::Agrees);
        clock.refuse(DAY_MS, now(0, 3_000), 1_000);
        assert_eq!(clock.off().map(|off| off.source), Some(Source::Broker));
        assert_eq!(clock.look(now(999, 3_999), MOST_MS), Change::None);
        assert_eq!(clock.look(now(1_000, 4_000), MOST_MS), Change::Agrees);
        clock.refuse(DAY_MS, now(1_000, 4_000), 1_000);
        assert_eq!(
            clock.look(now(2_999, 5_999), MOST_MS),
            Change::None,
            "twice as long"
        );
        assert_eq!(clock.look(now(3_000, 6_000), MOST_MS), Change::Agrees);
    }

    #[test]
    fn a_log_that_is_ahead_is_told_once() {
        let mut clock = Clock::default();
        let ahead = Timestamp::from_micros(7_200_000_000).unwrap();
        assert!(clock.tells_ahead(ahead, now(0, 0)));
        assert!(!clock.tells_ahead(ahead, now(1, 1)));
        assert!(!clock.tells_ahead(ahead, now(7_200_000, 2)));
    }

    /// However the clock is set and however long the machine sleeps, the clock counts as off
    /// exactly while it is further from the true time than the bound (half the bound for agreeing
    /// again).
    #[test]
    fn a_clock_is_off_exactly_while_it_is_wrong() {
        const WRONG_MS: [i64; 9] = [
            -3 * DAY_MS,
            -60_001,
            -60_000,
            -30_001,
            0,
            30_000,
            60_000,
            60_001,
            3 * DAY_MS,
        ];
        let start_ms = 20_000 * DAY_MS;
        for (first, second) in WRONG_MS.iter().flat_map(|a| WRONG_MS.map(|b| (*a, b))) {
            for sleeps_ms in [0, 1, DAY_MS] {
                let mut clock = started_at(start_ms);
                let mut slept_ms = 0;
                for wrong_ms in [first, second, first] {
                    slept_ms += sleeps_ms;
                    let wall_ms = start_ms + slept_ms + wrong_ms;
                    clock.look(now(wall_ms, slept_ms.unsigned_abs()), MOST_MS);
                    match clock.off() {
                        Some(off) => assert!(off.ms == wrong_ms && off.ms.abs() > MOST_MS / 2),
                        None => assert!(wrong_ms.abs() <= MOST_MS),
                    }
                }
            }
        }
    }
}
