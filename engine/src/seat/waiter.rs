//! A command's waiting, from its place in a queue to its one answer. [`Waiter`] is what both sides
//! share: the seat holds [`Sent`], and the client or node that waits holds [`Waiting`].
//!
//! Invariants: a command that is given up before it is taken up is never attempted. For a command
//! that may have been attempted, no answer says that it was not. Before anybody learns that a
//! command has no answer, its [`Guard`] is closed, so no later command is attempted in its place.
//! Deliberately absent: where the command goes (`route`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Instant;

use tokio::sync::oneshot;

use super::queue::Queue;
use super::turns::Turns;
use super::{Client, Peer, Place};
use crate::command::{Reply, SubmitError, TurnedAway, turned_away};
use crate::peers::LinkAnswer;
use crate::service::Part;
use crate::walk::{Stage, Walk};

/// Keeps the order of commands that were sent together: those for one stream in a batch, or all
/// commands of one link. The first command without an answer closes the guard; after that, no later
/// command is attempted.
#[derive(Debug, Default)]
pub struct Guard(AtomicBool);

impl Guard {
    /// A guard behind a command without an answer.
    #[must_use]
    pub fn new_closed() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Lets no later command be attempted.
    pub fn close(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether later commands must not be attempted.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Takes the answer to one of a batch's commands for the guard's stream.
    pub fn settle(&self, answer: &Reply) {
        // A node with other rules may take up the record that froze the stream here. That node
        // could then decide this command before the later ones.
        let is_frozen = matches!(answer, Err(SubmitError::Frozen(_)));
        if is_frozen || is_unanswered(answer) {
            self.close();
        }
    }

    /// Takes the answer to one of a link's commands. A frozen stream holds nothing else up.
    pub fn settle_link(&self, answer: &LinkAnswer) {
        match answer {
            LinkAnswer::Answered(answer) if !is_unanswered(answer) => {}
            LinkAnswer::Answered(_) | LinkAnswer::Moved(_) => self.close(),
        }
    }
}

/// Whether the command has no final outcome: its client may send it again.
fn is_unanswered(answer: &Reply) -> bool {
    match answer {
        Err(SubmitError::Unknown | SubmitError::TurnedAway { .. }) => true,
        Ok(_)
        | Err(
            SubmitError::IdReused
            | SubmitError::TooLarge { .. }
            | SubmitError::StreamTooLarge { .. }
            | SubmitError::Failed
            | SubmitError::Damaged(_)
            | SubmitError::Frozen(_),
        ) => false,
    }
}

/// The command was taken up: it may be in the log.
const TAKEN: u8 = 1;
/// Nobody waits for the command any more.
const GIVEN_UP: u8 = 2;
/// The command has its answer.
const ANSWERED: u8 = 4;

/// What both sides of a waiting command know: whether it was taken up, given up or answered.
#[derive(Debug, Default)]
pub struct Waiter {
    state: AtomicU8,
    guard: Option<Arc<Guard>>,
}

impl Waiter {
    /// A command that begins to wait. `guard` is that of its order, if it was sent with others.
    #[must_use]
    pub fn new(guard: Option<Arc<Guard>>) -> Arc<Self> {
        let state = AtomicU8::default();
        Arc::new(Self { state, guard })
    }

    fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::Acquire) & state != 0
    }

    /// Takes the command up for an attempt, or for another one.
    ///
    /// # Errors
    /// The command must not be attempted (again). With the client's answer, if it still waits.
    pub fn take_up(&self) -> Result<(), Option<SubmitError>> {
        let was_taken = self.is_taken();
        let take = |state| (state & GIVEN_UP == 0).then_some(state | TAKEN);
        let taken = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        match (taken.is_ok(), self.is_behind_unanswered()) {
            (true, false) => Ok(()),
            // A second attempt could come before the command without an answer.
            (true, true) if was_taken => Err(Some(SubmitError::Unknown)),
            (true, true) => Err(Some(turned_away(TurnedAway::AfterUnanswered))),
            (false, _) => Err(None),
        }
    }

    /// Whether the command was taken up, so that it may be in the log.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.is(TAKEN)
    }

    /// Whether nobody waits any more: the deadline has passed, or the connection is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is(GIVEN_UP)
    }

    /// Whether an earlier command of the same order has no answer.
    #[must_use]
    pub fn is_behind_unanswered(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is_closed())
    }

    /// Ends the waiting without the seat's answer; returns the answer that is true nevertheless.
    pub fn give_up(&self) -> SubmitError {
        // The guard first: no later command may slip through.
        self.guard.iter().for_each(|guard| guard.close());
        let before = self.state.fetch_or(GIVEN_UP, Ordering::AcqRel);
        match before & TAKEN {
            0 => turned_away(TurnedAway::Late),
            _ => SubmitError::Unknown,
        }
    }

    /// Takes the answer that a client is about to get, before the seat routes anything else.
    pub(super) fn settle(&self, answer: &Reply) {
        self.guard.iter().for_each(|guard| guard.settle(answer));
        self.state.fetch_or(ANSWERED, Ordering::AcqRel);
    }

    /// Takes the answer that another node is about to get, before the seat looks at anything else
    /// of its link.
    pub(super) fn settle_link(&self, answer: &LinkAnswer) {
        self.guard
            .iter()
            .for_each(|guard| guard.settle_link(answer));
        self.state.fetch_or(ANSWERED, Ordering::AcqRel);
    }
}

/// The seat's side of a command of this node's clients.
pub(crate) type SentByClient = Sent<Reply>;
/// The seat's side of a command that another node forwarded.
pub(crate) type SentByPeer = Sent<LinkAnswer>;

/// The seat's side of a waiting command. `A` is its answer.
pub(crate) struct Sent<A> {
    waiter: Arc<Waiter>,
    reply: oneshot::Sender<A>,
    pub(super) deadline: Instant,
    /// When the command began to wait, and the turns of its partition; `None` if it may wait long.
    turn: Option<(Arc<Turns>, Instant)>,
    /// The command's part of the memory for waiting commands.
    _part: Option<Part>,
    /// The command's times, if it is traced.
    walk: Option<Arc<Walk>>,
}

/// The side of whoever waits for the answer. Dropping it gives the command up and frees its place.
pub(crate) struct Waiting<A> {
    waiter: Arc<Waiter>,
    answer: oneshot::Receiver<A>,
    pub(super) place: Option<(Arc<Queue<A>>, Place)>,
}

/// Both sides of a command that begins to wait.
pub(crate) fn sides<A>(
    guard: Option<Arc<Guard>>,
    deadline: Instant,
    turns: Option<&Arc<Turns>>,
    part: Option<Part>,
) -> (Sent<A>, Waiting<A>) {
    let (reply, answer) = oneshot::channel();
    let waiter = Waiter::new(guard);
    let sent = Sent {
        waiter: Arc::clone(&waiter),
        reply,
        deadline,
        turn: turns.map(|turns| (Arc::clone(turns), Instant::now())),
        _part: part,
        walk: None,
    };
    let waiting = Waiting {
        waiter,
        answer,
        place: None,
    };
    (sent, waiting)
}

impl<A> Sent<A> {
    /// The same command, with the times of its steps, if it is traced.
    pub(crate) fn traced(self, walk: Option<Arc<Walk>>) -> Self {
        let sent = Self { walk, ..self };
        sent.note(Stage::Queued);
        sent
    }

    pub(super) fn walk(&self) -> Option<&Arc<Walk>> {
        self.walk.as_ref()
    }

    /// Notes a step, if the command is traced.
    pub(super) fn note(&self, stage: Stage) {
        if let Some(walk) = &self.walk {
            walk.note(stage);
        }
    }

    pub(super) fn answer(self, answer: A) {
        self.note(Stage::Answered);
        // The client or node may have gone.
        let _ = self.reply.send(answer);
    }
}

