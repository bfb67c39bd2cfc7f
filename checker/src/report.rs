//! What a check found: counts, and each broken promise by name with its evidence.
//!
//! Invariant: the names of violations are frozen; scripts and tests branch on them. The number of
//! violations that are kept is bounded, the number that is counted is not.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

/// Violations of one kind that are kept whole; the rest is counted. One fault that breaks thousands
/// of promises must not hide another.
pub const VIOLATIONS_PER_KIND_MAX: u64 = 100;

macro_rules! kinds {
    ($($(#[doc = $meaning:literal])+ $kind:ident = $name:literal,)+) => {
        /// The promises that can be broken.
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
    /// The log says something else of a command than its answer did.
    AnswerContradicted = "answer_contradicted",
    /// Two answers to one command differ.
    AnswersDiffer = "answers_differ",
    /// A commit holds only a part of the events that were answered.
    Torn = "torn",
    /// One command id has more than one commit within the idempotency window.
    Doubled = "doubled",
    /// A command that was only answered refused or failed for good left events.
    GhostEvent = "ghost_event",
    /// A command that was always answered *not attempted* stands in the log.
    AttemptedAlthoughTurnedAway = "attempted_although_turned_away",
    /// A commit of a command that no client ever sent, in a history declared complete.
    Invented = "invented",
    /// A commit whose command is not what its client sent.
    DataChanged = "data_changed",
    /// A commit does not follow from the version of its stream before it.
    Gap = "gap",
    /// A stream's commits stand in more than one partition.
    StreamInTwoPartitions = "stream_in_two_partitions",
    /// A command was judged although the version it expected was not the stream's.
    ExpectedVersionIgnored = "expected_version_ignored",
    /// A refusal for a stale version, against the versions that the history has.
    StaleRefusalContradicted = "stale_refusal_contradicted",
    /// A command was decided before one that had been answered before it was sent.
    OutOfOrder = "out_of_order",
    /// Lines of one stream in one batch were not decided in their order.
    BatchOutOfOrder = "batch_out_of_order",
    /// A line of a batch was attempted although an earlier one of its stream had no answer.
    BehindUnanswered = "behind_unanswered",
    /// A commit is not what the rules decide on the accepted history before it.
    RuleBroken = "rule_broken",
    /// Recorded time did not increase within a partition; expected in a history that is not declared
    /// complete, since programs of before let it stand still.
    RecordedAtNotIncreasing = "recorded_at_not_increasing",
    /// An event happened at another time than the client gave, or, where it gave none, after it was
    /// recorded.
    BusinessTimeChanged = "business_time_changed",
    /// A place in the log that stops a reader.
    Damage = "damage",
    /// A partition that belongs to another log than the first one.
    OtherLog = "other_log",
    /// A record format that the checker does not know: nothing behind it was judged.
    NewerFormat = "newer_format",
    /// An answer to a command that its client did not send: the history itself is wrong.
    AnswerWithoutInvoke = "answer_without_invoke",
}

impl Kind {
    /// Whether acknowledged records that the log's store has lost look like this.
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
    /// Whether programs of before left it in logs, and no reader minds.
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

/// Where something can be looked at.
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
    /// Which.
    pub kind: Kind,
    /// What happened, in words.
    pub detail: String,
    /// The stream (`tenant/stream`), where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The command's id, where it is about one.
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

/// What became of the commands whose last word was *unknown*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unknowns {
    /// They stand in the log as accepted.
    pub accepted: u64,
    /// They stand in the log as refused.
    pub refused: u64,
    /// They do not stand in the log.
    pub absent: u64,
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Different command ids.
    pub commands: u64,
    /// Times that one of them was sent.
    pub attempts: u64,
    /// Attempts by their answer; `unanswered` have none in the history.
    pub answers: BTreeMap<&'static str, u64>,
    /// Commands by what the clients know in the end.
    pub known_as: BTreeMap<&'static str, u64>,
    /// What the log says of commands whose last word was *unknown*.
    pub unknown_resolved: Unknowns,
    /// Lines of histories that were cut off.
    pub torn_lines: u64,
    /// Partitions of the log.
    pub partitions: u32,
    /// Records of the log, all of them.
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
    /// What was looked at.
    pub summary: Summary,
    /// Broken promises by name, all of them counted.
    pub counts: BTreeMap<&'static str, u64>,
    /// What was found but had been declared to be expected, by name.
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
