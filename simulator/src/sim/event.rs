//! The events of the simulated world, and their schedule.
//!
//! Invariant: events with the same time happen in the order in which they were scheduled.

use std::collections::BTreeMap;

use engine::command::{Answer, Request, SubmitError};
use engine::peers::LinkAnswer;
use engine::seat::{Control, Input};
use event_log::directory::Hint;
use event_log::log::{Appended, Chunk};
use event_log::record::Record;
use kernel::Timestamp;
use position::Offset;

pub enum Event {
    /// An event for a node's process, if that process still runs.
    Node {
        node: usize,
        incarnation: u32,
        event: NodeEvent,
    },
    /// The next records of a producer reach a partition.
    Land(usize, usize),
    Client {
        client: usize,
        event: ClientEvent,
    },
    /// An event for one life of a projector, if it still runs.
    Projector(usize, u32, ProjectorEvent),
    StartProjector(usize),
    Start(usize),
    Resume(usize),
    StoreBack(usize),
    /// The group notices that a node's process is gone or silent.
    Gone {
        node: usize,
        incarnation: u32,
    },
    /// The group learns that a node is up.
    Join {
        node: usize,
        incarnation: u32,
    },
    Share,
    Fault,
    Cut,
    Quiet,
    /// The promises that need time are checked.
    Probe,
}

pub enum NodeEvent {
    /// The brokers' answer to a probe: the boot time of its sending, and the brokers' time.
    Time(u64, Timestamp),
    Tick,
    Run(usize),
    /// The result of an append.
    Appended {
        partition: usize,
        sequence: u64,
        producer: usize,
        /// `None`: its fate is unknown.
        appended: Option<Appended>,
    },
    /// The log serves what a partition's task asked of it.
    ServeRead(usize, Offset),
    ServeLook(usize, Offset),
    ServePeek(usize),
    /// The log's answer reaches a partition's task.
    Input(usize, Input),
    /// A forwarded command arrives over a link.
    Forwarded {
        link: u64,
        /// The command's sequence on the link.
        sequence: u64,
        request: Box<Request>,
        /// How long its sender still waits, in microseconds.
        left_us: u64,
    },
    /// A forwarded command waited too long for a place in the queue.
    NoRoom(u64, u64),
    LinkClosed(u64),
    LinkAnswer(u64, u64, Box<LinkAnswer>),
    LinkBroken(u64),
    /// Another node asks this one to hand a partition over, or to take it over.
    Control(usize, Control<Ask>),
    /// A question to another node was answered, or its time is over.
    AskAnswered(u64),
    /// The group says whether the node should own a partition.
    Assign(usize, bool),
    /// The directory says who owns a partition.
    Hint(usize, Hint),
    Lines(u64, Vec<Line>),
    Disconnected(u64),
    /// The client that waited for a command is gone.
    Abandoned(u64),
    Deadline(u64),
    /// A line waited too long for a place in the queue.
    LineDeadline(u64, u64),
    /// The next step of the node's planned stop.
    Leave,
}

/// One process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub node: usize,
    pub incarnation: u32,
}

/// A question of one node's process to another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The node that asks.
    pub node: usize,
    pub incarnation: u32,
    pub number: u64,
}

#[derive(Clone, Debug)]
pub struct Line {
    /// Its number among all lines ever sent.
    pub number: u64,
    pub request: Request,
    /// How long the node may try, in microseconds.
    pub timeout_us: u64,
}

pub enum ClientEvent {
    Go,
    Answer(u64, u64, Box<Result<Answer, SubmitError>>),
    /// A connection was lost, or was never made.
    Lost(u64, Loss),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was refused: nothing was sent.
    Refused,
    /// It broke, or nothing came in time.
    Broken,
}

/// What a look for a proof in one partition found: the log's end, and the record; `None`: no log.
pub type Look = (usize, Option<(Offset, Option<Record>)>);

pub enum ProjectorEvent {
    Read,
    /// The result of its read.
    Took(Vec<Chunk>),
    /// The result of its looks for proofs.
    Looked(Vec<Look>),
    /// Its transaction commits in the database.
    Commit,
    /// It learns whether the transaction was committed.
    Committed(bool),
}

/// The scheduled events, in the order of their time.
#[derive(Default)]
pub struct Schedule {
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
}

impl Schedule {
    pub fn at(&mut self, at_us: u64, event: Event) {
        self.count += 1;
        self.events.insert((at_us, self.count), event);
    }

    /// Schedules an event for a node's process.
    pub fn tell(&mut self, at_us: u64, process: Process, event: NodeEvent) {
        let Process { node, incarnation } = process;
        let event = Event::Node {
            node,
            incarnation,
            event,
        };
        self.at(at_us, event);
    }

    /// The next event and its time.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        let ((at_us, _), event) = self.events.pop_first()?;
        Some((at_us, event))
    }
}
