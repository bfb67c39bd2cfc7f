//! The faults of the simulated world, by name.
//!
//! Deliberately absent: what each one does (`nemesis`).

/// A fault that may be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node dies and comes back with its local store.
    Crash,
    /// A node dies and comes back without its local store, or without its last save.
    CrashWithLoss,
    /// A node stands still while its events queue up.
    Pause,
    /// A node hands its partitions over, leaves, and comes back.
    PlannedStop,
    /// A node's clock is set forward or back by less than a minute.
    SmallClockJump,
    /// A node's clock is set forward or back by more than a minute.
    LargeClockJump,
    /// A node's machine is suspended: of its clocks, only the monotonic one that measures timeouts
    /// stands still.
    Suspension,
    /// All machines are suspended together, for minutes or days.
    Night,
    /// A producer fails: the records that it held are lost, or land late.
    ProducerFails,
    /// A node's local store can neither be read nor written.
    StoreAway,
    /// A node's appends are held up on their way, and land late.
    HeldAppends,
    /// Acknowledgements are held back.
    SlowAcknowledgements,
    /// Acknowledgements come without offsets.
    NoOffsets,
    /// A record lands twice.
    DuplicateRecord,
    /// The queue of the Kafka client library is full.
    QueueFull,
    /// The log takes appends late.
    SlowLog,
    /// The log cannot be read.
    LogAway,
    /// A stranger writes into the topic.
    ForeignRecord,
    /// A stranger writes a record with the headers of an owner's record and another value, and it
    /// lands before the owner's.
    Imitation,
    /// An offset has no record.
    SkippedOffset,
    /// A partition gets another leader.
    LeaderChange,
    /// The group assigns the partitions anew.
    Churn,
    /// The group assigns a partition to nobody for a while.
    Nobody,
    /// The group lets two nodes believe that they should own a partition.
    TwoBelieve,
    /// The directory loses a hint, repeats an outdated one, or states a false one.
    WrongHint,
    /// A link between two nodes is cut: requests, answers or both.
    LinkCut,
    /// For a while, nothing passes from one node to another.
    OneWayPartition,
    /// Everything between nodes is slow.
    SlowNetwork,
    /// A node is asked to hand over although no other node should own.
    StrayHandOver,
    /// A node is asked to take over although another should own.
    StrayTakeOver,
    /// A client's connection is lost.
    Disconnect,
    /// A projector dies.
    ProjectorCrash,
    /// Two projectors work on the same partitions.
    LockLost,
}

/// All faults.
pub const FAULTS: [Fault; 33] = [
    Fault::Crash,
    Fault::CrashWithLoss,
    Fault::Pause,
    Fault::PlannedStop,
    Fault::SmallClockJump,
    Fault::LargeClockJump,
    Fault::Suspension,
    Fault::Night,
    Fault::ProducerFails,
    Fault::StoreAway,
    Fault::HeldAppends,
    Fault::SlowAcknowledgements,
    Fault::NoOffsets,
    Fault::DuplicateRecord,
    Fault::QueueFull,
    Fault::SlowLog,
    Fault::LogAway,
    Fault::ForeignRecord,
    Fault::Imitation,
    Fault::SkippedOffset,
    Fault::LeaderChange,
    Fault::Churn,
    Fault::Nobody,
    Fault::TwoBelieve,
    Fault::WrongHint,
    Fault::LinkCut,
    Fault::OneWayPartition,
    Fault::SlowNetwork,
    Fault::StrayHandOver,
    Fault::StrayTakeOver,
    Fault::Disconnect,
    Fault::ProjectorCrash,
    Fault::LockLost,
];

impl Fault {
    /// Its name in tables and traces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::CrashWithLoss => "crash, store lost",
            Self::Pause => "pause",
            Self::PlannedStop => "planned stop",
            Self::SmallClockJump => "clock jump < 1 min",
            Self::LargeClockJump => "clock jump > 1 min",
            Self::Suspension => "suspended machine",
            Self::Night => "all suspended",
            Self::ProducerFails => "producer fails",
            Self::StoreAway => "store away",
            Self::HeldAppends => "appends held up",
            Self::SlowAcknowledgements => "slow acknowledgements",
            Self::NoOffsets => "no offsets",
            Self::DuplicateRecord => "duplicate record",
            Self::QueueFull => "queue full",
            Self::SlowLog => "slow log",
            Self::LogAway => "log away",
            Self::ForeignRecord => "foreign record",
            Self::Imitation => "imitated record",
            Self::SkippedOffset => "skipped offset",
            Self::LeaderChange => "leader change",
            Self::Churn => "assignment churn",
            Self::Nobody => "assigned to nobody",
            Self::TwoBelieve => "two believe",
            Self::WrongHint => "wrong hint",
            Self::LinkCut => "link cut",
            Self::OneWayPartition => "one-way partition",
            Self::SlowNetwork => "slow network",
            Self::StrayHandOver => "stray hand-over",
            Self::StrayTakeOver => "stray take-over",
            Self::Disconnect => "client disconnected",
            Self::ProjectorCrash => "projector crash",
            Self::LockLost => "projector lock lost",
        }
    }
}
