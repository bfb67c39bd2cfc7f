//! Performs a seat's actions, and takes what comes for it out of its queues: one turn after the other.
//!
//! Invariant: production and the simulator run this code, each with its own [`Effects`]. What waits in a
//! queue is taken in order, and appends keep their order. Deliberately absent: I/O (`effects`), any
//! decision (`seat`), and on whose thread this happens (`desk`).

use std::collections::VecDeque;

use event_log::directory::Hint;
use event_log::log::{AppendResult, Bounds, Chunk, LogError};
use event_log::record::{NewRecord, Record};
use kernel::explained;
use position::Offset;

use super::{Client, Command, Peer, Seat, SeatAction};
use crate::clock::Reference;
use crate::command::{Answer, SubmitError};
use crate::owner::{Inquired, Inquiry, Lists, LogAction, Now, Submission};
use crate::peers::{LinkAnswer, LinkEvent, LinkId};

/// How many inputs, and how many commands, one turn takes at most.
const TAKEN_MAX: usize = 256;
/// How many commands are taken out of their queue before they are routed: what is taken out waits in
/// the order in which it was taken.
const TAKEN_AT_ONCE_MAX: usize = 16;

/// What comes for a seat from the log and from other nodes.
pub enum Input {
    /// An append was acknowledged, or its fate is unknown.
    Appended(u64, AppendResult),
    /// A read came back.
    Read(Result<Chunk, LogError>),
    /// A look for a proof at this offset came back: the log's end, and the record there.
    Proven(Offset, Result<(Offset, Option<Record>), LogError>),
    /// A look at the log's end came back.
    Peeked(Result<Bounds, LogError>),
    /// The owner that was asked has answered, or will not.
    OwnerAnswered,
    /// Something came back on a link.
    Link(LinkId, LinkEvent),
}

/// What other nodes ask of a seat, apart from commands. `R` is the way back to whoever asks.
pub enum Control<R> {
    /// To hand the partition over to `successor`; the reply says whether this node owned it.
    HandOver {
        /// Who takes over.
        successor: Hint,
        /// Who asks.
        reply: R,
    },
    /// To take the partition over, whoever should own it; the reply comes when this node owns.
    TakeOver {
        /// Who asks.
        reply: R,
    },
}

/// Everything that a driver does to the world around a seat. It is passed to each call, so that the
/// driver itself holds no I/O.
pub trait Effects<C: Client, P: Peer> {
    /// The way back to a node that asked for a hand-over or a take-over.
    type Reply;

    /// The time.
    fn now(&self) -> Now;

    /// What this node's clock is held against, if that is known.
    fn reference(&self) -> Option<Reference>;

    /// Takes the oldest input.
    fn next_input(&mut self) -> Option<Input>;

    /// Takes the command of this node's clients whose turn it is.
    fn next_command(&mut self) -> Option<(Submission, C)>;

    /// Takes the oldest forwarded command.
    fn next_forwarded(&mut self) -> Option<(Submission, P)>;

    /// Takes the forwarded commands that are not to be attempted any more, wherever they wait.
    fn take_hindered(&mut self) -> Vec<(Submission, P)>;

    /// Whether a command was given up after it had been taken, since this was asked last.
    fn were_given_up(&mut self) -> bool;

    /// Lets the next append open a new session with the log: it is a claim.
    fn new_session(&mut self);

    /// Hands a record to the log, whose result comes as [`Input::Appended`]; gives the record back where
    /// the session has no room for it now.
    fn append(&mut self, seat: &Seat<C, P>, sequence: u64, record: NewRecord) -> Option<NewRecord>;

    /// Reads a piece of the log from an offset on; the result comes as [`Input::Read`].
    fn read(&mut self, from: Offset);

    /// Looks at the log's end and at the record at an offset; the result comes as [`Input::Proven`].
    fn prove(&mut self, offset: Offset);

    /// Looks where the log ends; the result comes as [`Input::Peeked`].
    fn peek(&mut self);

    /// Asks the owner elsewhere to hand over to `successor`; the end of it comes as
    /// [`Input::OwnerAnswered`].
    fn ask_owner(&mut self, owner: Hint, successor: Hint);

    /// Opens a link to the node at an address; what comes back comes as [`Input::Link`].
    fn open_link(&mut self, id: LinkId, address: &str);

    /// Sends a command over a link, if that is the open one.
    fn send(&mut self, id: LinkId, sequence: u64, command: &Command<C>);

    /// Closes a link, if that is the open one.
    fn close_link(&mut self, id: LinkId);

    /// Tells everybody that this node owns.
    fn say_owner(&mut self, hint: Hint);

    /// Tells a client its answer.
    fn answer(&mut self, client: C, answer: Result<Answer, SubmitError>);

    /// Tells another node the answer to what it forwarded.
    fn answer_peer(&mut self, peer: P, answer: LinkAnswer);

    /// Tells whoever asked for a hand-over or a take-over what came of it.
    fn reply(&mut self, reply: Self::Reply, is_so: bool);
}

