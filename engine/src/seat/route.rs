//! Where commands go, step by step, and what happens to the answers.
//!
//! Deliberately absent: the order of steps for this node's own clients (`router`).

use event_log::directory::Hint;
use position::Term;

use super::{Client, Hindrance, LocalOwner, Peer, Seat, SeatAction, Step, Ticket};
use crate::command::{Reply, SubmitError, TurnedAway, turned_away};
use crate::owner::{Action, LogAction, Now, Submission};
use crate::peers::{LinkAnswer, LinkEvent, LinkId};

/// A command of this node's clients on its way to the owner.
pub struct Command<C> {
    pub submission: Submission,
    /// The clients that wait, each with whether the first answer counts as repeated for it.
    pub waiters: Vec<(C, bool)>,
    /// Clients that get another answer than the command's.
    dismissed: Vec<(C, SubmitError)>,
    /// Whether the command was sent to a node and its fate there is unknown: it may be in the log.
    pub(super) is_lost: bool,
}

impl<C> Command<C> {
    pub(super) fn new(submission: Submission, waiters: Vec<(C, bool)>) -> Self {
        Self {
            submission,
            waiters,
            dismissed: Vec::new(),
            is_lost: false,
        }
    }

    /// The clients' answer, given the answer of the owner or of this node. If the fate of an
    /// earlier attempt is unknown, "not attempted this time" becomes *unknown*.
    fn told(&self, answer: Reply) -> Reply {
        match answer {
            Err(
                SubmitError::TurnedAway { .. } | SubmitError::Damaged(_) | SubmitError::Frozen(_),
            ) if self.is_lost => Err(SubmitError::Unknown),
            answer => answer,
        }
    }
}

impl<C: Client> Command<C> {
    /// Takes the command up; `false`: nobody waits for it any more, and it is to be dropped. Once
    /// this was `true`, the command may be in the log.
    pub(super) fn take_up(&mut self) -> bool {
        let mut kept = Vec::with_capacity(self.waiters.len());
        for (mut client, repeated) in self.waiters.drain(..) {
            match client.take_up() {
                Ok(()) => kept.push((client, repeated)),
                Err(Some(error)) => self.dismissed.push((client, error)),
                Err(None) => {}
            }
        }
        self.waiters = kept;
        !self.waiters.is_empty()
    }

    /// Whether nobody waits for the command any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.waiters
            .iter()
            .all(|(client, _)| client.waiter().is_gone())
    }

    /// Frees everything that the command holds except its name. It is never sent or decided again.
    pub(super) fn strip(&mut self) {
        self.waiters = Vec::new();
        self.submission.strip();
    }
}

impl<C: Client, P: Peer> Seat<C, P> {
    /// Routes commands as far as possible now, and returns what is to be done.
    pub fn take_actions(&mut self, now: Now) -> Vec<SeatAction<C, P>> {
        self.drop_disproven();
        loop {
            // Before each step: commands that the owner gives back go before those that wait.
            self.take_owners_actions(now);
            // In turns: where there is room for one command only, own clients and other nodes both
            // get through.
            let took = match self.peer_was_last {
                true => self.take_own(now) || self.take_forwarded(now),
                false => self.take_forwarded(now) || self.take_own(now),
            };
            if !took {
                break;
            }
        }
        self.tell_moves();
        std::mem::take(&mut self.actions)
    }

    /// The state of the owner in this node.
    #[must_use]
    pub fn local_owner(&self) -> LocalOwner {
        if self.owner.takes_commands() && self.has_room && !self.stopping {
            LocalOwner::Takes
        } else if self.owner.may_own_soon() {
            LocalOwner::Busy
        } else {
            LocalOwner::Elsewhere
        }
    }

