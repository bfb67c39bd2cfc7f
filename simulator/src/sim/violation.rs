//! What must never happen, by name.
//!
//! Invariant: one variant for each promise; a violation says which promise was broken, when and how.

use std::fmt;

/// A promise of the engine (issue and protocol.md) that a run may find broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// What was answered accepted or refused stands in the log, as it was answered, for ever.
    AnsweredIsThere,
    /// What was refused for good or turned away left nothing.
    RefusedLeftNothing,
    /// A command, by its id and by its intent, leads to at most one commit.
    AtMostOnce,
    /// Nothing is in the log that nobody asked for.
    Asked,
    /// A stream's versions are 1 to n without gaps, and a command's events are all or none.
    Versions,
    /// What counts can be read by every reader.
    Readable,
    /// Each accepted commit was decided on exactly the accepted history before it.
    DecidedOnHistory,
    /// Recorded time increases with every commit of a partition.
    RecordedTime,
    /// An event happened when the client says, or else not after it was recorded; and rules know which.
    BusinessTime,
    /// Commands of one stream from one batch are decided in the order of their lines.
    BatchOrder,
    /// Every reader finds the same accepted history.
    ReadersAgree,
    /// Rows are the fold of the log at their checkpoint.
    RowsAreTheFold,
    /// Nobody meets damage in a log that lost nothing.
    NoFalseAlarm,
    /// Whoever had read what was cut off notices.
    CutIsNoticed,
    /// Once the faults end, every command is answered and every partition owned in time.
    MovesAgain,
    /// Every queue keeps its bound.
    Bounded,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// When, in microseconds of virtual time.
    pub at_us: u64,
    /// How.
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
            Self::RecordedTime => "recorded time increases with every commit of a partition",
            Self::BusinessTime => "an event happened when the client says, if it says so",
            Self::BatchOrder => "a batch's commands for one stream are decided in their order",
            Self::ReadersAgree => "every reader finds the same accepted history",
            Self::RowsAreTheFold => "rows are the fold of the log at their checkpoint",
            Self::NoFalseAlarm => "nobody meets damage in a log that lost nothing",
            Self::CutIsNoticed => "whoever had read what was cut off notices",
            Self::MovesAgain => "once the faults end everything moves again within 10 s",
            Self::Bounded => "every queue keeps its bound",
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
