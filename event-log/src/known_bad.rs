//! Changes that break the protocol, for proving that its checkers notice them: each is one that
//! protocol.md ("What checking it taught") says must be caught, or that an issue asks for.
//!
//! Invariant: without the cargo feature `known-bad` none can be turned on, and every site that asks
//! is `false` when it is compiled. Deliberately absent: changes outside the engine.

/// A change that breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KnownBad {
    /// The owner answers when it hands the record over.
    AnswersBeforeAcknowledgement,
    /// The owner answers on an acknowledgement, wherever the record landed.
    AnswersOnAcknowledgement,
    /// The owner answers on an acknowledgement right behind the last verified offset, although the
    /// record is not its oldest.
    AnswersNotTheOldest,
    /// The owner calls its record an orphan because something stands before it, without folding.
    CallsOrphanByGap,
    /// After a doubt the owner looks once at the log's end instead of claiming again.
    LooksOnceAfterDoubt,
    /// The owner claims and appends whatever its clock says.
    AppendsByAnyClock,
    /// The owner begins with an empty table of command ids.
    ForgetsIdsAtTakeOver,
    /// The owner forgets command ids before their window is over.
    ForgetsIdsEarly,
    /// The owner begins without having folded what stands right before its claim.
    FoldsToBeforeOwnClaim,
    /// The owner believes that it owns because the current term is its own.
    OwnsByTermAlone,
    /// The owner takes whatever counts under its headers for its own record, whatever value it has.
    KnowsOwnByHeaders,
    /// What had no room in the log's client is sent once there is, whatever became of the claim.
    SendsAfterDoubt,
    /// A seat believes what it heard of who owns, whatever the log says.
    BelievesHints,
    /// The owner goes on deciding between a piece of the log that ended behind another's claim and
    /// the rest, under that claim.
    DecidesBehindAnothersClaim,
    /// The owner appends what it has not read again as readers will.
    AppendsUnread,
    /// The owner gives commits that are recorded in the same microsecond the same time.
    RepeatsRecordedTime,
    /// The owner records the clock's business time as if the client had sent it.
    RecordsDefaultAsGiven,
    /// The owner takes the recorded time for the business time of its own commits.
    FoldsAtRecordedTime,
    /// The owner refuses from memory, without asking the log.
    RefusesFromMemory,
    /// The owner never proves that the log it reads on is the one it knows.
    NeverProves,
    /// The owner trusts what was acknowledged to it while leaders changed, and never reads it.
    TrustsAcrossLeaders,
    /// Readers check neither a commit's previous hash nor its position.
    ChecksNoLink,
    /// Readers check a commit's position but not its previous hash. This alone breaks nothing.
    ChecksNoPrevious,
    /// Readers check a commit's previous hash but not its position. This alone breaks nothing.
    ChecksNoPosition,
    /// The owner appends what its rules fail over, and tries it out only behind that.
    AppendsUntried,
    /// The owner stops where its rules fail over a record, as if the log were damaged.
    StopsWhereRulesFail,
    /// A follower proves when it starts, and never again.
    ProvesOnResumeOnly,
    /// A follower's checkpoint names the last record that counted, not the last that was read.
    ProvesLastAcceptedOnly,
    /// A follower hands out a batch before the proof that is due.
    MovesBeforeProof,
}

impl KnownBad {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::AnswersBeforeAcknowledgement,
        Self::AnswersOnAcknowledgement,
        Self::AnswersNotTheOldest,
        Self::CallsOrphanByGap,
        Self::LooksOnceAfterDoubt,
        Self::AppendsByAnyClock,
        Self::ForgetsIdsAtTakeOver,
        Self::ForgetsIdsEarly,
        Self::FoldsToBeforeOwnClaim,
        Self::OwnsByTermAlone,
        Self::KnowsOwnByHeaders,
        Self::SendsAfterDoubt,
        Self::BelievesHints,
        Self::DecidesBehindAnothersClaim,
        Self::AppendsUnread,
        Self::RepeatsRecordedTime,
        Self::RecordsDefaultAsGiven,
        Self::FoldsAtRecordedTime,
        Self::RefusesFromMemory,
        Self::NeverProves,
        Self::TrustsAcrossLeaders,
        Self::ChecksNoLink,
        Self::ChecksNoPrevious,
        Self::ChecksNoPosition,
        Self::AppendsUntried,
        Self::StopsWhereRulesFail,
        Self::ProvesOnResumeOnly,
        Self::ProvesLastAcceptedOnly,
        Self::MovesBeforeProof,
    ];
}

/// Which change is on: none, unless the feature is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaw {
    #[cfg(feature = "known-bad")]
    on: Option<KnownBad>,
}

#[cfg(feature = "known-bad")]
impl From<KnownBad> for Flaw {
    fn from(bad: KnownBad) -> Self {
        Self { on: Some(bad) }
    }
}

impl Flaw {
    /// Whether `bad` is on.
    #[cfg(feature = "known-bad")]
    #[must_use]
    pub const fn is(self, bad: KnownBad) -> bool {
        match self.on {
            Some(on) => on as u8 == bad as u8,
            None => false,
        }
    }

    /// Whether a change is on: never, without the feature.
    #[cfg(not(feature = "known-bad"))]
    #[must_use]
    pub const fn is(self, _: KnownBad) -> bool {
        false
    }
}
