//! A node's seat for one partition: the owner (which owns or stands by), and the router of the
//! commands that reach this node. A state machine without I/O, clock or randomness: inputs go in,
//! [`SeatAction`]s come out, and a thin driver performs them. The simulator performs the same
//! actions.
//!
//! Invariants: each command gets one answer: the log's, or *not attempted*, or *unknown*. A command
//! that another node forwarded is decided here or answered *moved*; it is never forwarded again.
//! After a hand-over, this node does not try to own the partition for a while. Deliberately absent:
//! decisions (`owner`), the order in which commands are sent to other nodes (`router`), and how
//! other nodes are reached.

mod desk;
mod driver;
mod effects;
mod fair;
mod heard;
mod input;
mod queue;
mod route;
mod router;
mod shared;
#[cfg(test)]
mod tests;
mod turns;
mod unfit;
mod waiter;
mod window;
mod work;

use std::collections::VecDeque;

use event_log::chain::Stop;
use event_log::directory::Hint;
use position::{LogId, Offset, Partition, Term};

use crate::command::{Reply, SubmitError, TurnedAway, turned_away};
use crate::owner::{Inquired, Inquiry, LogAction, NotOwning, Now, Owner, Phase, Submission};
use crate::peers::{LinkAnswer, LinkId};
use heard::Heard;

pub(crate) use desk::{Desk, News};
pub use driver::{Control, Driver, Effects};
pub use fair::{FairQueue, Place, Sender};
pub use input::Input;
pub use route::Command;
pub use router::{LocalOwner, Router, Step};
pub(crate) use shared::{Shared, Status};
pub use turns::Turns;
pub(crate) use unfit::Unfit;
pub use waiter::{Guard, Waiter};
pub(crate) use waiter::{SentByClient, SentByPeer, Waiting, sides};
pub(crate) use window::Window;
pub(crate) use work::NodeControl;

/// How long a node waits after it handed a partition over before it tries to own the partition
/// again, if the group says that it should, in milliseconds.
const WANT_AGAIN_AFTER_MS: u64 = 5_000;

/// How long commands wait, on a node that stands by, for an owner that is unknown or does not
/// answer, before the node reads in the log who owns; and the pause before it reads again, in
/// milliseconds.
const LOOK_AFTER_MS: u64 = 250;

/// A client of this node that waits for the answer to a command.
pub trait Client {
    /// What the client's side knows, too.
    fn waiter(&self) -> &Waiter;

    /// Takes the command up for an attempt.
    ///
    /// # Errors
    /// As [`Waiter::take_up`].
    fn take_up(&mut self) -> Result<(), Option<SubmitError>> {
        self.waiter().take_up()
    }
}

/// Another node that waits for the answer to a command that it forwarded.
pub trait Peer {
    /// What the side that serves the link knows, too.
    fn waiter(&self) -> &Waiter;

    /// Whether the command's deadline has passed.
    fn is_late(&self) -> bool;

    /// Why the command must not be attempted, if so.
    fn hindrance(&self) -> Option<Hindrance> {
        if self.waiter().is_behind_unanswered() {
            Some(Hindrance::BehindMoved)
        } else {
            (self.is_late() || self.waiter().is_gone()).then_some(Hindrance::Late)
        }
    }
}

/// Why a forwarded command is not attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// An earlier command on the same link was answered *moved* or has no outcome.
    BehindMoved,
    /// Its sender has stopped waiting.
    Late,
}

/// The client or node that waits for the owner's answer.
#[derive(Clone, Debug)]
pub enum Ticket<C, P> {
    /// A client of this node.
    Client(C),
    /// Another node.
    Peer(P),
}

/// What the driver of a seat has to do.
pub enum SeatAction<C, P> {
    /// Perform an action on the log.
    Log(LogAction),
    /// Answer a client.
    Answer(C, Reply),
    /// Answer another node.
    AnswerPeer(P, LinkAnswer),
    /// Ask the owning node to hand over to `successor`, and report the end of that with
    /// [`Input::OwnerAnswered`].
    AskOwner {
        /// The node that is asked.
        owner: Hint,
        /// This node, with the term that it will claim.
        successor: Hint,
    },
    /// Open a link to the node at this address.
    Open(LinkId, String),
    /// Send a command over an open link; [`Seat::sent`] returns the command.
    Send(LinkId, u64),
    /// Close a link.
    Close(LinkId),
    /// Tell the other nodes that this node owns.
    SayOwner(Hint),
    /// This node has let the partition go: answer everybody who asked for that.
    LetGo,
    /// This node owns: answer everybody who asked for that.
    TookOver,
}

