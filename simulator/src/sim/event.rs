//! What happens in the simulated world, and when.
//!
//! Invariant: events of one moment happen in the order in which they were put in.

use std::collections::BTreeMap;

use engine::command::{Answer, Request, SubmitError};
use engine::peers::LinkAnswer;
use event_log::directory::Hint;
use event_log::log::{Appended, Chunk};
use event_log::record::Record;
use kernel::Timestamp;
use position::Offset;

/// An event.
pub enum Event {
    /// Something reaches a node's process, if it still runs.
    Node {
        /// The node.
        node: usize,
        /// Which of its processes is meant.
        incarnation: u32,
        /// What.
        event: NodeEvent,
    },
    /// The next records of a producer reach the log.
    Land {
        /// The producer.
        producer: usize,
        /// The partition.
        partition: usize,
    },
    /// Something reaches a client.
    Client {
        /// The client.
        client: usize,
        /// What.
        event: ClientEvent,
    },
    /// Something reaches a projector, if it still runs.
    Projector {
        /// The projector.
        projector: usize,
        /// Which of its lives is meant.
        life: u32,
        /// What.
        event: ProjectorEvent,
    },
    /// A projector starts.
    StartProjector(usize),
    /// A node's process starts.
    Start(usize),
    /// A paused node goes on.
    Resume(usize),
    /// A node's local store works again.
    StoreBack(usize),
    /// The group notices that a node's process is gone or silent.
    Gone {
        /// The node.
        node: usize,
        /// Which of its processes.
        incarnation: u32,
    },
    /// The group learns that a node is there.
    Join {
        /// The node.
        node: usize,
        /// Which of its processes.
        incarnation: u32,
    },
    /// The group shares out the partitions.
    Share,
    /// The next fault is due.
    Fault,
    /// Records are cut off.
    Cut,
    /// The faults end.
    Quiet,
    /// The promises that need time are looked at.
    Probe,
}

/// What reaches a node.
pub enum NodeEvent {
    /// The brokers said what time it was, to a question of this moment.
    Time(u64, Timestamp),
    /// Its clock ticks.
    Tick,
    /// A partition's task goes on.
    Run(usize),
    /// An append came to something.
    Appended {
        /// The partition.
        partition: usize,
        /// The append.
        sequence: u64,
        /// Through which producer.
        producer: usize,
        /// What; absent: nobody knows.
        appended: Option<Appended>,
    },
    /// The log serves a read.
    ServeRead(usize, Offset),
    /// The log serves a look.
    ServeLook(usize, Offset),
    /// The log says where it ends.
    ServePeek(usize),
    /// A read came back.
    Read(usize, Option<Chunk>),
    /// A look came back.
    Looked(usize, Offset, Option<(Offset, Option<Record>)>),
    /// The log's end came back.
    Peeked(usize, Option<Offset>),
    /// A forwarded command arrives over a link.
    Forwarded {
        /// The link.
        link: u64,
        /// The command's number on it.
        sequence: u64,
        /// The command.
        request: Box<Request>,
        /// How long its sender still waits, in microseconds.
        left_us: u64,
    },
    /// A forwarded command waited too long for room.
    NoRoom(u64, u64),
    /// The other end closed a link.
    LinkClosed(u64),
    /// An answer arrives over a link.
    LinkAnswer(u64, u64, Box<LinkAnswer>),
    /// A link is found broken.
    LinkBroken(u64),
    /// Another node asks for a partition.
    HandOver {
        /// The partition.
        partition: usize,
        /// Who asks.
        successor: Hint,
        /// To whom the answer goes.
        ask: Ask,
    },
    /// What was asked was answered, or was not in time.
    AskAnswered(u64),
    /// Another node asks this one to take a partition over.
    TakeOver(usize, Ask),
    /// The group says whether the node should own a partition.
    Assign(usize, bool),
    /// The directory says who owns a partition.
    Hint(usize, Hint),
    /// A client's commands arrive.
    Lines(u64, Vec<Line>),
    /// A client's connection is gone.
    Disconnected(u64),
    /// Whoever waited for a command is gone.
    Abandoned(u64),
    /// A command's deadline has come.
    Deadline(u64),
    /// A line waited too long for room.
    LineDeadline(u64, u64),
    /// The node stops in order: the next step.
    Leave,
}

/// A question of one node's process to another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who asks.
    pub node: usize,
    /// Which of its processes.
    pub incarnation: u32,
    /// The question's number.
    pub number: u64,
}

/// A command as a client sends it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its number among all lines ever sent.
    pub number: u64,
    /// The command.
    pub request: Request,
    /// How long the client lets the node try, in microseconds.
    pub timeout_us: u64,
}

/// What reaches a client.
pub enum ClientEvent {
    /// It goes on with its work.
    Go,
    /// A line is answered.
    Answer(u64, u64, Box<Result<Answer, SubmitError>>),
    /// A connection is lost, or was never made.
    Lost(u64, Loss),
}

/// How a connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was refused: nothing was sent.
    Refused,
    /// It broke, or nothing came in time.
    Broken,
}

/// What was found in a partition for a proof: the log's end, and the record; none if the log was away.
pub type Look = (usize, Option<(Offset, Option<Record>)>);

/// What reaches a projector.
pub enum ProjectorEvent {
    /// It reads on.
    Read,
    /// What it read is there.
    Took(Vec<Option<Chunk>>),
    /// What it looked up for proofs is there.
    Looked(Vec<Look>),
    /// Its transaction is done in the database.
    Commit(usize),
    /// It learns so.
    Committed(usize, bool),
}

/// Events in the order of their time.
#[derive(Default)]
pub struct Schedule {
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
}

impl Schedule {
    /// Puts an event in.
    pub fn at(&mut self, at_us: u64, event: Event) {
        self.count += 1;
        self.events.insert((at_us, self.count), event);
    }

    /// The next event and its time.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        let ((at_us, _), event) = self.events.pop_first()?;
        Some((at_us, event))
    }
}
