//! Whoever waits for a command, from its sending to its one answer.
//!
//! Invariant: a command that was given up before it was taken up is never attempted; one that was
//! taken up is never said not to have been attempted. Deliberately absent: where it goes (`route`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Client, Hindrance, Peer};
use crate::cluster::LinkAnswer;
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
    pub(super) fn answer(self, answer: Result<Answer, SubmitError>) {
        // Whoever asked may have gone.
        let _ = self.reply.send(answer);
    }
}

impl Client for ClientTicket {
    fn take_up(&mut self) -> Result<(), Option<SubmitError>> {
        let was_taken = self.fate.is_taken();
        let closed = self.guard.as_ref().and_then(|guard| guard.closed());
        match closed {
            // It was attempted, and trying again could bring it before the line that is open.
            Some(_) if was_taken => Err(Some(SubmitError::Unknown)),
            Some(error) if self.fate.take() => Err(Some(error)),
            None if !self.reply.is_closed() && self.fate.take() => Ok(()),
            _ => Err(None),
        }
    }

    fn was_attempted(&self) -> bool {
        self.fate.is_taken()
    }

    fn settle(&mut self, answer: &Result<Answer, SubmitError>) {
        if let (Some(guard), Err(error)) = (&self.guard, answer) {
            // Before whoever waits learns of it: what comes behind must not slip through.
            guard.close(error);
        }
    }
}

/// What a link from another node stands at: once something was answered *moved* or had no outcome,
/// everything behind it is *moved*, so that the sender keeps the order.
#[derive(Default)]
pub(crate) struct LinkGuard(AtomicBool);

impl LinkGuard {
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
    pub(super) fn answer(self, answer: LinkAnswer) {
        // Its node may have gone.
        let _ = self.reply.send(answer);
    }
}

impl Peer for PeerTicket {
    fn hindrance(&self) -> Option<Hindrance> {
        if self.link.0.load(Ordering::Acquire) {
            Some(Hindrance::BehindMoved)
        } else if self.deadline <= Instant::now() {
            Some(Hindrance::Late)
        } else {
            None
        }
    }

    fn settle(&mut self, answer: &LinkAnswer) {
        let keeps_on = match answer {
            LinkAnswer::Answered(Ok(_)) => true,
            LinkAnswer::Answered(Err(error)) => !is_unanswered(error),
            LinkAnswer::Moved(_) => false,
        };
        if !keeps_on {
            self.link.close();
        }
    }
}
