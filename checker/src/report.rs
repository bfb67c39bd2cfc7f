//! The result of a check: counts, and each broken promise by name, with its evidence.
//!
//! Invariant: the names of violations are frozen, because scripts and tests branch on them. The
//! number of stored violations is bounded; every violation is counted.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

/// How many violations of one kind are stored; further ones are only counted. A fault that breaks
/// thousands of promises must not hide another fault.
pub const VIOLATIONS_PER_KIND_MAX: u64 = 100;

macro_rules! kinds {
    ($($(#[doc = $meaning:literal])+ $kind:ident = $name:literal,)+) => {
        /// The promises that can be broken; one kind of violation for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[doc = $meaning])+ $kind,)+
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Its frozen name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// A command was answered accepted, and the log has no commit of it.
    Lost = "lost",
    /// A command was answered refused, and the log has no commit of it.
    LostRefusal = "lost_refusal",
    /// The log and an answer say different things of a command.
    AnswerContradicted = "answer_contradicted",
    /// Two answers to one command differ.
    AnswersDiffer = "answers_differ",
    /// A commit holds only a part of the events that the answer named.
    Torn = "torn",
    /// One command id has more than one commit within the idempotency window.
    Doubled = "doubled",
    /// A command left events although it was only answered refused or failed for good.
    GhostEvent = "ghost_event",
    /// A command is in the log although it was always answered *not attempted*.
    AttemptedAlthoughTurnedAway = "attempted_although_turned_away",
    /// A commit whose command no client sent, in a history declared complete.
    Invented = "invented",
    /// A commit whose command differs from what its client sent.
    DataChanged = "data_changed",
    /// A commit does not continue its stream at the version that the stream has.
    Gap = "gap",
    /// A stream has commits in more than one partition.
    StreamInTwoPartitions = "stream_in_two_partitions",
    /// A command was decided although the stream did not have the version that it expected.
    ExpectedVersionIgnored = "expected_version_ignored",
    /// A refusal for a stale version contradicts the stream's version in the history.
    StaleRefusalContradicted = "stale_refusal_contradicted",
    /// A command was decided before another one whose answer had arrived before it was sent.
    OutOfOrder = "out_of_order",
    /// Lines of one stream in one batch were not decided in their order.
    BatchOutOfOrder = "batch_out_of_order",
    /// A line of a batch was attempted although an earlier line of its stream had no answer.
    BehindUnanswered = "behind_unanswered",
    /// A commit differs from what the rules decide on the accepted history before it.
    RuleBroken = "rule_broken",
    /// Recorded time did not increase within a partition. Expected in a history that is not
    /// declared complete: older programs let recorded time stand still.
    RecordedAtNotIncreasing = "recorded_at_not_increasing",
    /// An event has another time than the client gave, or, if the client gave none, a time after it
    /// was recorded.
    BusinessTimeChanged = "business_time_changed",
    /// A place in the log that stops a reader.
    Damage = "damage",
    /// A partition belongs to another log than the first partition.
    OtherLog = "other_log",
    /// A record format that the checker does not know: nothing after it was judged.
    NewerFormat = "newer_format",
    /// An answer to a command that its client did not send: the history itself is wrong.
    AnswerWithoutInvoke = "answer_without_invoke",
}

impl Kind {
    /// Whether a loss of acknowledged records by the log's store can lead to this violation.
    #[must_use]
    pub fn follows_from_loss(self) -> bool {
        match self {
            Self::Lost
            | Self::LostRefusal
            | Self::AnswerContradicted
            | Self::AnswersDiffer
            | Self::Damage => true,
            Self::Torn
            | Self::Doubled
            | Self::GhostEvent
            | Self::AttemptedAlthoughTurnedAway
            | Self::Invented
            | Self::DataChanged
            | Self::Gap
            | Self::StreamInTwoPartitions
            | Self::ExpectedVersionIgnored
            | Self::StaleRefusalContradicted
            | Self::OutOfOrder
            | Self::BatchOutOfOrder
            | Self::BehindUnanswered
            | Self::RuleBroken
            | Self::RecordedAtNotIncreasing
            | Self::BusinessTimeChanged
            | Self::OtherLog
            | Self::NewerFormat
            | Self::AnswerWithoutInvoke => false,
        }
    }
}

impl Kind {
    /// Whether older programs left this in logs, where no reader rejects it.
    #[must_use]
    pub fn may_be_of_before(self) -> bool {
        self == Self::RecordedAtNotIncreasing
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A place to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Evidence {
    /// A line of a history.
    History {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
    },
    /// A record of the log.
    Log {
        /// The partition.
        partition: u32,
        /// The offset.
        offset: u64,
    },
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::History { file, line } => write!(f, "{file}:{line}"),
            Self::Log { partition, offset } => write!(f, "partition {partition} offset {offset}"),
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// What happened, in words.
    pub detail: String,
    /// The stream (`tenant/stream`), if the violation is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The command's id, if the violation is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where to look.
    pub evidence: Vec<Evidence>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind.name())?;
        match (&self.stream, &self.id) {
            (Some(stream), Some(id)) => write!(f, "{stream} command {id}: ")?,
            (Some(stream), None) => write!(f, "{stream}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.detail)?;
        let places: Vec<String> = self.evidence.iter().map(ToString::to_string).collect();
        if places.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", places.join(", "))
    }
}

/// What the log says of the commands whose outcome stayed *unknown* to their clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unknowns {
    /// In the log as accepted.
    pub accepted: u64,
    /// In the log as refused.
    pub refused: u64,
    /// Not in the log.
    pub absent: u64,
}

/// What was examined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Different command ids.
    pub commands: u64,
    /// How often commands were sent, in total.
    pub attempts: u64,
    /// Attempts by their answer; for `unanswered`, the history has no answer.
    pub answers: BTreeMap<&'static str, u64>,
    /// Commands by what their clients know at the end.
    pub known_as: BTreeMap<&'static str, u64>,
    /// What the log says of the commands whose outcome stayed *unknown* to their clients.
    pub unknown_resolved: Unknowns,
    /// Lines of histories that were cut off.
    pub torn_lines: u64,
    /// Partitions of the log.
    pub partitions: u32,
    /// All records of the log.
    pub records: u64,
    /// Claims that count.
    pub claims: u64,
    /// Accepted commits that count.
    pub accepted: u64,
    /// Recorded refusals that count.
    pub refused: u64,
    /// Events of accepted commits.
    pub events: u64,
    /// Streams with commits that count.
    pub streams: u64,
    /// Records that do not count, by reason.
    pub orphans: BTreeMap<&'static str, u64>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was examined.
    pub summary: Summary,
    /// How many broken promises there are, by name; all are counted.
    pub counts: BTreeMap<&'static str, u64>,
    /// Findings that the options declare to be expected, counted by name.
    pub expected: BTreeMap<&'static str, u64>,
    /// The first broken promises of each name, with their evidence.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Whether every promise held.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|k| k.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn a_violation_says_whose_and_where() {
        let violation = Violation {
            kind: Kind::Lost,
            detail: "gone".into(),
            stream: Some("main/s-1".into()),
            id: Some("x".into()),
            evidence: vec![
                Evidence::History {
                    file: "c1.jsonl".into(),
                    line: 7,
                },
                Evidence::Log {
                    partition: 1,
                    offset: 12,
                },
            ],
        };
        let text = "lost: main/s-1 command x: gone (c1.jsonl:7, partition 1 offset 12)";
        assert_eq!(violation.to_string(), text);
    }
}
