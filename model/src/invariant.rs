//! What must hold in every state, by name.

/// A command that was answered accepted is in the log for whoever reads it, and stays there.
pub const ACCEPTED_STAYS: &str = "what was answered accepted is accepted for every reader for ever";
/// A refusal that was answered is in the log, and stays there.
pub const REFUSED_STAYS: &str = "what was answered refused is refused for every reader for ever";
/// Refused, or failed for good: it left no event.
pub const NO_EVENT: &str = "what was answered refused or not attempted left no event";
/// One id, one commit.
pub const ONCE: &str = "a command id leads to at most one commit";
/// Versions follow each other.
pub const VERSIONS: &str = "versions of a stream are 1..n without gaps";
/// A moment cuts the partition in one place.
pub const RECORDED_TIME: &str = "recorded time increases with every commit";
/// Decided on what counts, and on all of it.
pub const HISTORY: &str = "each accepted commit was decided on exactly the accepted history before";
/// Whoever lost the partition adds nothing.
pub const DEPOSED: &str = "a deposed owner adds nothing";
/// From the start, from a checkpoint, by the engine or by the reference.
pub const AGREE: &str = "all readers agree";
/// The protocol itself leaves no damage.
pub const NO_DAMAGE: &str = "without truncation there is no damage";
/// Nobody is told twice.
pub const ANSWERED_ONCE: &str = "whoever waits is answered once";
/// Once the faults end, everything is answered.
pub const FINISHES: &str = "from every state a fault-free continuation finishes every command";
/// A cut that somebody could see is seen.
pub const CUT_IS_SEEN: &str = "nobody who had read what was cut goes on silently";
/// What was made of the log equals an independent fold.
pub const ROWS: &str = "rows equal an independent fold at the checkpoint";

/// Those of the write protocol.
pub const OF_WRITING: [&str; 13] = [
    ACCEPTED_STAYS,
    REFUSED_STAYS,
    NO_EVENT,
    ONCE,
    VERSIONS,
    RECORDED_TIME,
    HISTORY,
    DEPOSED,
    AGREE,
    NO_DAMAGE,
    ANSWERED_ONCE,
    FINISHES,
    CUT_IS_SEEN,
];
