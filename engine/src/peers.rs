//! How nodes talk to each other: a node forwards commands to the owner of a partition, and asks
//! other nodes to hand partitions over or to take them over.
//!
//! Invariant: a link keeps the order of its commands. Once a link has answered *moved*, every later
//! command on it is answered *moved* too and was not attempted. So the sender can send these
//! commands again in order, under the same command ids, to the present owner. A node never forwards
//! a command that was forwarded to it: there is always one hop only. Deliberately absent: HTTP
//! (`command-api`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use event_log::directory::{Hint, NodeEntry};
use futures::future::BoxFuture;
use position::{LogId, Partition};
use serde::{Deserialize, Serialize};

use crate::command::{Became, Reply, Request, SubmitError};
use crate::owner::Inquiry;
use crate::walk::Walk;

/// Identifies a link among all links that a node has ever opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// A command on its way to the owner at another node.
#[derive(Clone, Debug)]
pub struct CommandForPeer {
    /// Identifies the command among the answers of its link; increases with each command.
    pub sequence: u64,
    /// The request as the client sent it, including its command id.
    pub request: Request,
    /// When its sender stops waiting; sent to the other node as the remaining time.
    pub deadline: Instant,
}

/// What the other node answers to one forwarded command.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkAnswer {
    /// What the log says, or why there is no answer.
    Answered(Reply),
    /// The node does not own the partition: the command was not attempted there, or was not
    /// accepted there and in the form that was sent never will be. With the owner that the node
    /// believes in, if any.
    Moved(Option<Hint>),
}

/// What comes back on a link.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEvent {
    /// The answer to the command with this sequence.
    Answer(u64, LinkAnswer),
    /// The link is gone. Commands without an answer may or may not have been attempted. This is a
    /// link's last event.
    Broken(String),
}

/// Why a peer did not do what it was asked to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PeerError {
    /// The peer could not be reached or did not answer in time.
    #[error("the node could not be reached: {0}")]
    Unreachable(String),
    /// The peer refuses: it has another log, another secret, or another version of the protocol.
    #[error("the node refuses: {0}")]
    Refused(String),
}

/// An open link to the owner of one partition. Dropping it closes it.
pub trait PeerLink: Send {
    /// Sends a command after those sent before. Never blocks; the sender itself limits how many
    /// commands are unanswered.
    fn send(&self, command: CommandForPeer);
}

/// How a node reaches the other nodes.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Opens a link to `address` for commands of one partition. Returns at once. `events` is called
    /// with each answer and with the end of the link, from any task.
    fn open(
        &self,
        address: &str,
        partition: Partition,
        events: Box<dyn Fn(LinkEvent) + Send + Sync>,
    ) -> Box<dyn PeerLink>;

    /// Asks the node at `address` to stop deciding in `partition`, to wait until everything it has
    /// in flight is answered, and then to let go of the partition in favour of `successor`. `true`
    /// if the node owned the partition and has let go; `false` if it did not own it.
    ///
    /// # Errors
    /// [`PeerError`]; the caller may claim the partition all the same.
    async fn hand_over(
        &self,
        address: &str,
        partition: Partition,
        successor: &Hint,
    ) -> Result<bool, PeerError>;

    /// Asks the node at `address` to take `partition` over: to fold up to the log's end, to ask the
    /// owner to hand over, and to claim. Returns when that node owns the partition.
    ///
    /// # Errors
    /// [`PeerError`].
    async fn take_over(&self, address: &str, partition: Partition) -> Result<(), PeerError>;

    /// Asks the node at `address`, which is said to own `partition`, what happened to a command.
    ///
    /// # Errors
    /// [`PeerError`]; the inner result is that of
    /// [`Engine::outcome`](crate::service::Engine::outcome) on that node.
    async fn outcome(
        &self,
        address: &str,
        partition: Partition,
        inquiry: &Inquiry,
    ) -> Result<Result<Became, SubmitError>, PeerError>;
}

/// What a node does for its peers.
#[async_trait]
pub trait PeerService: Send + Sync + 'static {
    /// The log's identity: nodes of another log are not peers.
    fn log_id(&self) -> LogId;

    /// Begins to serve a link for one partition; `None` if there is no such partition.
    fn accept(&self, partition: Partition) -> Option<Box<dyn AcceptedLink>>;

    /// See [`Peers::hand_over`].
    async fn hand_over(&self, partition: Partition, successor: Hint) -> bool;

    /// See [`Peers::take_over`].
    ///
    /// # Errors
    /// Why this node did not own the partition by `deadline`.
    async fn take_over(&self, partition: Partition, deadline: Instant) -> Result<(), String>;

    /// See [`Peers::outcome`].
    ///
    /// # Errors
    /// `Unknown` while the command is in flight; `TurnedAway` if this node does not own the
    /// partition either.
    async fn outcome(
        &self,
        partition: Partition,
        inquiry: Inquiry,
        deadline: Instant,
    ) -> Result<Became, SubmitError>;

    /// Which nodes there are, and who is said to own which partition.
    fn topology(&self) -> Topology;
}

/// One link, on the side of the node that serves it.
#[async_trait]
pub trait AcceptedLink: Send {
    /// Takes the next command of the link. Waits while the partition's queue is full, but no longer
    /// than until `deadline`. The answer comes through the future. The command's steps are noted in
    /// `walk`, if it is traced.
    async fn submit(
        &mut self,
        request: Request,
        deadline: Instant,
        walk: Option<Arc<Walk>>,
    ) -> BoxFuture<'static, LinkAnswer>;
}

/// Who owns which partition, as far as one node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    pub log: LogId,
    /// The node that gives this information.
    pub node: String,
    pub partition_count: u32,
    /// The owner of each partition whose owner is known.
    pub owners: BTreeMap<Partition, Hint>,
    pub nodes: BTreeMap<String, NodeEntry>,
}

/// The peers of a node that is alone: no other node can be reached.
pub struct NoPeers;

const NO_PEERS: &str = "this node knows no others";

struct NoLink;

impl PeerLink for NoLink {
    fn send(&self, _: CommandForPeer) {}
}

#[async_trait]
impl Peers for NoPeers {
    fn open(
        &self,
        _: &str,
        _: Partition,
        events: Box<dyn Fn(LinkEvent) + Send + Sync>,
    ) -> Box<dyn PeerLink> {
        events(LinkEvent::Broken(NO_PEERS.to_owned()));
        Box::new(NoLink)
    }

    async fn hand_over(&self, _: &str, _: Partition, _: &Hint) -> Result<bool, PeerError> {
        Err(PeerError::Unreachable(NO_PEERS.to_owned()))
    }

    async fn take_over(&self, _: &str, _: Partition) -> Result<(), PeerError> {
        Err(PeerError::Unreachable(NO_PEERS.to_owned()))
    }

    async fn outcome(
        &self,
        _: &str,
        _: Partition,
        _: &Inquiry,
    ) -> Result<Result<Became, SubmitError>, PeerError> {
        Err(PeerError::Unreachable(NO_PEERS.to_owned()))
    }
}
