//! Whoever waits for a command, from its sending to its one answer.
//!
//! Invariant: a command that was given up before it was taken up is never attempted; one that was
//! taken up is never said not to have been attempted. Deliberately absent: where it goes (`route`).

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Client, Hindrance, Peer};
use crate::command::{Answer, SubmitError, TurnedAway};
use crate::peers::LinkAnswer;
use crate::service::Part;

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

/// How long a command may wait for its turn while others have theirs.
const TURN_WITHIN: Duration = Duration::from_secs(1);
/// After so long without anybody's turn the partition stood still, and all wait from then on.
const STANDSTILL: Duration = Duration::from_millis(250);

/// How the commands of one partition come to their turn. Where more are sent than can be taken, each
/// would wait as long as its client does, and be decided for nobody; so those that waited too long are
/// turned away, unless it was a standstill (a move, a slow log) that they waited for.
pub struct Turns(Mutex<Turn>);

struct Turn {
    last: Instant,
    /// When the last standstill ended.
    flows_since: Instant,
}

impl Turns {
    /// Of a partition where nobody waits yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Turn {
            last: now,
            flows_since: now,
        }))
    }

    /// Notes that it is the turn of a command that has waited since `queued`; whether it has waited
    /// too long.
    #[must_use]
    pub fn came_too_late(&self, queued: Instant, now: Instant) -> bool {
        let mut turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(turn.last) > STANDSTILL {
            turn.flows_since = now;
        }
        turn.last = now;
        now.saturating_duration_since(queued.max(turn.flows_since)) > TURN_WITHIN
    }
}

/// One stream's commands within one batch: whether one of them had no answer.
#[derive(Default)]
pub struct Guard(AtomicBool);

impl Guard {
    /// Of a stream of which a command had no answer.
    #[must_use]
    pub fn of_unanswered() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Notes what one of them was answered.
    pub fn close(&self, error: &SubmitError) {
        // Another program's rules may take up what froze the stream here, and then this command before
        // those behind it. On a link nothing else is held up by that.
        if is_unanswered(error) || matches!(error, SubmitError::Frozen(_)) {
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
        | SubmitError::StreamTooLarge { .. }
        | SubmitError::Failed
        | SubmitError::Damaged(_)
        | SubmitError::Frozen(_) => false,
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
    /// Since when it waits for its turn, where that may be too long: a batch sends only as much as is
    /// answered, so that its commands may wait.
    pub(crate) turn: Option<(Arc<Turns>, Instant)>,
    /// The command's part of the memory that waiting commands may take.
    pub(crate) _part: Option<Part>,
}

impl ClientTicket {
    pub(super) fn answer(self, answer: Result<Answer, SubmitError>) {
        // Whoever asked may have gone.
        let _ = self.reply.send(answer);
    }
}

impl Client for ClientTicket {
    fn take_up(&mut self) -> Result<(), Option<SubmitError>> {
        let came_too_late = self.turn.take().is_some_and(|(turns, queued)| {
            // Whoever was sent somewhere before has had its turn.
            turns.came_too_late(queued, Instant::now()) && !self.fate.is_taken()
        });
        self.fate
            .take_up(self.guard.as_deref(), self.reply.is_closed())?;
        match came_too_late {
            true => Err(Some(turned_away(TurnedAway::Overloaded))),
            false => Ok(()),
        }
    }

    fn was_attempted(&self) -> bool {
        self.fate.is_taken()
    }

    fn is_gone(&self) -> bool {
        self.reply.is_closed()
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
    pub(crate) _part: Option<Part>,
}

impl PeerTicket {
    pub(super) fn answer(self, answer: LinkAnswer) {
        // Its node may have gone.
        let _ = self.reply.send(answer);
    }
}

impl Peer for PeerTicket {
    fn hindrance(&self) -> Option<Hindrance> {
        let is_late = self.deadline <= Instant::now() || self.reply.is_closed();
        self.link.hindrance(is_late)
    }

    fn settle(&mut self, answer: &LinkAnswer) {
        self.link.settle(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_too_long_among_others_is_turned_away_and_who_waited_for_a_standstill_is_not() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let turns = Turns::new(start);
        // A turn every tenth of a second, for commands that have waited longer and longer.
        for millis in (100..=1_000).step_by(100) {
            assert!(!turns.came_too_late(start, at(millis)));
        }
        assert!(turns.came_too_late(start, at(1_100)));
        assert!(!turns.came_too_late(at(200), at(1_200)));
        // Nobody has a turn for five seconds; then all that waited have a second.
        assert!(!turns.came_too_late(start, at(6_200)));
        assert!(!turns.came_too_late(start, at(6_300)));
        for millis in (6_400..=7_200).step_by(100) {
            assert!(!turns.came_too_late(start, at(millis)));
        }
        assert!(turns.came_too_late(start, at(7_300)));
    }
}
