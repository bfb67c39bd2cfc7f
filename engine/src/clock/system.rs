//! This machine's clocks.
//!
//! Invariant: nothing else in the engine asks what time it is by a clock that suspended time counts for.

use std::time::Instant;

use libc::{CLOCK_BOOTTIME, timespec};

use crate::owner::Now;
use crate::seat::wall_clock;

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
    // SAFETY: it is a place to write to. With this clock the call cannot fail.
    unsafe { libc::clock_gettime(CLOCK_BOOTTIME, &raw mut now) };
    (now.tv_sec * 1_000 + now.tv_nsec / 1_000_000).unsigned_abs()
}
