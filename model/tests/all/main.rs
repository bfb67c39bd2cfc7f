//! The model of the write protocol and of a reader, checked, and shown to notice what is wrong.

#[cfg(feature = "known-bad")]
mod known_bad;
mod reading;
mod writing;

/// How many threads look at states; two of them keep two cores busy.
const THREADS: usize = 2;
