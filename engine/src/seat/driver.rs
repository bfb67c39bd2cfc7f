//! Drives a seat: takes inputs and commands out of the queues, and performs what the seat asks for.
//!
//! Invariants: production and the simulator run this code, each with its own [`Effects`]. Inputs are
//! taken in order, and appends keep their order. Deliberately absent: I/O (`effects`), all decisions
//! (`seat`), and the choice of the thread (`desk`).

use std::collections::VecDeque;

use event_log::directory::Hint;
use event_log::record::NewRecord;
use position::Offset;

use super::{Client, Command, Input, Peer, Seat, SeatAction};
use crate::clock::Reference;
use crate::command::Reply;
use crate::owner::{LogAction, Now, Submission};
use crate::peers::{LinkAnswer, LinkId};

/// How many inputs, and how many commands, one turn takes at most.
const TAKEN_MAX: usize = 256;
/// How many commands are taken out of a queue before they are routed. Once taken out, a command keeps
/// its place: a sender whose turn comes later cannot pass it.
const TAKEN_AT_ONCE_MAX: usize = 16;

/// A request of another node to a seat, apart from commands. `R` carries the reply.
pub enum Control<R> {
    /// Hand the partition over to `successor`. The reply says whether this node owned it.
    HandOver {
        /// The node that takes over.
        successor: Hint,
        /// The node that asks.
        reply: R,
    },
    /// Take the partition over, whatever the group says. The reply comes when this node owns it.
    TakeOver {
        /// The node that asks.
        reply: R,
    },
}

/// What a driver does outside its seat. The caller passes it to each call, so the driver itself
/// holds no I/O.
pub trait Effects<C: Client, P: Peer> {
    /// Carries the reply to a node that asked for a hand-over or a take-over.
    type Asker;

    fn now(&self) -> Now;

    /// The reference for this node's clock, if there is one yet.
    fn reference(&self) -> Option<Reference>;

    /// Takes the oldest input.
    fn next_input(&mut self) -> Option<Input>;

    /// Takes the next command of this node's clients.
    fn next_command(&mut self) -> Option<(Submission, C)>;

    /// Takes the oldest forwarded command.
    fn next_forwarded(&mut self) -> Option<(Submission, P)>;

    /// Takes the forwarded commands that must not be attempted any more, before their turn.
    fn take_hindered(&mut self) -> Vec<(Submission, P)>;

    /// Whether, since the last call, a client gave up a command that was taken out of its queue.
    fn were_given_up(&mut self) -> bool;

    /// Makes the next append open a new session with the log: it is a claim.
    fn new_session(&mut self);

    /// Hands a record to the log; the result comes as [`Input::Appended`]. Returns the record if the
    /// session has no room for it now.
    fn append(&mut self, seat: &Seat<C, P>, sequence: u64, record: NewRecord) -> Option<NewRecord>;

    /// Reads a chunk of the log from an offset on; the result comes as [`Input::Read`].
    fn read(&mut self, from: Offset);

    /// Looks at the log's end and at the record at an offset; the result comes as [`Input::Proven`].
    fn prove(&mut self, offset: Offset);

    /// Looks at the log's end; the result comes as [`Input::Peeked`].
    fn peek(&mut self);

    /// Asks the owning node to hand over to `successor`; [`Input::OwnerAnswered`] follows.
    fn ask_owner(&mut self, owner: Hint, successor: Hint);

    /// Opens a link to the node at an address; its answers come as [`Input::Link`].
    fn open_link(&mut self, id: LinkId, address: &str);

    /// Sends a command over a link, if it is the open link.
    fn send(&mut self, id: LinkId, sequence: u64, command: &Command<C>);

    /// Closes a link, if it is the open link.
    fn close_link(&mut self, id: LinkId);

    /// Announces to all nodes that this node owns the partition.
    fn say_owner(&mut self, hint: Hint);

    fn answer(&mut self, client: C, answer: Reply);

    /// Answers another node that forwarded a command.
    fn answer_peer(&mut self, peer: P, answer: LinkAnswer);

    /// Replies to a node that asked for a hand-over or a take-over.
    fn reply(&mut self, reply: Self::Asker, is_so: bool);
}

/// A seat with the appends and replies that wait.
pub struct Driver<C, P, R> {
    seat: Seat<C, P>,
    /// Appends that the log's session has no room for yet, in order.
    appends: VecDeque<(u64, NewRecord)>,
    /// Replies that wait until this node has let the partition go.
    hand_overs: Vec<R>,
    /// Replies that wait until this node owns the partition.
    take_overs: Vec<R>,
}