/// A seat, and what waits for its effects.
pub struct Driver<C, P, R> {
    seat: Seat<C, P>,
    /// Appends that the log's session had no room for, in order.
    held_back: VecDeque<(u64, NewRecord)>,
    /// Who waits until this node has let go.
    hand_overs: Vec<R>,
    /// Who waits until this node owns.
    take_overs: Vec<R>,
}

impl<C: Client, P: Peer, R> Driver<C, P, R> {
    /// A driver of a seat.
    #[must_use]
    pub fn new(seat: Seat<C, P>) -> Self {
        Self {
            seat,
            held_back: VecDeque::new(),
            hand_overs: Vec::new(),
            take_overs: Vec::new(),
        }
    }

    /// The seat, to look at.
    #[must_use]
    pub fn seat(&self) -> &Seat<C, P> {
        &self.seat
    }

    /// How much of this seat's is on its way or waits.
    #[must_use]
    pub fn load(&self) -> usize {
        self.seat.owner().in_flight() + self.seat.waiting() + self.seat.forwarded_waiting()
    }

    /// Whether the seat takes commands of this node's clients now.
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        self.seat.waiting() == 0
    }

    /// Whether the seat takes forwarded commands now.
    #[must_use]
    pub fn takes_forwarded(&self) -> bool {
        self.seat.forwarded_waiting() == 0
    }

    /// Begins with the first record that the log keeps.
    pub fn start(
        &mut self,
        first_offset: Offset,
        assigned: bool,
        effects: &impl Effects<C, P, Reply = R>,
    ) {
        self.take_reference(effects);
        self.seat.start(first_offset, assigned, effects.now());
    }

    /// Takes what the group says.
    pub fn assign(&mut self, assigned: bool, now: Now) {
        self.seat.assign(assigned, now);
    }

    /// Takes what the directory says: who owns, which record format every node reads, and the nodes'
    /// lists of acknowledged damage.
    pub fn look_up(&mut self, hint: Option<Hint>, version: Option<u16>, lists: Lists, now: Now) {
        self.seat.set_read_by_all(version);
        self.seat.set_lists(lists, now);
        if let Some(hint) = hint {
            self.seat.learn(hint, now);
        }
    }

    /// Takes a hint alone, as another node sends it.
    pub fn learn(&mut self, hint: Hint, now: Now) {
        self.seat.learn(hint, now);
    }

    /// Takes what another node asks for.
    pub fn control(&mut self, control: Control<R>, effects: &mut impl Effects<C, P, Reply = R>) {
        let now = effects.now();
        match control {
            Control::HandOver { successor, reply } => {
                let to = successor.node.clone();
                let owned = self.seat.hand_over(successor, now);
                let partition = self.seat.partition();
                tracing::info!(%partition, to, owned, "asked to hand over");
                match owned {
                    true => self.hand_overs.push(reply),
                    false => effects.reply(reply, false),
                }
            }
            Control::TakeOver { reply } => {
                self.take_overs.push(reply);
                self.seat.take_over(now);
            }
        }
    }

    /// Decides nothing more that was not begun.
    pub fn stop(&mut self) {
        self.seat.stop();
    }

    /// Lets time pass.
    pub fn tick(&mut self, effects: &mut impl Effects<C, P, Reply = R>) {
        self.retry_held_back(effects);
        self.take_reference(effects);
        self.seat.tick(effects.now());
        // They would keep their places while nobody owns, though their turn is not near.
        for (submission, peer) in effects.take_hindered() {
            self.seat.forwarded(submission, peer);
        }
        self.seat.dismiss_hindered();
    }

    fn take_reference(&mut self, effects: &impl Effects<C, P, Reply = R>) {
        if let Some(reference) = effects.reference() {
            self.seat.set_reference(reference);
        }
    }

    /// Takes what there is, as far as the seat has room for it, and performs what comes of it.
    pub fn turn(&mut self, effects: &mut impl Effects<C, P, Reply = R>) {
        let now = effects.now();
        for _ in 0..TAKEN_MAX {
            let Some(input) = effects.next_input() else {
                break;
            };
            self.input(input, now);
        }
        if effects.were_given_up() {
            self.seat.forget_given_up();
        }
        for _ in 0..TAKEN_MAX / TAKEN_AT_ONCE_MAX {
            let took = self.take_commands(effects);
            self.perform(effects);
            if !took {
                break;
            }
        }
    }

    /// Takes commands out of their queues as far as there is room; `false` if there were none.
    fn take_commands(&mut self, effects: &mut impl Effects<C, P, Reply = R>) -> bool {
        let mut took = false;
        if self.takes_forwarded() {
            for _ in 0..TAKEN_AT_ONCE_MAX {
                let Some((submission, peer)) = effects.next_forwarded() else {
                    break;
                };
                self.seat.forwarded(submission, peer);
                took = true;
            }
        }
        if self.takes_commands() {
            for _ in 0..TAKEN_AT_ONCE_MAX {
                let Some((submission, client)) = effects.next_command() else {
                    break;
                };
                self.seat.command(submission, client);
                took = true;
            }
        }
        took
    }

    fn input(&mut self, input: Input, now: Now) {
        let partition = self.seat.partition();
        match input {
            Input::Appended(_, Err(error))
            | Input::Read(Err(error))
            | Input::Proven(_, Err(error))
            | Input::Peeked(Err(error))
                if error.is_final() =>
            {
                self.seat.log_gone(error.to_string());
            }
            Input::Appended(sequence, result) => {
                if let Err(error) = &result {
                    tracing::warn!(error = explained(error), %partition, "an append failed");
                }
                self.seat.appended(sequence, result.ok(), now);
            }
            Input::Read(Ok(chunk)) => self.seat.read(chunk, now),
            Input::Proven(offset, Ok((end, found))) => {
                self.seat.proven(offset, end, found.as_ref());
            }
            Input::Read(Err(LogError::OffsetGone { offset, .. })) => {
                tracing::warn!(%partition, %offset, "the log does not go on there");
                self.seat.offset_gone(now);
            }
            Input::Read(Err(error)) => {
                tracing::warn!(error = explained(&error), %partition, "the log is away");
                self.seat.read_failed();
            }
            Input::Proven(_, Err(error)) => {
                tracing::warn!(error = explained(&error), %partition, "the log is away");
                self.seat.proof_failed();
            }
            Input::Peeked(bounds) => self.seat.peeked(bounds.ok().map(|bounds| bounds.end), now),
            Input::OwnerAnswered => self.seat.owner_answered(now),
            Input::Link(link, event) => self.seat.link_event(link, event, now),
        }
    }

    /// Looks a command up, apart from those that still wait in the queues.
    #[must_use]
    pub fn inquire(&self, inquiry: &Inquiry) -> Inquired {
        self.seat.inquire(inquiry)
    }

    /// Gives everything that waits to the seat and turns it away, before the end.
    pub fn end(&mut self, effects: &mut impl Effects<C, P, Reply = R>) {
        while let Some((submission, client)) = effects.next_command() {
            self.seat.command(submission, client);
        }
        while let Some((submission, peer)) = effects.next_forwarded() {
            self.seat.forwarded(submission, peer);
        }
        self.seat.give_up();
        self.turn(effects);
    }

    /// Whether the local checkpoint is to be written now.
    #[must_use]
    pub fn is_save_due(&self, it_is_time: bool) -> bool {
        self.seat.is_save_due(it_is_time)
    }

    /// Writes the local checkpoint.
    pub fn save(&mut self) {
        self.seat.save();
    }

    fn perform(&mut self, effects: &mut impl Effects<C, P, Reply = R>) {
        for action in self.seat.take_actions(effects.now()) {
            match action {
                SeatAction::Answer(client, answer) => effects.answer(client, answer),
                SeatAction::AnswerPeer(peer, answer) => effects.answer_peer(peer, answer),
                SeatAction::Log(action) => self.perform_on_log(action, effects),
                SeatAction::AskOwner { owner, successor } => effects.ask_owner(owner, successor),
                SeatAction::Open(id, address) => effects.open_link(id, &address),
                SeatAction::Send(id, sequence) => {
                    if let Some(command) = self.seat.sent(sequence) {
                        effects.send(id, sequence, command);
                    }
                }
                SeatAction::Close(id) => effects.close_link(id),
                SeatAction::SayOwner(hint) => effects.say_owner(hint),
                SeatAction::LetGo => {
                    for reply in self.hand_overs.drain(..) {
                        effects.reply(reply, true);
                    }
                }
                SeatAction::TookOver => {
                    for reply in self.take_overs.drain(..) {
                        effects.reply(reply, true);
                    }
                }
            }
        }
    }

    fn perform_on_log(&mut self, action: LogAction, effects: &mut impl Effects<C, P, Reply = R>) {
        match action {
            LogAction::Append {
                sequence,
                record,
                claim,
            } => {
                if claim {
                    self.held_back.clear();
                    effects.new_session();
                }
                self.append(sequence, record, effects);
            }
            LogAction::Read { from } => effects.read(from),
            LogAction::Prove { offset } => effects.prove(offset),
            LogAction::Peek => effects.peek(),
        }
    }

    fn append(
        &mut self,
        sequence: u64,
        record: NewRecord,
        effects: &mut impl Effects<C, P, Reply = R>,
    ) {
        if !self.seat.sends(sequence) {
            return;
        }
        // Order is kept: nothing passes what is held back.
        let held = match self.held_back.is_empty() {
            true => effects.append(&self.seat, sequence, record),
            false => Some(record),
        };
        self.held_back.extend(held.map(|record| (sequence, record)));
        self.seat.set_room(self.held_back.is_empty());
    }

    fn retry_held_back(&mut self, effects: &mut impl Effects<C, P, Reply = R>) {
        while let Some((sequence, record)) = self.held_back.pop_front() {
            if !self.seat.sends(sequence) {
                continue;
            }
            if let Some(record) = effects.append(&self.seat, sequence, record) {
                self.held_back.push_front((sequence, record));
                break;
            }
        }
        self.seat.set_room(self.held_back.is_empty());
    }
}
