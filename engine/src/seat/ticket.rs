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
pub struct Fate(AtomicU8);

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

    /// Takes the command up for an attempt, for a client that has `gone` or not, in a stream's
    /// `guard` or in none.
    ///
    /// # Errors
    /// As [`Client::take_up`].
    pub fn take_up(&self, guard: Option<&Guard>, gone: bool) -> Result<(), Option<SubmitError>> {
        let was_taken = self.is_taken();
        match guard.and_then(Guard::closed) {
            // It was attempted, and trying again could bring it before the line that is open.
            Some(_) if was_taken => Err(Some(SubmitError::Unknown)),
            Some(error) if self.take() => Err(Some(error)),
            None if !gone && self.take() => Ok(()),
            _ => Err(None),
        }
    }

    /// Whether the command was taken up.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire) == TAKEN
    }

    /// Gives the command up; `false` if it was taken up before.
    pub fn give_up(&self) -> bool {
        self.0
            .compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// One stream's commands within one batch: whether one of them had no answer.
#[derive(Default)]
pub struct Guard(AtomicBool);

impl Guard {
    /// Notes what one of them was answered.
    pub fn close(&self, error: &SubmitError) {
        if is_unanswered(error) {
            self.0.store(true, Ordering::Release);
        }
    }

    /// What later commands of the stream are answered.
    #[must_use]
    pub fn closed(&self) -> Option<SubmitError> {
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

/// The error of a command that was not attempted.
#[must_use]
pub fn turned_away(reason: TurnedAway) -> SubmitError {
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
        self.fate
            .take_up(self.guard.as_deref(), self.reply.is_closed())
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
pub struct LinkGuard(AtomicBool);

impl LinkGuard {
    /// Notes that everything behind is *moved*.
    pub fn close(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// What keeps the next command of the link from being attempted, if its sender `is_late` or
    /// not.
    #[must_use]
    pub fn hindrance(&self, is_late: bool) -> Option<Hindrance> {
        if self.0.load(Ordering::Acquire) {
            Some(Hindrance::BehindMoved)
        } else {
            is_late.then_some(Hindrance::Late)
        }
    }

    /// Notes what one of its commands is answered.
    pub fn settle(&self, answer: &LinkAnswer) {
        let keeps_on = match answer {
            LinkAnswer::Answered(Ok(_)) => true,
            LinkAnswer::Answered(Err(error)) => !is_unanswered(error),
            LinkAnswer::Moved(_) => false,
        };
        if !keeps_on {
            self.close();
        }
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
        self.link.hindrance(self.deadline <= Instant::now())
    }

    fn settle(&mut self, answer: &LinkAnswer) {
        self.link.settle(answer);
    }
}
