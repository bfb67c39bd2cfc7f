//! A node's seat at one partition: the owner, whether it owns or stands by, and the router of the
//! commands that reach this node. A state machine without I/O, clock or chance: inputs go in,
//! [`SeatAction`]s come out, and a thin driver performs them; the simulator performs the same.
//!
//! Invariants: a command is answered once, by the log or as not attempted or unknown; what another
//! node forwarded is decided here or answered *moved*, never forwarded again; a partition that was
//! handed over is left alone for a while. Deliberately absent: decisions (`owner`), the order in
//! which commands are sent elsewhere (`router`), and how others are reached.

mod desk;
mod driver;
mod fair;
mod heard;
mod queue;
mod route;
mod router;
mod shared;
#[cfg(test)]
mod tests;
mod ticket;
mod unfit;
mod window;

use std::collections::VecDeque;

use event_log::chain::Stop;
use event_log::directory::Hint;
use event_log::log::{Appended, Chunk};
use event_log::record::Record;
use position::{LogId, Offset, Partition, Term};

use crate::clock::Reference;
use crate::command::{Answer, SubmitError, TurnedAway};
use crate::owner::{Inquired, Inquiry, Lists, LogAction, NotOwning, Now, Owner, Phase, Submission};
use crate::peers::{LinkAnswer, LinkId};
use heard::Heard;

pub(crate) use desk::{Desk, Events};
pub use fair::{FairQueue, Place, Sender};
pub(crate) use queue::{ForwardedCommands, Held, Load, OwnCommands, Questions, Queue};
pub use route::Command;
pub use router::{Routed, Router, Settled, Standing, Step};
pub(crate) use shared::{Control, Queues, Shared, Status};
pub(crate) use ticket::{ClientTicket, PeerTicket};
pub use ticket::{Fate, Guard, LinkGuard, Turns, turned_away};
pub(crate) use unfit::Unfit;
pub(crate) use window::Window;

/// How long a node that handed a partition over, and should own it all the same, leaves it alone,
/// in milliseconds.
const WANT_AGAIN_AFTER_MS: u64 = 5_000;

/// How long commands wait for an owner that nobody names or answers for before a node that stands by
/// looks into the log who owns, and before it looks again, in milliseconds.
const LOOK_AFTER_MS: u64 = 250;

/// A client of this node that waits for a command.
pub trait Client {
    /// Takes the command up for an attempt.
    ///
    /// # Errors
    /// It is not to be attempted (again): with what its client is to be told, if it still listens.
    fn take_up(&mut self) -> Result<(), Option<SubmitError>>;

    /// Whether it was taken up before, so that it may be in the log.
    fn was_attempted(&self) -> bool;

    /// Whether it waits no more: its deadline has passed, or its connection is gone.
    fn is_gone(&self) -> bool;

    /// Notes what it is about to be told, before anything else is routed.
    fn settle(&mut self, answer: &Result<Answer, SubmitError>);
}

/// Another node that waits for a command which it forwarded.
pub trait Peer {
    /// What keeps the command from being attempted: its link moved, or its time is over.
    fn hindrance(&self) -> Option<Hindrance>;

    /// Notes what it is about to be told, before anything else of its link is looked at: behind
    /// what has no outcome, everything is *moved*.
    fn settle(&mut self, answer: &LinkAnswer);
}

/// Why a forwarded command is not attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Something before it on its link was answered *moved* or had no outcome.
    BehindMoved,
    /// Its sender has stopped waiting.
    Late,
}

/// Whoever waits for the owner's answer.
#[derive(Clone, Debug)]
pub enum Ticket<C, P> {
    /// A client of this node.
    Client(C),
    /// Another node.
    Peer(P),
}

/// What the driver of a seat is to do.
pub enum SeatAction<C, P> {
    /// Ask something of the log.
    Log(LogAction),
    /// Tell a client.
    Answer(C, Result<Answer, SubmitError>),
    /// Tell another node.
    AnswerPeer(P, LinkAnswer),
    /// Ask the node that owns to hand over to `successor`, and report with
    /// [`Seat::owner_answered`].
    AskOwner {
        /// Who is asked.
        owner: Hint,
        /// This node, with the term that it will claim.
        successor: Hint,
    },
    /// Open a link to the node at this address.
    Open(LinkId, String),
    /// Send a command over an open link; it is with [`Seat::sent`].
    Send(LinkId, u64),
    /// Close a link.
    Close(LinkId),
    /// Tell everybody that this node owns.
    SayOwner(Hint),
    /// The partition was let go, as everybody who asked for it is to be told.
    LetGo,
    /// This node owns, as everybody who asked for it is to be told.
    TookOver,
}

/// Who this node is, for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub node: String,
    /// Where other nodes reach it; absent: nowhere.
    pub address: Option<String>,
    /// The log that it writes.
    pub log: LogId,
}

