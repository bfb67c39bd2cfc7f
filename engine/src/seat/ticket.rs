//! A client or node that waits for a command, from its sending to its one answer.
//!
//! Invariant: a command that was given up before it was taken up is never attempted; for a command
//! that may have been attempted, no answer ever says that it was not. Deliberately absent: where
//! the command goes (`route`).

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Client, Hindrance, Peer};
use crate::command::{Answer, SubmitError, TurnedAway};
use crate::peers::LinkAnswer;
use crate::service::Part;

/// Whether a waiting command was taken up or given up; the first of the two decides.
#[derive(Default)]
pub struct Fate(AtomicU8);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Fate {
    /// Takes the command up, or finds that it was taken up before; `false` if its sender gave it up
    /// first.
    fn take(&self) -> bool {
        let taken = self
            .0
            .compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken == Err(TAKEN)
    }

    /// Takes the command up for an attempt. `gone` says whether the client no longer waits; `guard`
    /// is that of the command's stream, if the command belongs to a batch.
    ///
    /// # Errors
    /// As [`Client::take_up`].
    pub fn take_up(&self, guard: Option<&Guard>, gone: bool) -> Result<(), Option<SubmitError>> {
        let was_taken = self.is_taken();
        match guard.and_then(Guard::closed) {
            // It was attempted before. A second attempt could come before the open line.
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

/// How long a command may wait for its turn while other commands have theirs.
const TURN_WITHIN: Duration = Duration::from_secs(1);
/// If no command had its turn for so long, the partition stood still; waiting times then start
/// anew.
const STANDSTILL: Duration = Duration::from_millis(250);

/// Measures how long the commands of one partition wait for their turn. When more commands come
/// than the partition can take, each would wait as long as its client does, and be decided after
/// the client has gone. So commands that waited too long are turned away, unless they waited
/// because of a standstill (a move, a slow log).
pub struct Turns(Mutex<Turn>);

struct Turn {
    last: Instant,
    /// When the last standstill ended.
    flows_since: Instant,
}

impl Turns {
    /// For a partition where no command waits yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Turn {
            last: now,
            flows_since: now,
        }))
    }

    /// Notes that a command, which has waited since `queued`, has its turn; returns whether it has
    /// waited too long.
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

/// Whether one command of a stream within one batch had no answer.
#[derive(Default)]
pub struct Guard(AtomicBool);

impl Guard {
    /// The guard of a stream of which a command had no answer.
    #[must_use]
    pub fn of_unanswered() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Notes the error with which one of the commands was answered.
    pub fn close(&self, error: &SubmitError) {
        // A node with other rules may take up the record that froze the stream here. That node
        // could then decide this command before the later ones. On a link, a frozen stream holds
        // nothing else up.
        if is_unanswered(error) || matches!(error, SubmitError::Frozen(_)) {
            self.0.store(true, Ordering::Release);
        }
    }

    /// The answer to later commands of the stream, if they must not be attempted.
    #[must_use]
    pub fn closed(&self) -> Option<SubmitError> {
        self.0
            .load(Ordering::Acquire)
            .then(|| turned_away(TurnedAway::AfterUnanswered))
    }
}

/// Whether the command has no final outcome: its client may send it again.
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

pub(crate) struct ClientTicket {
    pub(crate) reply: oneshot::Sender<Result<Answer, SubmitError>>,
    pub(crate) fate: Arc<Fate>,
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) deadline: Instant,
    /// When the command began to wait, and the turns of its partition; `None` for a batch, whose
    /// commands may wait for long because a batch sends only as fast as it is answered.
    pub(crate) turn: Option<(Arc<Turns>, Instant)>,
    /// The command's part of the memory for waiting commands.
    pub(crate) _part: Option<Part>,
}

impl ClientTicket {
    pub(super) fn answer(self, answer: Result<Answer, SubmitError>) {
        // The client may have gone.
        let _ = self.reply.send(answer);
    }
}

impl Client for ClientTicket {
    fn take_up(&mut self) -> Result<(), Option<SubmitError>> {
        let came_too_late = self.turn.take().is_some_and(|(turns, queued)| {
            // A command that was sent somewhere before has had its turn.
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
            // This comes before the client learns of the answer, so that no later command slips
            // through.
            guard.close(error);
        }
    }
}

/// The state of a link from another node. Once a command was answered *moved* or had no outcome,
/// everything later is answered *moved*, so that the sender keeps the order.
#[derive(Default)]
pub struct LinkGuard(AtomicBool);

impl LinkGuard {
    /// Notes that everything later is answered *moved*.
    pub fn close(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Why the next command of the link must not be attempted, if so. `is_late`: its sender no
    /// longer waits.
    #[must_use]
    pub fn hindrance(&self, is_late: bool) -> Option<Hindrance> {
        if self.0.load(Ordering::Acquire) {
            Some(Hindrance::BehindMoved)
        } else {
            is_late.then_some(Hindrance::Late)
        }
    }

    /// Notes how one of the link's commands is answered.
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

/// Another node that waits for the answer to a command.
pub(crate) struct PeerTicket {
    pub(crate) reply: oneshot::Sender<LinkAnswer>,
    pub(crate) link: Arc<LinkGuard>,
    pub(crate) deadline: Instant,
    pub(crate) _part: Option<Part>,
}

impl PeerTicket {
    pub(super) fn answer(self, answer: LinkAnswer) {
        // The node may have gone.
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
        // One turn every 100 ms, each for a command that has waited longer than the one before.
        for millis in (100..=1_000).step_by(100) {
            assert!(!turns.came_too_late(start, at(millis)));
        }
        assert!(turns.came_too_late(start, at(1_100)));
        assert!(!turns.came_too_late(at(200), at(1_200)));
        // There is no turn for five seconds; after that, everything that waited has one more
        // second.
        assert!(!turns.came_too_late(start, at(6_200)));
        assert!(!turns.came_too_late(start, at(6_300)));
        for millis in (6_400..=7_200).step_by(100) {
            assert!(!turns.came_too_late(start, at(millis)));
        }
        assert!(turns.came_too_late(start, at(7_300)));
    }
}
