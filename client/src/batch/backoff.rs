//! How long to wait before another try.
//!
//! Deliberately absent: any waiting.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double. Each is shortened at random, so that clients do not retry in step.
pub(crate) struct Backoff {
    pause: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { pause: FIRST }
    }

    /// The next pause: at least what the server asked for, if it did.
    pub(crate) fn next_pause(&mut self, asked_for: Option<Duration>) -> Duration {
        let pause = self.pause.mul_f64(rand::random_range(0.5..=1.0));
        self.pause = (self.pause * 2).min(LONGEST);
        asked_for.map_or(pause, |asked_for| asked_for.max(pause))
    }
}