    fn take_owners_actions(&mut self, now: Now) {
        let mut released = Vec::new();
        loop {
            let actions = self.owner.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                match action {
                    Action::Answer { ticket, answer } => self.answer(ticket, answer),
                    Action::Log(action) => {
                        // A claim opens a session of its own, which has room.
                        self.has_room |= matches!(action, LogAction::Append { claim: true, .. });
                        self.actions.push(SeatAction::Log(action));
                    }
                    Action::AskOwner => self.ask_owner(now),
                    Action::Release {
                        submission,
                        waiters,
                    } => released.extend(self.release(submission, waiters)),
                }
            }
        }
        self.router.put_back(released.into_iter());
    }

    fn answer(&mut self, ticket: Ticket<C, P>, answer: Reply) {
        match ticket {
            Ticket::Client(client) => self.tell(client, answer),
            Ticket::Peer(peer) => self.tell_peer(peer, LinkAnswer::Answered(answer)),
        }
    }

    fn tell(&mut self, client: C, answer: Reply) {
        client.waiter().settle(&answer);
        self.actions.push(SeatAction::Answer(client, answer));
    }

    fn tell_peer(&mut self, peer: P, answer: LinkAnswer) {
        peer.waiter().settle_link(&answer);
        self.actions.push(SeatAction::AnswerPeer(peer, answer));
    }

    /// Asks the owner to hand over; if no other owner is known, goes on at once.
    fn ask_owner(&mut self, now: Now) {
        let own = self.identity.hint(Term(self.owner.chain().term.0 + 1));
        match (self.target().cloned(), own) {
            (Some(owner), Some(successor)) => {
                self.actions.push(SeatAction::AskOwner { owner, successor });
            }
            _ => self.owner.owner_answered(now),
        }
    }

    /// Takes a command that a deposed owner gives back. This node's clients wait for the new owner.
    /// Other nodes are answered *moved*: they know the order of the commands that they forwarded.
    fn release(
        &mut self,
        submission: Submission,
        waiters: Vec<(Ticket<C, P>, bool)>,
    ) -> Option<Command<C>> {
        let mut own = Vec::with_capacity(waiters.len());
        for (ticket, repeated) in waiters {
            match ticket {
                Ticket::Client(client) => own.push((client, repeated)),
                Ticket::Peer(peer) => self.moved(peer),
            }
        }
        (!own.is_empty()).then(|| Command::new(submission, own))
    }

    fn moved(&mut self, peer: P) {
        let owner = self.target().cloned();
        self.tell_peer(peer, LinkAnswer::Moved(owner));
    }

    /// Takes a step with a command of this node's clients; `false` if no step is possible.
    fn take_own(&mut self, now: Now) -> bool {
        if let Some(error) = self.damage() {
            for command in self.router.take_all() {
                self.answer_all(command, Err(error.clone()));
            }
            return false;
        }
        let local_owner = match self.local_owner() {
            LocalOwner::Busy if self.is_still_owned_elsewhere(now) => LocalOwner::Elsewhere,
            local_owner => local_owner,
        };
        if local_owner == LocalOwner::Elsewhere && !self.owner.is_drained() {
            // Commands in flight here may still have to go to another node, before those that wait.
            return false;
        }
        let target = match local_owner {
            LocalOwner::Elsewhere => self.target().cloned(),
            LocalOwner::Takes | LocalOwner::Busy => None,
        };
        if self.stopping && target.is_none() {
            self.turn_away_waiting();
            return false;
        }
        let step = self
            .router
            .next(local_owner, target.as_ref(), now.monotonic_ms);
        for command in self.router.take_dropped() {
            self.dismiss(command.dismissed);
        }
        self.peer_was_last &= step.is_none();
        match step {
            None => return false,
            Some(Step::Decide(command)) => {
                self.dismiss(command.dismissed);
                let waiters = command
                    .waiters
                    .into_iter()
                    .map(|(client, repeated)| (Ticket::Client(client), repeated));
                self.owner
                    .decide(command.submission, waiters.collect(), now);
            }
            Some(Step::Open(id, address)) => self.actions.push(SeatAction::Open(id, address)),
            Some(Step::Send(id, sequence)) => {
                let command = self.router.sent_mut(sequence);
                let dismissed = command.map(|command| std::mem::take(&mut command.dismissed));
                self.dismiss(dismissed.unwrap_or_default());
                self.actions.push(SeatAction::Send(id, sequence));
            }
            Some(Step::Close(id)) => self.actions.push(SeatAction::Close(id)),
        }
        true
    }

    /// Whether another node still decides while this node reads before its take-over. A node that
    /// does not answer may be gone: commands sent to it would wait longer than the reading takes.
    fn is_still_owned_elsewhere(&self, now: Now) -> bool {
        let answers = |owner: &Hint| self.router.is_answered_by(owner, now.monotonic_ms);
        self.owner.is_reading_up() && self.target().is_some_and(answers)
    }

    pub fn link_event(&mut self, id: LinkId, event: LinkEvent, now: Now) {
        let had_link = self.router.has_link(id);
        match event {
            LinkEvent::Answer(sequence, answer) => {
                if let LinkAnswer::Moved(Some(hint)) = &answer {
                    self.learn(hint.clone(), now);
                }
                let settled = self.router.answered(id, sequence, answer, now.monotonic_ms);
                if let Some((command, answer)) = settled {
                    self.answer_all(command, answer);
                }
            }
            LinkEvent::Broken(reason) => {
                tracing::debug!(partition = %self.partition(), reason, "a link broke");
                self.router.broken(id, now.monotonic_ms);
            }
        }
        if had_link && !self.router.has_link(id) {
            self.actions.push(SeatAction::Close(id));
        }
    }

    /// Takes a step with a command that another node forwarded; `false` if no step is possible.
    fn take_forwarded(&mut self, now: Now) -> bool {
        let damage = self.damage();
        let local_owner = self.local_owner();
        if damage.is_none() && local_owner == LocalOwner::Busy && !self.stopping {
            return false;
        }
        let Some((submission, peer)) = self.from_peers.pop_front() else {
            return false;
        };
        self.peer_was_last = true;
        let refusal = damage.or_else(|| {
            let late = peer.hindrance() == Some(Hindrance::Late);
            late.then(|| turned_away(TurnedAway::Late))
        });
        if peer.hindrance() == Some(Hindrance::BehindMoved) {
            self.moved(peer);
        } else if let Some(error) = refusal {
            self.answer(Ticket::Peer(peer), Err(error));
        } else if local_owner == LocalOwner::Takes {
            self.owner.command(submission, Ticket::Peer(peer), now);
        } else {
            self.moved(peer);
        }
        true
    }

    fn answer_all(&mut self, command: Command<C>, answer: Reply) {
        let answer = command.told(answer);
        for (client, _) in command.waiters {
            self.tell(client, answer.clone());
        }
        self.dismiss(command.dismissed);
    }

    /// Turns away the commands that wait here, because this node will decide nothing more.
    fn turn_away_waiting(&mut self) {
        for mut command in self.router.take_waiting_all() {
            let attempted = command
                .waiters
                .iter()
                .any(|(client, _)| client.waiter().is_taken());
            command.take_up();
            let error = match attempted {
                true => SubmitError::Unknown,
                false => turned_away(TurnedAway::Stopping),
            };
            self.answer_all(command, Err(error));
        }
    }

    /// For the end: turns away what waits, and answers *unknown* to what is open elsewhere.
    pub fn give_up(&mut self) {
        self.stopping = true;
        self.turn_away_waiting();
        for command in self.router.take_all() {
            self.answer_all(command, Err(SubmitError::Unknown));
        }
        while let Some((_, peer)) = self.from_peers.pop_front() {
            self.moved(peer);
        }
    }

    /// Frees commands for which nobody waits any more: entirely if they wait here; all but their
    /// names if they were sent.
    pub fn forget_given_up(&mut self) {
        self.router.forget_given_up();
        for command in self.router.take_dropped() {
            self.dismiss(command.dismissed);
        }
    }

    /// Answers forwarded commands that must not be attempted any more, before their turn.
    pub fn dismiss_hindered(&mut self) {
        for (submission, peer) in std::mem::take(&mut self.from_peers) {
            match peer.hindrance() {
                None => self.from_peers.push_back((submission, peer)),
                Some(Hindrance::BehindMoved) => self.moved(peer),
                Some(Hindrance::Late) => {
                    let error = turned_away(TurnedAway::Late);
                    self.answer(Ticket::Peer(peer), Err(error));
                }
            }
        }
    }

    fn dismiss(&mut self, dismissed: Vec<(C, SubmitError)>) {
        for (client, error) in dismissed {
            self.tell(client, Err(error));
        }
    }
}
