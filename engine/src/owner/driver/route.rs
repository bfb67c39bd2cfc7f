//! Where commands go, step by step, and what comes back for them.
//!
//! Deliberately absent: the order of steps for this node's own clients (`cluster::Router`).

use std::time::Instant;

use super::{Driver, Input};
use crate::cluster::{CommandForPeer, Hint, LinkAnswer, LinkEvent, LinkId, Standing, Step};
use crate::command::TurnedAway;
use crate::owner::ticket::{Command, PeerCommand, Ticket, turned_away};

impl Driver {
    /// Performs actions and routes commands until nothing is left to do now.
    pub(super) fn work(&mut self) {
        self.perform();
        loop {
            let mut steps = 0_usize;
            loop {
                let forwarded = self.take_forwarded();
                if !(self.take_own() || forwarded) {
                    break;
                }
                steps += 1;
            }
            if steps == 0 {
                return;
            }
            self.perform();
        }
    }

    /// How the owner in this node stands.
    fn standing(&self) -> Standing {
        let stopping = *self.ends.stopping.borrow();
        if self.owner.takes_commands() && self.held_back.is_empty() && !stopping {
            Standing::Takes
        } else if self.owner.may_own_soon() {
            Standing::Busy
        } else {
            Standing::Elsewhere
        }
    }

    /// Where the owner is, if that is not this node.
    pub(super) fn target(&self) -> Option<&Hint> {
        let heard = [self.owner.holder(), self.hint.as_ref()];
        let elsewhere = heard
            .into_iter()
            .flatten()
            .filter(|hint| Some(&hint.address) != self.shared.address.as_ref());
        elsewhere.max_by_key(|hint| hint.term)
    }

    pub(super) fn learn(&mut self, hint: Hint) {
        if self
            .hint
            .as_ref()
            .is_none_or(|known| known.term <= hint.term)
        {
            self.hint = Some(hint);
        }
    }

    /// Looks into the directory for who owns this partition.
    pub(super) fn look_up(&mut self) {
        let hint = {
            let known = self.ends.known.borrow_and_update();
            known.owners.get(&self.partition).cloned()
        };
        if let Some(hint) = hint {
            self.learn(hint);
        }
    }

    /// Takes a step with a command of this node's clients; `false` if there is none to take.
    fn take_own(&mut self) -> bool {
        if let Some(error) = self.owner_stopped() {
            for command in self.router.take_all() {
                command.answer(&Err(error.clone()));
            }
            return false;
        }
        let now = self.now();
        let standing = self.standing();
        let target = match standing {
            Standing::Elsewhere => self.target().cloned(),
            Standing::Takes | Standing::Busy => None,
        };
        if *self.ends.stopping.borrow() && (standing != Standing::Elsewhere || target.is_none()) {
            self.turn_away_waiting();
            return false;
        }
        let Some(step) = self
            .router
            .next(standing, target.as_ref(), now.monotonic_ms)
        else {
            return false;
        };
        match step {
            Step::Decide(Command {
                submission,
                waiters,
            }) => {
                let waiters = waiters
                    .into_iter()
                    .map(|(ticket, repeated)| (Ticket::Client(ticket), repeated));
                self.owner.released(submission, waiters.collect(), now);
            }
            Step::Open(id, address) => {
                let inputs = self.inputs.clone();
                let events = Box::new(move |event| {
                    let _ = inputs.send(Input::Link(id, event));
                });
                let link = self.shared.peers.open(&address, self.partition, events);
                self.link = Some((id, link));
            }
            Step::Send(id, sequence) => self.send(id, sequence),
            Step::Close(id) => self.close(id),
        }
        true
    }

    fn send(&mut self, id: LinkId, sequence: u64) {
        let Some(command) = self.router.sent(sequence) else {
            return;
        };
        let Some((open, link)) = &self.link else {
            return;
        };
        if *open == id {
            link.send(CommandForPeer {
                sequence,
                request: command.submission.request.clone(),
                deadline: command.deadline().unwrap_or_else(Instant::now),
            });
        }
    }

    fn close(&mut self, id: LinkId) {
        self.link.take_if(|(open, _)| *open == id);
    }

    pub(super) fn link_event(&mut self, id: LinkId, event: LinkEvent) {
        let now_ms = self.now().monotonic_ms;
        match event {
            LinkEvent::Answer(sequence, answer) => {
                if let LinkAnswer::Moved(Some(hint)) = &answer {
                    self.learn(hint.clone());
                }
                if let Some(settled) = self.router.answered(id, sequence, answer, now_ms) {
                    settled.command.answer(&settled.answer);
                }
                if !self.router.has_link(id) {
                    self.close(id);
                }
            }
            LinkEvent::Broken(reason) => {
                tracing::debug!(partition = %self.partition, reason, "a link broke");
                self.router.broken(id, now_ms);
                self.close(id);
            }
        }
    }

    /// Takes a step with a command that another node forwarded; `false` if there is none to take.
    fn take_forwarded(&mut self) -> bool {
        let stopped = self.owner_stopped();
        let standing = self.standing();
        if self.from_peers.is_empty() || (stopped.is_none() && standing == Standing::Busy) {
            return false;
        }
        let Some(PeerCommand { submission, ticket }) = self.from_peers.pop_front() else {
            return false;
        };
        let now = self.now();
        if let Some(error) = stopped {
            ticket.answer(Err(error));
        } else if ticket.is_behind_moved() || standing == Standing::Elsewhere {
            ticket.moved(self.target().cloned());
        } else if ticket.deadline <= Instant::now() {
            ticket.answer(Err(turned_away(TurnedAway::Late)));
        } else {
            self.owner.command(submission, Ticket::Peer(ticket), now);
        }
        true
    }

    /// Turns away what waits for this node to decide when it no longer will.
    fn turn_away_waiting(&mut self) {
        for mut command in self.router.take_waiting_all() {
            let attempted = command.was_attempted();
            if crate::cluster::Routed::take_up(&mut command) {
                command.answer(&Err(if attempted {
                    crate::command::SubmitError::Unknown
                } else {
                    turned_away(TurnedAway::Stopping)
                }));
            }
        }
    }

    /// The end of the task: nobody is left without an answer.
    pub(super) fn turn_away_all(&mut self) {
        self.turn_away_waiting();
        for command in self.router.take_all() {
            command.answer(&Err(crate::command::SubmitError::Unknown));
        }
        let target = self.target().cloned();
        while let Some(PeerCommand { ticket, .. }) = self.from_peers.pop_front() {
            ticket.moved(target.clone());
        }
    }
}
