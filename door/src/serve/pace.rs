//! Checks that bytes move fast enough.
//!
//! Waiting for the other side uses up a time credit; bytes that move restore some of it. Invariant:
//! a transfer that stands still is given up after the stall timeout, and a transfer slower than the
//! lowest rate is given up eventually; time in which this side does not wait does not count.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The rest of the time that the other side may take.
pub(super) struct Pace {
    credit: Duration,
    credit_max: Duration,
    rate_bytes_min: u64,
    waiting_since: Option<Instant>,
    /// Created at the first wait; most connections never wait.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(super) fn new(stall_timeout: Duration, rate_bytes_min: u64) -> Self {
        Self {
            credit: stall_timeout,
            credit_max: stall_timeout,
            rate_bytes_min: rate_bytes_min.max(1),
            waiting_since: None,
            sleep: None,
        }
    }

    /// Waits for the other side; ready if it took too long.
    pub(super) fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wait_for(self.credit, context)
    }

    /// Waits for the other side for `time`, whatever its credit.
    pub(super) fn wait_for(&mut self, time: Duration, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(now + time),
                None => self.sleep = Some(Box::pin(sleep_until(now + time))),
            }
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(context),
            None => Poll::Pending,
        }
    }

    /// Notes that `size` bytes moved.
    pub(super) fn moved(&mut self, size: usize) {
        let Some(since) = self.waiting_since.take() else {
            return;
        };
        let earned = worth(size, self.rate_bytes_min);
        let left = self.credit.saturating_sub(since.elapsed());
        self.credit = left.saturating_add(earned).min(self.credit_max);
    }

    /// Restores the full credit.
    pub(super) fn reset(&mut self) {
        self.waiting_since = None;
        self.credit = self.credit_max;
    }
}

/// The time that `size` bytes take at the lowest rate, which is in bytes per second and at least 1.
pub(super) fn worth(size: usize, rate_bytes_min: u64) -> Duration {
    let nanos = size as u128 * 1_000_000_000 / u128::from(rate_bytes_min);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stalled_transfer_is_given_up() {
        let mut pace = Pace::new(Duration::from_secs(10), 1_000);
        let began = Instant::now();
        poll_fn(|context| pace.wait(context)).await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_below_the_rate_is_given_up_and_one_that_keeps_it_is_not() {
        for (size, lives) in [(1, false), (4_000, false), (5_000, true)] {
            let mut pace = Pace::new(Duration::from_secs(10), 1_000);
            let mut is_alive = true;
            // One piece every five seconds.
            for _ in 0..100 {
                let five = tokio::time::sleep(Duration::from_secs(5));
                tokio::select! {
                    biased;
                    () = five => pace.moved(size),
                    () = poll_fn(|context| pace.wait(context)) => {
                        is_alive = false;
                        break;
                    }
                }
            }
            assert_eq!(is_alive, lives, "{size} bytes");
        }
    }
}
