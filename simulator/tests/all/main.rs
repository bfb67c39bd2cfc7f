//! The tests of the simulator, one binary.

#[cfg(feature = "known-bad")]
mod known_bad;
mod runs;

/// A run whose log loses as many records as the owner's own appends add before its next claim lands.
const FILLS_A_GAP: u64 = 3_659_293_115;

/// Runs in which an owner whose local store fails gives a command back, or answers it without an outcome,
/// while the next of its batch is routed.
const GIVES_BACK_WHILE_ROUTING: [u64; 2] = [777_365, 781_716];

/// Runs in which a node begins with a wrong clock, and the acknowledgement of its claim tells no time.
const CLAIMS_WITHOUT_A_TIME: [u64; 4] = [20_261_161, 20_271_561, 20_273_998, 20_274_736];
