//! Changes that break the protocol on purpose, to prove that the checkers of the protocol notice
//! them. protocol.md ("What checking it taught") or an issue says of each that it must be caught.
//!
//! Invariant: without the cargo feature `known-bad` no change can be turned on, and every query for
//! one is compiled to `false`. Deliberately absent: changes outside the engine.

use serde::Deserialize;

/// A change that breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum KnownBad {
    /// The owner answers when it hands the record to the log.
    AnswersBeforeAcknowledgement,
    /// The owner answers on an acknowledgement, at whatever offset the record landed.
    AnswersOnAcknowledgement,
    /// The owner answers on an acknowledgement at the offset right after the last verified one,
    /// although the record is not the oldest in flight.
    AnswersNotTheOldest,
    /// The owner calls its record an orphan without folding the record that stands before it.
    CallsOrphanByGap,
    /// After a doubt, the owner looks once at the log's end instead of claiming again.
    LooksOnceAfterDoubt,
    /// The owner claims and appends whatever its clock shows.
    AppendsByAnyClock,
    /// The owner starts with an empty table of command ids.
    ForgetsIdsAtTakeOver,
    /// The owner forgets command ids before their window is over.
    ForgetsIdsEarly,
    /// The owner starts without having folded the records right before its claim.
    FoldsToBeforeOwnClaim,
    /// The owner assumes that it owns because the current term is its own.
    OwnsByTermAlone,
    /// The owner takes any record that counts under its headers for its own, whatever the value is.
    KnowsOwnByHeaders,
    /// A record that found no room in the log's client is sent later, whatever became of the claim.
    SendsAfterDoubt,
    /// A seat believes the hints about the owner, whatever the log says.
    BelievesHints,
    /// The owner folds a piece of the log that ends after another writer's claim, and goes on
    /// deciding before it folds the rest. It then commits in that writer's name.
    DecidesBehindAnothersClaim,
    /// The owner appends commits without reading them back as readers will.
    AppendsUnread,
    /// The owner gives two commits that are recorded in the same microsecond the same time.
    RepeatsRecordedTime,
    /// The owner records the clock's business time as if the client had sent it.
    RecordsDefaultAsGiven,
    /// The owner uses the recorded time as the business time of its own commits.
    FoldsAtRecordedTime,
    /// The owner refuses commands from memory, without asking the log.
    RefusesFromMemory,
    /// The owner never proves that the log it continues is the log it knows.
    NeverProves,
    /// The owner trusts acknowledgements across a change of leader, and never reads those records.
    TrustsAcrossLeaders,
    /// Readers check neither a commit's previous hash nor its position.
    ChecksNoLink,
    /// Readers check a commit's position but not its previous hash. This alone breaks nothing.
    ChecksNoPrevious,
    /// Readers check a commit's previous hash but not its position. This alone breaks nothing.
    ChecksNoPosition,
    /// The owner appends commits that its rules fail on, and tries the rules only afterwards.
    AppendsUntried,
    /// The owner stops at a record that its rules fail on, as if the log were damaged.
    StopsWhereRulesFail,
    /// A follower proves at its start only.
    ProvesOnResumeOnly,
    /// A follower's checkpoint names the last accepted record instead of the last record read.
    ProvesLastAcceptedOnly,
    /// A follower hands out a batch before the due proof.
    MovesBeforeProof,
}

/// Which change is on. Without the feature: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flaw(Option<KnownBad>);

#[cfg(feature = "known-bad")]
impl From<KnownBad> for Flaw {
    fn from(bad: KnownBad) -> Self {
        Self(Some(bad))
    }
}

impl Flaw {
    /// Whether `bad` is on.
    #[must_use]
    pub fn is(self, bad: KnownBad) -> bool {
        cfg!(feature = "known-bad") && self.0 == Some(bad)
    }
}