/// A node's seat at one partition.
pub struct Seat<C, P> {
    identity: Identity,
    owner: Owner<Ticket<C, P>>,
    router: Router<Command<C>>,
    /// Commands that other nodes forwarded, in order.
    from_peers: VecDeque<(Submission, P)>,
    /// The newest that was heard of who owns, apart from the log.
    hint: Option<Heard>,
    /// What was heard last and is not so, as the log showed.
    disproven: Option<Hint>,
    /// Whether the group says that this node should own.
    assigned: bool,
    /// Whether this node should own although the group does not say so: another node asked it to,
    /// or it owned before it was started again.
    asked: bool,
    /// Whether it was looked whose the partition was when this node started.
    looked_back: bool,
    want_again_at_ms: Option<u64>,
    /// When to look into the log for an owner, while commands lead nowhere.
    look_at_ms: Option<u64>,
    letting_go: bool,
    /// The term under which this node last said that it owns.
    said: Option<Term>,
    /// Whether the log's session takes appends.
    has_room: bool,
    stopping: bool,
    /// Whether the last command that had its turn came from another node.
    peer_was_last: bool,
    actions: Vec<SeatAction<C, P>>,
}

impl<C: Client, P: Peer> Seat<C, P> {
    /// A seat whose owner has not been started.
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

    /// Begins to read, and to own if the group says so. `first_offset` is the first that is kept.
    pub fn start(&mut self, first_offset: Offset, assigned: bool, now: Now) {
        self.assigned = assigned;
        self.owner.want(assigned, now);
        self.owner.start(first_offset);
    }

    /// The owner, to look at.
    #[must_use]
    pub fn owner(&self) -> &Owner<Ticket<C, P>> {
        &self.owner
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.owner.chain().partition
    }

    /// Takes a command of this node's clients. To be held back while [`Self::waiting`] is not 0.
    pub fn command(&mut self, submission: Submission, client: C) {
        self.router
            .push(Command::new(submission, vec![(client, false)]));
    }

    /// Takes a command that another node forwarded. To be held back while
    /// [`Self::forwarded_waiting`] is not 0.
    pub fn forwarded(&mut self, submission: Submission, peer: P) {
        self.from_peers.push_back((submission, peer));
    }