/// Who this node is, as other nodes see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub node: String,
    /// Where other nodes reach this node; `None`: they cannot.
    pub address: Option<String>,
    /// The log that this node writes.
    pub log: LogId,
}

impl Identity {
    /// The hint that this node owns a partition; `None` if other nodes cannot reach it.
    #[must_use]
    pub fn hint(&self, term: Term) -> Option<Hint> {
        Some(Hint {
            log: self.log,
            term,
            node: self.node.clone(),
            address: self.address.clone()?,
        })
    }
}

/// A node's seat for one partition.
pub struct Seat<C, P> {
    identity: Identity,
    owner: Owner<Ticket<C, P>>,
    router: Router<C>,
    /// Commands that other nodes forwarded, in order.
    from_peers: VecDeque<(Submission, P)>,
    /// The newest hint about the owner that came from elsewhere than the log.
    hint: Option<Heard>,
    /// The last hint that the log disproved.
    disproven: Option<Hint>,
    /// Whether the group says that this node should own.
    assigned: bool,
    /// Whether this node should own although the group does not say so: another node asked it to,
    /// or it owned the partition before its restart.
    asked: bool,
    /// Whether the check after the start was made: did this node own the partition before?
    looked_back: bool,
    want_again_at_ms: Option<u64>,
    /// When to read in the log who owns, while commands wait and no owner answers.
    look_at_ms: Option<u64>,
    letting_go: bool,
    /// The term under which this node last announced that it owns.
    said: Option<Term>,
    /// Whether the log's session takes appends.
    has_room: bool,
    stopping: bool,
    /// Whether the last command taken came from another node.
    peer_was_last: bool,
    actions: Vec<SeatAction<C, P>>,
}

impl<C: Client, P: Peer> Seat<C, P> {
    /// A seat whose owner is not started yet.
    #[must_use]
    pub fn new(owner: Owner<Ticket<C, P>>, identity: Identity) -> Self {
        Self {
            identity,
            owner,
            router: Router::default(),
            from_peers: VecDeque::new(),
            hint: None,
            disproven: None,
            assigned: false,
            asked: false,
            looked_back: false,
            want_again_at_ms: None,
            look_at_ms: None,
            letting_go: false,
            said: None,
            has_room: true,
            stopping: false,
            peer_was_last: false,
            actions: Vec::new(),
        }
    }

    /// Begins to read, and to own if the group says so. `first_offset` is the first offset that the
    /// log still keeps.
    pub fn start(&mut self, first_offset: Offset, assigned: bool, now: Now) {
        self.assigned = assigned;
        self.owner.want(assigned, now);
        self.owner.start(first_offset);
    }

    /// The owner, for inspection.
    #[must_use]
    pub fn owner(&self) -> &Owner<Ticket<C, P>> {
        &self.owner
    }

    /// The owner, for what does not concern the seat: the reference of its clock, the formats and
    /// lists of the other nodes, and its local checkpoint.
    pub fn owner_mut(&mut self) -> &mut Owner<Ticket<C, P>> {
        &mut self.owner
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.owner.chain().partition
    }

    /// Takes a command of this node's clients, while [`Self::takes_commands`].
    pub fn command(&mut self, submission: Submission, client: C) {
        self.router
            .push(Command::new(submission, vec![(client, false)]));
    }

    /// Takes a command that another node forwarded, while [`Self::takes_forwarded`].
    pub fn forwarded(&mut self, submission: Submission, peer: P) {
        self.from_peers.push_back((submission, peer));
    }

