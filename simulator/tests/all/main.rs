//! The tests of the simulator, one binary.

#[cfg(feature = "known-bad")]
mod known_bad;
mod runs;

/// A run whose log loses as many records as the owner's own appends add before its next claim lands.
const FILLS_A_GAP: u64 = 3_659_293_115;
