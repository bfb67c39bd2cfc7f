//! Whoever waits for a command, from its sending to its one answer.
//!
//! Invariant: a command that was given up before it was taken up is never attempted; one that was
//! taken up is never said not to have been attempted. Deliberately absent: where it goes (`driver`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Submission;
use crate::cluster::{Hint, LinkAnswer, Routed};
use crate::command::{Answer, SubmitError, TurnedAway};

/// Whether a waiting command was taken up or given up; whoever comes first decides.
#[derive(Default)]
pub(crate) struct Fate(AtomicU8);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Fate {
    /// Takes the command up, or finds it taken up before; `false` if its sender gave it up first.
    fn take(&self) -> bool {
        let taken = self
            .0
            .compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken == Err(TAKEN)
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire) == TAKEN
    }

    /// Gives the command up; `false` if it was taken up before.
    pub(crate) fn give_up(&self) -> bool {
        self.0
            .compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// One stream's commands within one batch: whether one of them had no answer.
#[derive(Default)]
pub(crate) struct Guard(AtomicBool);

impl Guard {
    pub(crate) fn close(&self, error: &SubmitError) {
        if is_unanswered(error) {
            self.0.store(true, Ordering::Release);
        }
    }

    /// What later commands of the stream are answered.
    pub(crate) fn closed(&self) -> Option<SubmitError> {
        self.0
            .load(Ordering::Acquire)
            .then(|| turned_away(TurnedAway::AfterUnanswered))
    }
}

/// Whether a command has no outcome that lasts: it may still be sent again.
fn is_unanswered(error: &SubmitError) -> bool {
    match error {
        SubmitError::Unknown | SubmitError::TurnedAway { .. } => true,
        SubmitError::IdReused
        | SubmitError::TooLarge { .. }
        | SubmitError::Failed
        | SubmitError::Damaged(_) => false,
    }
}

pub(crate) fn turned_away(reason: TurnedAway) -> SubmitError {
    SubmitError::TurnedAway {
        reason,
        retry_after: Duration::from_secs(1),
    }
}

/// A client of this node that waits for a command.
pub(crate) struct ClientTicket {
    pub(crate) reply: oneshot::Sender<Result<Answer, SubmitError>>,
    pub(crate) fate: Arc<Fate>,
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) deadline: Instant,
    /// The command's part of the memory that waiting commands may take.
    pub(crate) _held: Option<OwnedSemaphorePermit>,
}

impl ClientTicket {
    fn answer(self, answer: Result<Answer, SubmitError>) {
        if let (Some(guard), Err(error)) = (&self.guard, &answer) {
            // Before whoever waits learns of it: what comes behind must not slip through.
            guard.close(error);
        }
        // Whoever asked may have gone.
        let _ = self.reply.send(answer);
    }
}

/// What a link from another node stands at: once something was answered *moved* or had no outcome,
/// everything behind it is *moved*, so that the sender keeps the order.
#[derive(Default)]
pub(crate) struct LinkGuard(AtomicBool);

impl LinkGuard {
    fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn close(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Another node that waits for a command.
pub(crate) struct PeerTicket {
    pub(crate) reply: oneshot::Sender<LinkAnswer>,
    pub(crate) link: Arc<LinkGuard>,
    pub(crate) deadline: Instant,
    pub(crate) _held: Option<OwnedSemaphorePermit>,
}

impl PeerTicket {
    /// Whether nothing that comes behind on its link may be attempted.
    pub(crate) fn is_behind_moved(&self) -> bool {
        self.link.is_closed()
    }

    pub(crate) fn moved(self, owner: Option<Hint>) {
        self.link.close();
        let _ = self.reply.send(LinkAnswer::Moved(owner));
    }

    pub(crate) fn answer(self, answer: Result<Answer, SubmitError>) {
        if answer.as_ref().is_err_and(is_unanswered) {
            self.link.close();
        }
        let _ = self.reply.send(LinkAnswer::Answered(answer));
    }
}

/// Whoever waits for an answer.
pub(crate) enum Ticket {
    Client(ClientTicket),
    Peer(PeerTicket),
}

impl Ticket {
    pub(crate) fn answer(self, answer: Result<Answer, SubmitError>) {
        match self {
            Self::Client(ticket) => ticket.answer(answer),
            Self::Peer(ticket) => ticket.answer(answer),
        }
    }
}

/// A command of this node's clients on its way to its owner.
pub(crate) struct Command {
    pub(crate) submission: Submission,
    /// Who waits, and whether the first answer is a repetition for them.
    pub(crate) waiters: Vec<(ClientTicket, bool)>,
}

impl Command {
    pub(crate) fn answer(self, answer: &Result<Answer, SubmitError>) {
        for (ticket, _) in self.waiters {
            ticket.answer(answer.clone());
        }
    }

    /// Whether it may be in the log: it was attempted once.
    pub(crate) fn was_attempted(&self) -> bool {
        self.waiters
            .iter()
            .any(|(ticket, _)| ticket.fate.is_taken())
    }

    /// When the last of those who wait stops waiting.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiters.iter().map(|(ticket, _)| ticket.deadline).max()
    }
}

impl Routed for Command {
    fn take_up(&mut self) -> bool {
        let mut kept = Vec::with_capacity(self.waiters.len());
        for (ticket, repeated) in self.waiters.drain(..) {
            let was_taken = ticket.fate.is_taken();
            let closed = ticket.guard.as_ref().and_then(|guard| guard.closed());
            match closed {
                // It was attempted, and trying again could bring it before the line that is open.
                Some(_) if was_taken => ticket.answer(Err(SubmitError::Unknown)),
                Some(error) if ticket.fate.take() => ticket.answer(Err(error)),
                None if !ticket.reply.is_closed() && ticket.fate.take() => {
                    kept.push((ticket, repeated));
                }
                _ => {}
            }
        }
        self.waiters = kept;
        !self.waiters.is_empty()
    }
}

/// A command that another node forwarded.
pub(crate) struct PeerCommand {
    pub(crate) submission: Submission,
    pub(crate) ticket: PeerTicket,
}
