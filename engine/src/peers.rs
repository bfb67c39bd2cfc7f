//! How a node talks to another: forwards commands to the owner of a partition, and asks for
//! partitions to change hands.
//!
//! Invariant: a link keeps the order of its commands. Once it has answered *moved*, everything
//! behind on the same link is answered *moved* too and was not attempted, so that the sender can
//! send it again in order, under the same command ids, to whoever owns now. A node never forwards
//! what was forwarded to it: one hop, always. Deliberately absent: HTTP (`command-api`).

use std::collections::BTreeMap;
use std::time::Instant;

use async_trait::async_trait;
use event_log::directory::{Hint, NodeEntry};
use futures::future::BoxFuture;
use position::{LogId, Partition};
use serde::{Deserialize, Serialize};

use crate::command::{Answer, Became, Request, SubmitError};
use crate::owner::Inquiry;

/// Names a link among all that a node ever opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// A command on its way to the owner at another node.
#[derive(Clone, Debug)]
pub struct CommandForPeer {
    /// Names it among the answers of its link; counts up.
    pub sequence: u64,
    /// The request as the client sent it, its command id included.
    pub request: Request,
    /// When its sender stops waiting; travels as the time left.
    pub deadline: Instant,
}

/// What the node at the other end says of one forwarded command.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkAnswer {
    /// What the log says, or why there is no answer.
    Answered(Result<Answer, SubmitError>),
    /// Not attempted there, or not accepted there and never will be as it was sent: the node does
    /// not own the partition. With whom it believes to own it.
    Moved(Option<Hint>),
}

/// What comes back on a link.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEvent {
    /// An answer, under the command's sequence.
    Answer(u64, LinkAnswer),
    /// The link is gone; what it has not answered may or may not have been attempted. The last
    /// event of a link.
    Broken(String),
}

/// Why a peer did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PeerError {
    /// It could not be reached or did not answer in time.
    #[error("the node could not be reached: {0}")]
    Unreachable(String),
    /// It refuses: another log, a wrong secret, or another version of the protocol.
    #[error("the node refuses: {0}")]
    Refused(String),
}

/// An open link to the owner of one partition. Dropping it closes it.
pub trait PeerLink: Send {
    /// Sends a command behind those sent before. Never blocks; the sender keeps its own bound on
    /// what is unanswered.
    fn send(&self, command: CommandForPeer);
}

/// A node's way to the others.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Opens a link to `address` for commands of one partition. Returns at once; `events` is told
    /// of answers and of the end, from any task.
    fn open(
        &self,
        address: &str,
        partition: Partition,
        events: Box<dyn Fn(LinkEvent) + Send + Sync>,
    ) -> Box<dyn PeerLink>;

    /// Asks the node at `address` to stop deciding in `partition`, to wait until everything it has
    /// in flight is answered, and to let go in favour of `successor`. `true` if it owned and has
    /// let go; `false` if it did not own.
    ///
    /// # Errors
    /// [`PeerError`]; the partition may be claimed all the same.
    async fn hand_over(
        &self,
        address: &str,
        partition: Partition,
        successor: &Hint,
    ) -> Result<bool, PeerError>;

    /// Asks the node at `address` to take `partition` over: to fold up to the log's end, to ask the
    /// owner to hand over, and to claim. Returns when it owns.
    ///
    /// # Errors
    /// [`PeerError`].
    async fn take_over(&self, address: &str, partition: Partition) -> Result<(), PeerError>;

    /// Asks the node at `address`, which is said to own `partition`, what became of a command.
    ///
    /// # Errors
    /// [`PeerError`]; inside, what [`Engine::outcome`](crate::service::Engine::outcome) says there.
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
    /// The log's identity: nodes of another log are no peers.
    fn log_id(&self) -> LogId;

    /// Begins to serve a link for one partition; absent if there is no such partition.
    fn accept(&self, partition: Partition) -> Option<Box<dyn AcceptedLink>>;

    /// See [`Peers::hand_over`].
    async fn hand_over(&self, partition: Partition, successor: Hint) -> bool;

    /// See [`Peers::take_over`].
    ///
    /// # Errors
    /// Why this node does not own when `deadline` has come.
    async fn take_over(&self, partition: Partition, deadline: Instant) -> Result<(), String>;

    /// See [`Peers::outcome`].
    ///
    /// # Errors
    /// `Unknown` while it is in flight; `TurnedAway` where this node does not own either.
    async fn outcome(
        &self,
        partition: Partition,
        inquiry: Inquiry,
        deadline: Instant,
    ) -> Result<Became, SubmitError>;

    /// Who is said to own what, and which nodes there are.
    fn topology(&self) -> Topology;
}

/// One link as the serving node holds it.
#[async_trait]
pub trait AcceptedLink: Send {
    /// Takes the next command of the link; waits while the partition's queue is full, but not
    /// beyond `deadline`. The answer comes through the future.
    async fn submit(
        &mut self,
        request: Request,
        deadline: Instant,
    ) -> BoxFuture<'static, LinkAnswer>;
}

/// Who owns what, as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The log's identity.
    pub log: LogId,
    /// The node that says so.
    pub node: String,
    /// The number of partitions.
    pub partition_count: u32,
    /// The owner of each partition that has a known one.
    pub owners: BTreeMap<Partition, Hint>,
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeEntry>,
}

/// The peers of a node that is alone: nobody can be reached.
pub struct NoPeers;

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
        events(LinkEvent::Broken("this node knows no others".to_owned()));
        Box::new(NoLink)
    }

    async fn hand_over(&self, _: &str, _: Partition, _: &Hint) -> Result<bool, PeerError> {
        Err(PeerError::Unreachable(
            "this node knows no others".to_owned(),
        ))
    }

    async fn take_over(&self, _: &str, _: Partition) -> Result<(), PeerError> {
        Err(PeerError::Unreachable(
            "this node knows no others".to_owned(),
        ))
    }

    async fn outcome(
        &self,
        _: &str,
        _: Partition,
        _: &Inquiry,
    ) -> Result<Result<Became, SubmitError>, PeerError> {
        Err(PeerError::Unreachable(
            "this node knows no others".to_owned(),
        ))
    }
}
