//! What the seats of a node share, the queues of a seat, and the state that a seat publishes.
//!
//! Deliberately absent: what the seat does with these (`effects`).

use std::sync::Arc;
use std::time::Instant;

use event_log::directory::{Directory, Hint};
use event_log::log::{Appender, EventLog};
use position::{LogId, Position, Term};
use tokio::sync::{Notify, watch};

use super::queue::{ForwardedCommands, OwnCommands, Questions, Queue};
use super::turns::Turns;
use super::unfit::Unfit;
use super::work::NodeSeat;
use crate::clock::LogClock;
use crate::owner::NotOwning;
use crate::peers::Peers;

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

impl Status {
    pub(super) fn of(seat: &NodeSeat) -> Self {
        let chain = seat.owner().chain();
        let not_owning = seat.not_owning();
        Self {
            log: chain.log,
            position: chain.position,
            term: seat.owner().held_term().filter(|_| not_owning.is_none()),
            elsewhere: seat.target().cloned(),
            not_owning,
        }
    }
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

/// What waits for a seat.
pub(crate) struct Queues {
    pub(crate) commands: Arc<OwnCommands>,
    pub(crate) from_peers: Arc<ForwardedCommands>,
    pub(crate) questions: Questions,
    pub(crate) turns: Arc<Turns>,
    /// Wakes the seat's task.
    pub(crate) task: Arc<Notify>,
}

impl Queues {
    /// Queues with `queue_max` places for commands of clients, and as many for forwarded commands.
    pub(crate) fn new(queue_max: usize) -> Arc<Self> {
        let task = Arc::new(Notify::new());
        Arc::new(Self {
            commands: Queue::new(queue_max, Arc::clone(&task)),
            from_peers: Queue::new(queue_max, Arc::clone(&task)),
            questions: Questions::new(),
            turns: Arc::new(Turns::new(Instant::now())),
            task,
        })
    }

    /// Takes no more commands.
    pub(crate) fn close(&self) {
        self.commands.close();
        self.from_peers.close();
    }
}
