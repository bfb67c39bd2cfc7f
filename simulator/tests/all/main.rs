//! The tests of the simulator, one binary.

#[cfg(feature = "known-bad")]
mod known_bad;
mod runs;