    /// How many commands of this node's clients wait without having been sent anywhere.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.router.waiting()
    }

    /// When something may be possible although nothing happens, as a monotonic time in milliseconds.
    #[must_use]
    pub fn wakes_at_ms(&self) -> Option<u64> {
        self.router.wakes_at_ms()
    }

    /// How many forwarded commands wait.
    #[must_use]
    pub fn forwarded_waiting(&self) -> usize {
        self.from_peers.len()
    }

    /// A command that is to be sent over a link, or was.
    #[must_use]
    pub fn sent(&self, sequence: u64) -> Option<&Command<C>> {
        self.router.sent(sequence)
    }

    /// Looks a command up.
    #[must_use]
    pub fn inquire(&self, inquiry: &Inquiry) -> Inquired {
        let is_open = |command: &Command<C>| command.submission.is(inquiry);
        if self.router.any(is_open) || self.from_peers.iter().any(|(s, _)| s.is(inquiry)) {
            return Inquired::InFlight;
        }
        self.owner.inquire(inquiry)
    }

    /// Takes what the group says.
    pub fn assign(&mut self, assigned: bool, now: Now) {
        self.assigned = assigned;
        self.want_again_at_ms = None;
        self.owner.want(assigned || self.asked, now);
    }

    /// Takes the wish of another node to take over; `true` if it owned. [`SeatAction::LetGo`] tells
    /// when it has let go.
    pub fn hand_over(&mut self, successor: Hint, now: Now) -> bool {
        let owned = self.owner.held_term().is_some();
        self.asked = false;
        // Whoever owned has nothing to go on with that it held before it was started.
        self.looked_back = true;
        self.want_again_at_ms = Some(now.monotonic_ms + WANT_AGAIN_AFTER_MS);
        if owned {
            self.expect(successor, now);
            self.letting_go = true;
        }
        self.owner.hand_over(now);
        owned
    }

    /// Takes the wish of another node that this one take over, whoever should own.
    /// [`SeatAction::TookOver`] tells when it owns.
    pub fn take_over(&mut self, now: Now) {
        self.asked = true;
        self.want_again_at_ms = None;
        self.owner.want(true, now);
        self.said = None;
    }

    /// Takes what became of an append.
    pub fn appended(&mut self, sequence: u64, appended: Option<Appended>, now: Now) {
        match appended {
            Some(appended) => self.owner.acknowledged(sequence, appended, now),
            None => self.owner.append_failed(sequence, now),
        }
    }

    /// Takes a piece of the log that was asked for.
    pub fn read(&mut self, chunk: Chunk, now: Now) {
        self.owner.read(chunk, now);
    }

    /// Takes what the log holds at `offset`, where a proof was asked for, and its end.
    pub fn proven(&mut self, offset: Offset, end: Offset, found: Option<&Record>) {
        self.owner.proven(offset, end, found);
    }

    /// Takes where the log ends, or that it could not be seen.
    pub fn peeked(&mut self, end: Option<Offset>, now: Now) {
        self.owner.peeked(end, now);
    }

    /// Notes that the log is not the one any more that was opened: nothing more is decided on it.
    pub fn log_gone(&mut self, reason: String) {
        self.owner.log_gone(reason);
    }

    /// Notes that the log has nothing where a read was to go on.
    pub fn offset_gone(&mut self, now: Now) {
        self.owner.offset_gone(now);
    }

    /// Notes that a read failed.
    pub fn read_failed(&mut self) {
        self.owner.read_failed();
    }

    /// Notes that a proof failed.
    pub fn proof_failed(&mut self) {
        self.owner.proof_failed();
    }

    /// Notes that the owner elsewhere handed over, or will not.
    pub fn owner_answered(&mut self, now: Now) {
        self.owner.owner_answered(now);
    }

    /// Notes whether the log's session takes appends.
    pub fn set_room(&mut self, has_room: bool) {
        self.has_room = has_room;
    }

    /// Whether an append may be handed to the log now; if not, it is not to be kept either.
    #[must_use]
    pub fn sends(&self, sequence: u64) -> bool {
        self.owner.sends(sequence)
    }

    /// Sets the newest record format that everybody reads, as far as is known of anybody.
    pub fn set_read_by_all(&mut self, version: Option<u16>) {
        self.owner.set_read_by_all(version);
    }

    /// Takes what is known of other nodes' lists of acknowledged damage.
    pub fn set_lists(&mut self, lists: Lists, now: Now) {
        self.owner.set_lists(lists, now);
    }

    /// Decides nothing more that was not begun.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Takes a newer reference for this node's clock.
    pub fn set_reference(&mut self, reference: Reference) {
        self.owner.set_reference(reference);
    }

    /// Lets time pass.
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

    /// Goes on at once with a partition that this node owned before it was started again, unless
    /// another has claimed it meanwhile: the group takes longer to notice.
    fn look_back(&mut self, now: Now) {
        if self.looked_back || !matches!(self.owner.phase(), Phase::StandingBy { .. }) {
            return;
        }
        self.looked_back = true;
        let address = self.owner.holder().map(|hint| &hint.address);
        if address.is_some() && address == self.identity.address.as_ref() {
            self.asked = true;
            self.owner.want(true, now);
        }
    }

    /// Looks into the log where commands wait that lead nowhere: what is said of owners is late,
    /// lost or wrong at times, and a node without standby hears nothing else.
    fn look_for_owner(&mut self, now: Now) {
        let elsewhere = self.standing() == Standing::Elsewhere;
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

    /// Whether the local checkpoint has enough to take, or anything and it is time.
    #[must_use]
    pub fn is_save_due(&self, it_is_time: bool) -> bool {
        self.owner.is_save_due(it_is_time)
    }

    /// Writes the local checkpoint, if there is anything to write.
    pub fn save(&mut self) {
        self.owner.save();
    }

    /// Whether nothing is open: neither in the log nor at other nodes nor waiting.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.owner.is_drained()
            && self.has_room
            && self.router.is_idle()
            && self.from_peers.is_empty()
    }

    /// Why it does not own, if it does not.
    #[must_use]
    pub fn not_owning(&self) -> Option<NotOwning> {
        self.owner.not_owning()
    }

    /// What every command is told once the reader must not go on.
    fn damage(&self) -> Option<SubmitError> {
        match self.owner.phase() {
            Phase::Stopped(Stop::Damage(damage)) => Some(SubmitError::Damaged(damage.clone())),
            // Those who know the newer format own and decide.
            Phase::Stopped(Stop::NewerFormat { .. }) => None,
            Phase::Stopped(Stop::Gone(_)) => Some(turned_away(TurnedAway::NotReady)),
            _ => None,
        }
    }

    fn own_hint(&self, term: Term) -> Option<Hint> {
        Some(Hint {
            log: self.identity.log,
            term,
            node: self.identity.node.clone(),
            address: self.identity.address.clone()?,
        })
    }

    /// Says what has changed about owning.
    fn tell_moves(&mut self) {
        if self.letting_go && !self.owner.is_letting_go() {
            self.letting_go = false;
            self.actions.push(SeatAction::LetGo);
        }
        let term = self.owner.held_term();
        if self.owner.not_owning().is_none() && term != self.said {
            self.said = term;
            self.actions.push(SeatAction::TookOver);
            let hint = term.and_then(|term| self.own_hint(term));
            self.actions.extend(hint.map(SeatAction::SayOwner));
        }
    }
}