impl<C: Client, P: Peer, R> Driver<C, P, R> {
    #[must_use]
    pub fn new(seat: Seat<C, P>) -> Self {
        Self {
            seat,
            appends: VecDeque::new(),
            hand_overs: Vec::new(),
            take_overs: Vec::new(),
        }
    }

    #[must_use]
    pub fn seat(&self) -> &Seat<C, P> {
        &self.seat
    }

    /// The seat, for news that do not come as inputs. What they cause is performed at the next turn.
    pub fn seat_mut(&mut self) -> &mut Seat<C, P> {
        &mut self.seat
    }

    /// How many commands are in flight or wait.
    #[must_use]
    pub fn load(&self) -> usize {
        self.seat.owner().in_flight() + self.seat.waiting() + self.seat.forwarded_waiting()
    }

    /// Starts the seat. `first_offset` is the first offset that the log still keeps.
    pub fn start(
        &mut self,
        first_offset: Offset,
        assigned: bool,
        effects: &impl Effects<C, P, Asker = R>,
    ) {
        self.take_reference(effects);
        self.seat.start(first_offset, assigned, effects.now());
    }

    /// Takes a request of another node.
    pub fn control(&mut self, control: Control<R>, effects: &mut impl Effects<C, P, Asker = R>) {
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

    /// Lets time pass.
    pub fn tick(&mut self, effects: &mut impl Effects<C, P, Asker = R>) {
        self.append(effects);
        self.take_reference(effects);
        self.seat.tick(effects.now());
        // Their turn does not come while nobody owns, and they hold places in the queue.
        for (submission, peer) in effects.take_hindered() {
            self.seat.forwarded(submission, peer);
        }
        self.seat.dismiss_hindered();
    }

    fn take_reference(&mut self, effects: &impl Effects<C, P, Asker = R>) {
        if let Some(reference) = effects.reference() {
            self.seat.owner.set_reference(reference);
        }
    }

    /// Takes inputs and commands as far as the seat has room, and performs the actions.
    pub fn turn(&mut self, effects: &mut impl Effects<C, P, Asker = R>) {
        let now = effects.now();
        for _ in 0..TAKEN_MAX {
            let Some(input) = effects.next_input() else {
                break;
            };
            self.seat.input(input, now);
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

    /// Takes commands out of their queues if the seat has room; `false` if none was taken.
    fn take_commands(&mut self, effects: &mut impl Effects<C, P, Asker = R>) -> bool {
        let mut took = false;
        if self.seat.takes_forwarded() {
            for _ in 0..TAKEN_AT_ONCE_MAX {
                let Some((submission, peer)) = effects.next_forwarded() else {
                    break;
                };
                self.seat.forwarded(submission, peer);
                took = true;
            }
        }
        if self.seat.takes_commands() {
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

    /// Turns away all commands that still wait, before the end.
    pub fn end(&mut self, effects: &mut impl Effects<C, P, Asker = R>) {
        while let Some((submission, client)) = effects.next_command() {
            self.seat.command(submission, client);
        }
        while let Some((submission, peer)) = effects.next_forwarded() {
            self.seat.forwarded(submission, peer);
        }
        self.seat.give_up();
        self.turn(effects);
    }

    fn perform(&mut self, effects: &mut impl Effects<C, P, Asker = R>) {
        for action in self.seat.take_actions(effects.now()) {
            match action {
                SeatAction::Answer(client, answer) => effects.answer(client, answer),
                SeatAction::AnswerPeer(peer, answer) => effects.answer_peer(peer, answer),
                SeatAction::Log(LogAction::Append {
                    sequence,
                    record,
                    claim,
                }) => {
                    if claim {
                        self.appends.clear();
                        effects.new_session();
                    }
                    self.appends.push_back((sequence, record));
                    self.append(effects);
                }
                SeatAction::Log(LogAction::Read { from }) => effects.read(from),
                SeatAction::Log(LogAction::Prove { offset }) => effects.prove(offset),
                SeatAction::Log(LogAction::Peek) => effects.peek(),
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

    /// Hands appends to the log's session, in order, as far as it has room.
    fn append(&mut self, effects: &mut impl Effects<C, P, Asker = R>) {
        while let Some((sequence, record)) = self.appends.pop_front() {
            if !self.seat.owner.sends(sequence) {
                continue;
            }
            if let Some(record) = effects.append(&self.seat, sequence, record) {
                self.appends.push_front((sequence, record));
                break;
            }
        }
        self.seat.has_room = self.appends.is_empty();
    }
}
