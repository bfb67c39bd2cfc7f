//! What must never happen, by name.
//!
//! Invariant: one variant for each promise; a violation names the broken promise, the time, and the
//! details.

use std::fmt;

/// A promise of the engine (see protocol.md) that a run may find broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// An answer *accepted* or *rejected* stands in the log for ever, as it was given.
    AnsweredIsThere,
    /// A command that was refused for good or turned away left nothing in the log.
    RefusedLeftNothing,
    /// A command, by its id and by its intent, leads to at most one commit.
    AtMostOnce,
    /// The log contains nothing that no client asked for.
    Asked,
    /// A stream's versions are 1 to n without gaps, and the log has all of a command's events or
    /// none.
    Versions,
    /// Every reader can read what counts.
    Readable,
    /// Each accepted commit was decided on exactly the accepted history before it.
    DecidedOnHistory,
    /// After a doubt, nothing more is sent under the same claim.
    SilentAfterDoubt,
    /// Recorded time increases with every commit of a partition.
    RecordedTime,
    /// An event occurred when its client said, or otherwise not later than it was recorded; and
    /// rules know which of the two it is.
    BusinessTime,
    /// A recorded time is never ahead of the true time of recording, unless the log was ahead
    /// before.
    TimesAreTrue,
    /// The commands of one batch for one stream are decided in the order of their lines.
    BatchOrder,
    /// Every reader finds the same accepted history.
    ReadersAgree,
    /// A projection's rows are the fold of the log at its checkpoint.
    RowsAreTheFold,
    /// No reader finds damage in a log that lost nothing.
    NoFalseAlarm,
    /// Everybody who had read records that were cut off notices the cut.
    CutIsNoticed,
    /// Once the faults end, every command is answered and every partition is owned, within the time
    /// limit.
    MovesAgain,
    /// Every queue keeps its limit.
    Bounded,
    /// A command on which the rules fail leaves nothing in the log. It freezes no stream but its
    /// own, and this only on a program whose rules fail.
    FailuresStayAlone,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub invariant: Invariant,
    /// The virtual time, in microseconds.
    pub at_us: u64,
    /// The details.
    pub what: String,
}

impl Invariant {
    /// The promise, as a sentence.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::AnsweredIsThere => "what was answered stands in the log as it was answered",
            Self::RefusedLeftNothing => "what was refused for good or turned away left nothing",
            Self::AtMostOnce => "a command leads to at most one commit",
            Self::Asked => "nothing is in the log that nobody asked for",
            Self::Versions => "versions are 1 to n, and a command's events are all or none",
            Self::Readable => "what counts can be read by every reader",
            Self::DecidedOnHistory => "a commit was decided on exactly the history before it",
            Self::SilentAfterDoubt => "after a doubt nothing more is sent under that claim",
            Self::RecordedTime => "recorded time increases with every commit of a partition",
            Self::BusinessTime => "an event happened when the client says, if it says so",
            Self::TimesAreTrue => "recorded time is not ahead of the true one",
            Self::BatchOrder => "a batch's commands for one stream are decided in their order",
            Self::ReadersAgree => "every reader finds the same accepted history",
            Self::RowsAreTheFold => "rows are the fold of the log at their checkpoint",
            Self::NoFalseAlarm => "nobody meets damage in a log that lost nothing",
            Self::CutIsNoticed => "whoever had read what was cut off notices",
            Self::MovesAgain => "once the faults end everything moves again within 10 s",
            Self::Bounded => "every queue keeps its bound",
            Self::FailuresStayAlone => {
                "what the rules fail over leaves nothing, and hurts no other stream"
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.at_us / 1_000;
        let (seconds, ms) = (ms / 1_000, ms % 1_000);
        write!(f, "{seconds}.{ms:03} s: broken: ")?;
        write!(f, "{}: {}", self.invariant.sentence(), self.what)
    }
}
