//! The faults of the simulated world, by name.
//!
//! Deliberately absent: what each one does (`nemesis`).

use super::world::World;

/// A fault that may be injected.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub(super) kind: Kind,
    pub(super) inject: Inject,
    /// Its name in tables and traces.
    pub name: &'static str,
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

/// Injects a fault into a part of the world that is drawn.
type Inject = fn(&mut World, Fault);

const NODE: Inject = World::inject_into_node;
const LOG: Inject = World::inject_into_log;
const GROUP: Inject = World::inject_into_group;
const NET: Inject = World::inject_into_net;
const WORLD: Inject = World::inject_into_world;

const fn fault(kind: Kind, inject: Inject, name: &'static str) -> Fault {
    Fault { kind, inject, name }
}

/// All faults.
pub const FAULTS: [Fault; 33] = [
    fault(Kind::Crash, NODE, "crash"),
    fault(Kind::CrashWithLoss, NODE, "crash, store lost"),
    fault(Kind::Pause, NODE, "pause"),
    fault(Kind::PlannedStop, NODE, "planned stop"),
    fault(Kind::SmallClockJump, NODE, "clock jump < 1 min"),
    fault(Kind::LargeClockJump, NODE, "clock jump > 1 min"),
    fault(Kind::Suspension, NODE, "suspended machine"),
    fault(Kind::Night, WORLD, "all suspended"),
    fault(Kind::ProducerFails, NODE, "producer fails"),
    fault(Kind::StoreAway, NODE, "store away"),
    fault(Kind::HeldAppends, NODE, "appends held up"),
    fault(Kind::SlowAcknowledgements, LOG, "slow acknowledgements"),
    fault(Kind::NoOffsets, LOG, "no offsets"),
    fault(Kind::DuplicateRecord, LOG, "duplicate record"),
    fault(Kind::QueueFull, NODE, "queue full"),
    fault(Kind::SlowLog, LOG, "slow log"),
    fault(Kind::LogAway, LOG, "log away"),
    fault(Kind::ForeignRecord, LOG, "foreign record"),
    fault(Kind::Imitation, LOG, "imitated record"),
    fault(Kind::SkippedOffset, LOG, "skipped offset"),
    fault(Kind::LeaderChange, LOG, "leader change"),
    fault(Kind::Churn, GROUP, "assignment churn"),
    fault(Kind::Nobody, GROUP, "assigned to nobody"),
    fault(Kind::TwoBelieve, GROUP, "two believe"),
    fault(Kind::WrongHint, GROUP, "wrong hint"),
    fault(Kind::LinkCut, NET, "link cut"),
    fault(Kind::OneWayPartition, NET, "one-way partition"),
    fault(Kind::SlowNetwork, NET, "slow network"),
    fault(Kind::StrayHandOver, NET, "stray hand-over"),
    fault(Kind::StrayTakeOver, NET, "stray take-over"),
    fault(Kind::Disconnect, WORLD, "client disconnected"),
    fault(Kind::ProjectorCrash, WORLD, "projector crash"),
    fault(Kind::LockLost, WORLD, "projector lock lost"),
];
