//! What a seat's driver is given, which requests reach it, and the state that it publishes.
//!
//! Deliberately absent: what the driver does with these (`driver`).

use std::sync::Arc;
use std::time::Instant;

use event_log::directory::{Directory, Hint};
use event_log::log::{AppendResult, Appender, Bounds, Chunk, EventLog, LogError};
use event_log::record::Record;
use position::{LogId, Offset, Position, Term};
use tokio::sync::{oneshot, watch};

use super::queue::{ForwardedCommands, OwnCommands, Questions};
use super::unfit::Unfit;
use crate::clock::LogClock;
use crate::owner::NotOwning;
use crate::peers::{LinkEvent, LinkId, Peers};

/// Requests of other nodes to a seat's task, apart from commands.
pub(crate) enum Control {
    /// Hand the partition over; the reply says whether this node owned it.
    HandOver {
        successor: Hint,
        reply: oneshot::Sender<bool>,
    },
    /// Take the partition over, whatever the group says; the reply comes when this node owns it.
    TakeOver { reply: oneshot::Sender<()> },
}

/// The state that a seat publishes.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) not_owning: Option<NotOwning>,
    pub(crate) log: Option<LogId>,
    pub(crate) position: Position,
    /// The term under which this node owns, if it does.
    pub(crate) term: Option<Term>,
    /// The owner elsewhere, as far as this node knows.
    pub(crate) elsewhere: Option<Hint>,
}

/// Inputs of a seat from the log and from other nodes.
pub(super) enum Input {
    Appended(u64, AppendResult),
    Read(Result<Chunk, LogError>),
    Proven(Offset, Result<(Offset, Option<Record>), LogError>),
    Peeked(Result<Bounds, LogError>),
    OwnerAnswered,
    Link(LinkId, LinkEvent),
}

/// What the tasks of all partitions share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) appender: Arc<dyn Appender>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) directory: Arc<dyn Directory>,
    /// What keeps this node from owning the partitions that it should own.
    pub(crate) unfit: watch::Sender<Unfit>,
    /// Whether there may be other nodes.
    pub(crate) in_group: bool,
    /// The reference with which this node's clock is compared.
    pub(crate) log_clock: LogClock,
    /// The moment from which monotonic times count.
    pub(crate) started: Instant,
}

/// The queues that commands come from, and the channel on which the seat publishes its state.
pub(crate) struct Queues {
    pub(crate) commands: Arc<OwnCommands>,
    pub(crate) from_peers: Arc<ForwardedCommands>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) status: watch::Sender<Status>,
}
