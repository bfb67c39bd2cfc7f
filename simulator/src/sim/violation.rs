//! What must never happen, by name.
//!
//! Invariant: one variant for each promise; a violation names the broken promise, the time, and the
//! details.

/// A promise of the engine (see protocol.md) that a run may find broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invariant {
    /// An answer *accepted* or *rejected* stands in the log for ever, as it was given.
    #[error("what was answered stands in the log as it was answered")]
    AnsweredIsThere,
    /// A command that was refused for good or turned away left nothing in the log.
    #[error("what was refused for good or turned away left nothing")]
    RefusedLeftNothing,
    /// A command, by its id and by its intent, leads to at most one commit.
    #[error("a command leads to at most one commit")]
    AtMostOnce,
    /// The log contains nothing that no client asked for.
    #[error("nothing is in the log that nobody asked for")]
    Asked,
    /// Versions have no gaps, and a command's events are in the log together.
    #[error("versions are 1 to n, and a command's events are all or none")]
    Versions,
    /// Every reader can read what counts.
    #[error("what counts can be read by every reader")]
    Readable,
    /// Each accepted commit was decided on exactly the accepted history before it.
    #[error("a commit was decided on exactly the history before it")]
    DecidedOnHistory,
    /// After a doubt, nothing more is sent under the same claim.
    #[error("after a doubt nothing more is sent under that claim")]
    SilentAfterDoubt,
    /// Recorded time increases with every commit of a partition.
    #[error("recorded time increases with every commit of a partition")]
    RecordedTime,
    /// An event occurred when its client said, or otherwise not later than it was recorded; and
    /// rules know which of the two it is.
    #[error("an event happened when the client says, if it says so")]
    BusinessTime,
    /// No commit is recorded ahead of the true time, unless the log was ahead before.
    #[error("recorded time is not ahead of the true one")]
    TimesAreTrue,
    /// The commands of one batch for one stream are decided in the order of their lines.
    #[error("a batch's commands for one stream are decided in their order")]
    BatchOrder,
    /// Every reader finds the same accepted history.
    #[error("every reader finds the same accepted history")]
    ReadersAgree,
    /// A projection's rows are the fold of the log at its checkpoint.
    #[error("rows are the fold of the log at their checkpoint")]
    RowsAreTheFold,
    /// No reader finds damage in a log that lost nothing.
    #[error("nobody meets damage in a log that lost nothing")]
    NoFalseAlarm,
    /// Everybody who had read records that were cut off notices the cut.
    #[error("whoever had read what was cut off notices")]
    CutIsNoticed,
    /// Every command is answered and every partition owned, within the time limit.
    #[error("once the faults end everything moves again within 10 s")]
    MovesAgain,
    /// Every queue keeps its limit.
    #[error("every queue keeps its bound")]
    Bounded,
    /// A command on which the rules fail leaves nothing in the log. It freezes no stream but its
    /// own, and this only on a program whose rules fail.
    #[error("what the rules fail over leaves nothing, and hurts no other stream")]
    FailuresStayAlone,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}.{:03} s: broken: {invariant}: {what}", .at_us / 1_000_000, .at_us / 1_000 % 1_000)]
pub struct Violation {
    /// The promise.
    pub invariant: Invariant,
    /// The virtual time, in microseconds.
    pub at_us: u64,
    /// The details.
    pub what: String,
}
