//! The tests of the simulator, one binary.

#[cfg(feature = "known-bad")]
mod known_bad;
mod runs;

/// A run whose log loses as many records as the owner's own appends add before its next claim lands.
const FILLS_A_GAP: u64 = 3_659_293_115;

/// Runs in which an owner whose local store fails gives a command back, or answers it without an outcome,
/// while the next of its batch is routed.
const GIVES_BACK_WHILE_ROUTING: [u64; 2] = [777_365, 781_716];
