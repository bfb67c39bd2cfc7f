//! The faults of the simulated world, by name.
//!
//! Deliberately absent: what each one does (`nemesis`).

/// A fault that may be injected.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub(super) kind: Kind,
    pub(super) target: Target,
    /// Its name in tables and traces.
    pub name: &'static str,
}

/// What a fault strikes: one of the nodes, the log in one of its partitions, and so on.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Node,
    Log,
    Group,
    Net,
    World,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
    SlowAcknowledgements,
    NoOffsets,
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
    SkippedOffset,
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
    SlowNetwork,
    /// A node is asked to hand over although no other node should own.
    StrayHandOver,
    /// A node is asked to take over although another should own.
    StrayTakeOver,
    Disconnect,
    ProjectorCrash,
    /// Two projectors work on the same partitions.
    LockLost,
}

const fn fault(kind: Kind, target: Target, name: &'static str) -> Fault {
    Fault { kind, target, name }
}

/// All faults.
pub const FAULTS: [Fault; 33] = [
    fault(Kind::Crash, Target::Node, "crash"),
    fault(Kind::CrashWithLoss, Target::Node, "crash, store lost"),
    fault(Kind::Pause, Target::Node, "pause"),
    fault(Kind::PlannedStop, Target::Node, "planned stop"),
    fault(Kind::SmallClockJump, Target::Node, "clock jump < 1 min"),
    fault(Kind::LargeClockJump, Target::Node, "clock jump > 1 min"),
    fault(Kind::Suspension, Target::Node, "suspended machine"),
    fault(Kind::Night, Target::World, "all suspended"),
    fault(Kind::ProducerFails, Target::Node, "producer fails"),
    fault(Kind::StoreAway, Target::Node, "store away"),
    fault(Kind::HeldAppends, Target::Node, "appends held up"),
    fault(
        Kind::SlowAcknowledgements,
        Target::Log,
        "slow acknowledgements",
    ),
    fault(Kind::NoOffsets, Target::Log, "no offsets"),
    fault(Kind::DuplicateRecord, Target::Log, "duplicate record"),
    fault(Kind::QueueFull, Target::Node, "queue full"),
    fault(Kind::SlowLog, Target::Log, "slow log"),
    fault(Kind::LogAway, Target::Log, "log away"),
    fault(Kind::ForeignRecord, Target::Log, "foreign record"),
    fault(Kind::Imitation, Target::Log, "imitated record"),
    fault(Kind::SkippedOffset, Target::Log, "skipped offset"),
    fault(Kind::LeaderChange, Target::Log, "leader change"),
    fault(Kind::Churn, Target::Group, "assignment churn"),
    fault(Kind::Nobody, Target::Group, "assigned to nobody"),
    fault(Kind::TwoBelieve, Target::Group, "two believe"),
    fault(Kind::WrongHint, Target::Group, "wrong hint"),
    fault(Kind::LinkCut, Target::Net, "link cut"),
    fault(Kind::OneWayPartition, Target::Net, "one-way partition"),
    fault(Kind::SlowNetwork, Target::Net, "slow network"),
    fault(Kind::StrayHandOver, Target::Net, "stray hand-over"),
    fault(Kind::StrayTakeOver, Target::Net, "stray take-over"),
    fault(Kind::Disconnect, Target::World, "client disconnected"),
    fault(Kind::ProjectorCrash, Target::World, "projector crash"),
    fault(Kind::LockLost, Target::World, "projector lock lost"),
];
