//! What a seat's driver is given, what it is asked, and what it shows.
//!
//! Deliberately absent: what is done with it (`driver`).

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

/// What a seat's task is asked by other nodes, apart from commands.
pub(crate) enum Control {
    /// Hand the partition over; the reply says whether this node owned it.
    HandOver {
        successor: Hint,
        reply: oneshot::Sender<bool>,
    },
    /// Take the partition over, whoever should own it; the reply comes when this node owns.
    TakeOver { reply: oneshot::Sender<()> },
}

/// What a seat shows to others.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) not_owning: Option<NotOwning>,
    pub(crate) log: Option<LogId>,
    pub(crate) position: Position,
    /// The term under which this node owns, if it does.
    pub(crate) term: Option<Term>,
    /// Who owns elsewhere, as far as this node knows.
    pub(crate) elsewhere: Option<Hint>,
}

/// What comes for a seat from the log and from other nodes.
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
    /// What keeps this node from owning what it should.
    pub(crate) unfit: watch::Sender<Unfit>,
    /// Whether there may be other nodes.
    pub(crate) in_group: bool,
    /// What this node's clock is held against.
    pub(crate) log_clock: LogClock,
    /// Against which monotonic times are counted.
    pub(crate) started: Instant,
}

/// Where commands come from, and where is shown what came of them.
pub(crate) struct Queues {
    pub(crate) commands: Arc<OwnCommands>,
    pub(crate) from_peers: Arc<ForwardedCommands>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) status: watch::Sender<Status>,
}
