//! Reads this machine's clocks.
//!
//! Invariant: no other file of the engine reads a clock that counts suspended time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kernel::Timestamp;
use libc::{CLOCK_BOOTTIME, timespec};

use crate::owner::Now;

/// The present moment; monotonic times count from `started`.
pub(crate) fn now(started: Instant) -> Now {
    let elapsed = started.elapsed().as_millis();
    Now {
        wall: wall_clock(),
        monotonic_ms: u64::try_from(elapsed).unwrap_or(u64::MAX),
        boottime_ms: boottime_ms(),
    }
}

/// The time since this machine was started, suspended or not, in milliseconds.
pub(crate) fn boottime_ms() -> u64 {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local `timespec`. With this clock the call cannot fail.
    unsafe { libc::clock_gettime(CLOCK_BOOTTIME, &raw mut now) };
    (now.tv_sec * 1_000 + now.tv_nsec / 1_000_000).unsigned_abs()
}

/// The wall clock, to the microsecond.
fn wall_clock() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let micros = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or_default()
}