impl Client for SentByClient {
    fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    fn take_up(&mut self) -> Result<(), Option<SubmitError>> {
        let came_too_late = self.turn.take().is_some_and(|(turns, queued)| {
            // A command that was sent somewhere before has had its turn.
            turns.came_too_late(queued, Instant::now()) && !self.waiter.is_taken()
        });
        self.waiter.take_up()?;
        self.note(Stage::Taken);
        match came_too_late {
            true => Err(Some(turned_away(TurnedAway::Overloaded))),
            false => Ok(()),
        }
    }
}

impl Peer for SentByPeer {
    fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    fn is_late(&self) -> bool {
        self.deadline <= Instant::now()
    }
}

impl<A> Waiting<A> {
    /// The seat's answer; an error if the seat's task has ended without one.
    pub(crate) async fn answer(mut self) -> Result<A, SubmitError> {
        let answer = (&mut self.answer).await;
        // Commands that the task had taken may be in the log.
        answer.map_err(|_| SubmitError::Unknown)
    }

    /// Like [`Self::answer`], but gives up at the deadline.
    pub(crate) async fn answer_until(mut self, deadline: Instant) -> Result<A, SubmitError> {
        match tokio::time::timeout_at(deadline.into(), &mut self.answer).await {
            Ok(answer) => answer.map_err(|_| SubmitError::Unknown),
            Err(_) => Err(self.waiter.give_up()),
        }
    }
}

impl<A> Drop for Waiting<A> {
    /// A dropped batch is dropped line by line: the guard keeps the lines that still wait from
    /// being attempted.
    fn drop(&mut self) {
        if self.waiter.is(ANSWERED) {
            return;
        }
        self.waiter.give_up();
        if let Some((queue, place)) = self.place.take() {
            queue.give_up(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn waits(guard: &Arc<Guard>) -> (SentByClient, Waiting<Reply>) {
        sides(Some(Arc::clone(guard)), in_a_minute(), None, None)
    }

    #[tokio::test]
    async fn after_an_abandoned_line_nothing_is_attempted() {
        let guard = Arc::new(Guard::default());
        let (mut first, first_waits) = waits(&guard);
        let (mut second, second_waits) = waits(&guard);
        // The client's connection is gone: the batch is dropped line by line.
        let mut answer = Box::pin(first_waits.answer_until(in_a_minute()));
        assert!(futures::poll!(&mut answer).is_pending());
        drop(answer);
        assert_eq!(first.take_up(), Err(None), "nobody waits for an answer");
        assert_eq!(
            second.take_up(),
            Err(Some(turned_away(TurnedAway::AfterUnanswered))),
            "its client is still there, the line before is not"
        );
        drop(second_waits);
    }

    #[tokio::test]
    async fn after_an_answer_later_lines_are_attempted() {
        let guard = Arc::new(Guard::default());
        let (first, first_waits) = waits(&guard);
        let failed = Err(SubmitError::Failed);
        first.waiter().settle(&failed);
        first.answer(failed.clone());
        assert_eq!(first_waits.answer_until(in_a_minute()).await, Ok(failed));
        let (mut second, _waits) = waits(&guard);
        assert_eq!(second.take_up(), Ok(()));
    }

    #[tokio::test]
    async fn a_command_without_an_answer_in_time_was_not_attempted_or_is_unknown() {
        let guard = Arc::new(Guard::default());
        let (mut taken, taken_waits) = waits(&guard);
        let (mut late, late_waits) = waits(&Arc::default());
        assert_eq!(taken.take_up(), Ok(()));
        let now = Instant::now();
        assert_eq!(
            taken_waits.answer_until(now).await,
            Err(SubmitError::Unknown)
        );
        assert!(guard.is_closed());
        let error = late_waits.answer_until(now).await;
        assert_eq!(error, Err(turned_away(TurnedAway::Late)));
        assert_eq!(late.take_up(), Err(None), "it is never attempted");
    }
}
