//! The Kafka client library's waits, kept apart from the wall clock.
//!
//! librdkafka (2.12) waits for its queues until a moment of the wall clock (`tinycthread_extra.c`,
//! `rdtime.h`). If that clock is set back, each such wait becomes longer by the same amount, and a
//! client stands still for minutes or hours. The function here replaces libc's in the whole
//! program: it takes the time that is left when a wait begins, and waits for it by the monotonic
//! clock. No code of this project calls it. A program built on this crate that does not want it
//! turns the feature `steady-waits` off.
//! Deliberately absent: other systems than Linux with glibc; there, libc's own function stays.

use std::sync::atomic::{AtomicU64, Ordering};

use libc::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, c_int, clockid_t, pthread_cond_t, pthread_mutex_t, timespec,
};

const NANOS: i64 = 1_000_000_000;
/// What C11's functions return, as glibc numbers it.
const THRD_SUCCESS: c_int = 0;
const THRD_ERROR: c_int = 2;
const THRD_TIMEDOUT: c_int = 4;

static WAITS: AtomicU64 = AtomicU64::new(0);

/// How many waits of the whole program this function has handled.
#[must_use]
pub fn count() -> u64 {
    WAITS.load(Ordering::Relaxed)
}

unsafe extern "C" {
    /// Since glibc 2.30.
    fn pthread_cond_clockwait(
        condition: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int;
}

fn now(clock: clockid_t) -> timespec {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` can be written to. With these clocks the call cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now
}

/// Converts `until` to another clock: the result is as far from `now` as `until` is from `wall`.
fn moved(until: timespec, wall: timespec, now: timespec) -> timespec {
    let nanos = until.tv_nsec - wall.tv_nsec + now.tv_nsec;
    let seconds = until
        .tv_sec
        .saturating_sub(wall.tv_sec)
        .saturating_add(now.tv_sec);
    timespec {
        tv_sec: seconds.saturating_add(nanos.div_euclid(NANOS)).max(0),
        tv_nsec: nanos.rem_euclid(NANOS),
    }
}

/// C11's `cnd_timedwait`, whose `until` is a moment of the wall clock. Setting that clock during
/// the wait changes nothing.
///
/// # Safety
/// As for libc's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn cnd_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    WAITS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's pointers are passed on unchanged. In glibc, a `cnd_t` is a
    // `pthread_cond_t` and a `mtx_t` is a `pthread_mutex_t` (`nptl/cnd_timedwait.c`).
    let waited = unsafe {
        let until = moved(*until, now(CLOCK_REALTIME), now(CLOCK_MONOTONIC));
        pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &raw const until)
    };
    match waited {
        0 => THRD_SUCCESS,
        libc::ETIMEDOUT => THRD_TIMEDOUT,
        _ => THRD_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_keeps_its_distance_on_the_other_clock() {
        let at = |tv_sec, tv_nsec| timespec { tv_sec, tv_nsec };
        let moved = |until, wall, now| {
            let moved = moved(until, wall, now);
            (moved.tv_sec, moved.tv_nsec)
        };
        assert_eq!(moved(at(100, 5), at(99, 6), at(7, 0)), (7, NANOS - 1));
        assert_eq!(moved(at(100, 5), at(100, 6), at(7, 0)), (6, NANOS - 1));
        assert_eq!(
            moved(at(100, 900_000_000), at(100, 0), at(7, 200_000_000)),
            (8, 100_000_000)
        );
        assert_eq!(moved(at(0, 0), at(100, 0), at(7, 0)), (0, 0));
    }
}