    /// Whether the seat takes commands of this node's clients now.
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        self.router.waiting() == 0
    }

    /// Whether the seat takes forwarded commands now.
    #[must_use]
    pub fn takes_forwarded(&self) -> bool {
        self.from_peers.is_empty()
    }

    /// How many commands of this node's clients wait without having been sent anywhere.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.router.waiting()
    }

    /// When the next step may be possible even if no input comes, as a monotonic time in
    /// milliseconds.
    #[must_use]
    pub fn wakes_at_ms(&self) -> Option<u64> {
        self.router.wakes_at_ms()
    }

    /// How many forwarded commands wait.
    #[must_use]
    pub fn forwarded_waiting(&self) -> usize {
        self.from_peers.len()
    }

    /// A command that is to be sent over a link, or was sent.
    #[must_use]
    pub fn sent(&self, sequence: u64) -> Option<&Command<C>> {
        self.router.sent(sequence)
    }

    /// Looks up what happened to a command.
    #[must_use]
    pub fn inquire(&self, inquiry: &Inquiry) -> Inquired {
        let is_open = |command: &Command<C>| command.submission.is(inquiry);
        if self.router.any(is_open) || self.from_peers.iter().any(|(s, _)| s.is(inquiry)) {
            return Inquired::InFlight;
        }
        self.owner.inquire(inquiry)
    }

    /// Notes whether the group assigns the partition to this node.
    pub fn assign(&mut self, assigned: bool, now: Now) {
        self.assigned = assigned;
        self.want_again_at_ms = None;
        self.owner.want(assigned || self.asked, now);
    }

    /// Takes another node's request to hand the partition over to it; `true` if this node owned the
    /// partition. [`SeatAction::LetGo`] reports when it has let go.
    pub fn hand_over(&mut self, successor: Hint, now: Now) -> bool {
        let owned = self.owner.held_term().is_some();
        self.asked = false;
        // After this request, this node must not claim again only because it owned before its
        // restart.
        self.looked_back = true;
        self.want_again_at_ms = Some(now.monotonic_ms + WANT_AGAIN_AFTER_MS);
        if owned {
            self.expect(successor, now);
            self.letting_go = true;
        }
        self.owner.hand_over(now);
        owned
    }

    /// Takes another node's request that this node take the partition over, whatever the group
    /// says. [`SeatAction::TookOver`] reports when this node owns.
    pub fn take_over(&mut self, now: Now) {
        self.asked = true;
        self.want_again_at_ms = None;
        self.owner.want(true, now);
        self.said = None;
    }

    /// From now on, only decides what has begun.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Takes the present time, and starts what is due.
    pub fn tick(&mut self, now: Now) {
        self.owner.tick(now);
        self.look_back(now);
        self.prove_hint(now);
        self.look_for_owner(now);
        if self.assigned
            && self
                .want_again_at_ms
                .is_some_and(|at_ms| now.monotonic_ms >= at_ms)
        {
            self.want_again_at_ms = None;
            self.owner.want(true, now);
        }
    }

    /// If this node owned the partition before its restart and no other node has claimed it since,
    /// claims it again at once. The group would take longer to assign it.
    fn look_back(&mut self, now: Now) {
        if self.looked_back || !matches!(self.owner.phase(), Phase::Standby { .. }) {
            return;
        }
        self.looked_back = true;
        let address = self.owner.holder().map(|hint| &hint.address);
        if address.is_some() && address == self.identity.address.as_ref() {
            self.asked = true;
            self.owner.want(true, now);
        }
    }

    /// Reads in the log who owns, while commands wait and no owner answers. Hints can be late, lost
    /// or wrong, and a node without a standby learns of owners only from hints.
    fn look_for_owner(&mut self, now: Now) {
        let elsewhere = self.local_owner() == LocalOwner::Elsewhere;
        if !elsewhere || !self.router.is_stuck(self.target()) {
            self.look_at_ms = None;
            return;
        }
        let look_at_ms = *self
            .look_at_ms
            .get_or_insert(now.monotonic_ms + LOOK_AFTER_MS);
        if now.monotonic_ms >= look_at_ms {
            self.look_at_ms = Some(now.monotonic_ms + LOOK_AFTER_MS);
            self.owner.look();
        }
    }

    /// Whether the seat was stopped and no command is open: in the log, at other nodes, or waiting.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stopping
            && self.owner.is_drained()
            && self.has_room
            && self.router.is_idle()
            && self.from_peers.is_empty()
    }

    /// Why this node does not own the partition, if it does not.
    #[must_use]
    pub fn not_owning(&self) -> Option<NotOwning> {
        self.owner.not_owning()
    }

    /// The answer to every command once the reader must not go on.
    fn damage(&self) -> Option<SubmitError> {
        match self.owner.phase() {
            Phase::Stopped(Stop::Damage(damage)) => Some(SubmitError::Damaged(damage.clone())),
            // Nodes that can read what is newer own the partition and decide.
            Phase::Stopped(Stop::NewerFormat { .. } | Stop::NewerEvent { .. }) => None,
            Phase::Stopped(Stop::Gone(_)) => Some(turned_away(TurnedAway::NotReady)),
            _ => None,
        }
    }

    /// Announces what has changed about owning.
    fn tell_moves(&mut self) {
        if self.letting_go && !self.owner.is_letting_go() {
            self.letting_go = false;
            self.actions.push(SeatAction::LetGo);
        }
        let term = self.owner.held_term();
        if self.owner.not_owning().is_none() && term != self.said {
            self.said = term;
            self.actions.push(SeatAction::TookOver);
            let hint = term.and_then(|term| self.identity.hint(term));
            self.actions.extend(hint.map(SeatAction::SayOwner));
        }
    }
}
