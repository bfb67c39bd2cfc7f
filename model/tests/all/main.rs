//! The models of writing and of reading, checked; and tests that they find built-in mistakes.

#[cfg(feature = "known-bad")]
mod known_bad;
mod reading;
mod writing;

/// How many threads visit states; two threads keep two cores busy.
const THREADS: usize = 2;
