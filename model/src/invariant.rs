//! The names of the invariants that must hold in every state.

/// A command that was answered accepted is in the log for every reader, and stays there.
pub const ACCEPTED_STAYS: &str = "what was answered accepted is accepted for every reader for ever";
/// A refusal that was answered is in the log, and stays there.
pub const REFUSED_STAYS: &str = "what was answered refused is refused for every reader for ever";
/// A command that was refused or failed for good has left no event.
pub const NO_EVENT: &str = "what was answered refused or not attempted left no event";
/// One command id has at most one commit.
pub const ONCE: &str = "a command id leads to at most one commit";
/// The versions of a stream have no gaps.
pub const VERSIONS: &str = "versions of a stream are 1..n without gaps";
/// Recorded time increases, so a moment divides the partition at one place.
pub const RECORDED_TIME: &str = "recorded time increases with every commit";
/// Each commit was decided on all accepted commits before it, and on no others.
pub const HISTORY: &str = "each accepted commit was decided on exactly the accepted history before";
/// A node that lost the partition adds nothing.
pub const DEPOSED: &str = "a deposed owner adds nothing";
/// Readers agree: from the start, from a checkpoint, with the engine's rule or the reference.
pub const AGREE: &str = "all readers agree";
/// The protocol alone causes no damage.
pub const NO_DAMAGE: &str = "without truncation there is no damage";
/// Each waiting client gets one answer.
pub const ANSWERED_ONCE: &str = "whoever waits is answered once";
/// Once the faults end, every command is answered.
pub const FINISHES: &str = "from every state a fault-free continuation finishes every command";
/// A cut is noticed by every reader that had read the lost records.
pub const CUT_IS_SEEN: &str = "nobody who had read what was cut goes on silently";
/// The rows made of the log equal an independent fold.
pub const ROWS: &str = "rows equal an independent fold at the checkpoint";

/// The invariants of the write protocol.
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
