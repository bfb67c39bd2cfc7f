//! Waiting for one command at this node: until its answer, until its deadline, or until the client
//! goes.
//!
//! Invariant: before the client learns that a command has no answer, and before the client goes,
//! the guard of the command's stream is closed. So no later command of the batch is attempted in
//! its place.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Part;
use crate::command::{Answer, SubmitError, TurnedAway};
use crate::owner::Submission;
use crate::seat::{ClientTicket, Fate, Guard, Held, Turns, turned_away};

/// The waiting side of one command.
pub(super) struct Waiting {
    // Dropped first; the reason stands at its type.
    guard: Abandoning,
    answer: oneshot::Receiver<Result<Answer, SubmitError>>,
    fate: Arc<Fate>,
    // Dropped after the answer's receiver: when the place is given back, the ticket already shows
    // that nobody waits.
    place: Option<Held<(Submission, ClientTicket)>>,
}

/// The guard of a stream; closed if the waiting side is dropped without an answer. A dropped batch
/// is dropped line by line: without this guard, a line whose waiting side still exists would be
/// attempted although an earlier line was not.
struct Abandoning(Option<Arc<Guard>>);

impl Abandoning {
    fn close(&self, error: &SubmitError) {
        if let Some(guard) = &self.0 {
            guard.close(error);
        }
    }
}

impl Drop for Abandoning {
    fn drop(&mut self) {
        self.close(&SubmitError::Unknown);
    }
}

pub(super) fn wrap(
    submission: Submission,
    guard: Option<Arc<Guard>>,
    turns: Option<&Arc<Turns>>,
    deadline: Instant,
    part: Part,
) -> (Box<(Submission, ClientTicket)>, Waiting) {
    let (mut ticket, waiting) = tickets(guard, deadline, Some(part));
    ticket.turn = turns.map(|turns| (Arc::clone(turns), Instant::now()));
    (Box::new((submission, ticket)), waiting)
}

/// The two ends of one command: its ticket and its waiting side.
fn tickets(
    guard: Option<Arc<Guard>>,
    deadline: Instant,
    part: Option<Part>,
) -> (ClientTicket, Waiting) {
    let (reply, answer) = oneshot::channel();
    let fate = Arc::new(Fate::default());
    let ticket = ClientTicket {
        reply,
        fate: Arc::clone(&fate),
        guard: guard.clone(),
        deadline,
        turn: None,
        _part: part,
    };
    let waiting = Waiting {
        guard: Abandoning(guard),
        answer,
        fate,
        place: None,
    };
    (ticket, waiting)
}

impl Waiting {
    /// Notes where the command waits, so that its place is freed if the waiting side is dropped.
    pub(super) fn hold(&mut self, place: Held<(Submission, ClientTicket)>) {
        self.place = Some(place);
    }

    pub(super) async fn answer(mut self, deadline: Instant) -> Result<Answer, SubmitError> {
        let result = match tokio::time::timeout_at(deadline.into(), &mut self.answer).await {
            Ok(Ok(result)) => {
                self.place.iter_mut().for_each(Held::keep);
                result
            }
            // The owner's task is gone: commands that it had taken may be in the log.
            Ok(Err(_)) => Err(SubmitError::Unknown),
            Err(_) => {
                // The guard is closed before the command is given up, so that no later command
                // slips through.
                self.guard.close(&SubmitError::Unknown);
                Err(if self.fate.give_up() {
                    turned_away(TurnedAway::Late)
                } else {
                    SubmitError::Unknown
                })
            }
        };
        if let Err(error) = &result {
            self.guard.close(error);
        }
        // The command has its answer: the guard stays as it is.
        self.guard.0 = None;
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::seat::Client;

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn waiting(guard: &Arc<Guard>) -> (ClientTicket, Waiting) {
        tickets(Some(Arc::clone(guard)), in_a_minute(), None)
    }

    #[tokio::test]
    async fn nothing_behind_an_abandoned_line_is_attempted() {
        let guard = Arc::new(Guard::default());
        let (mut first, waits_for_first) = waiting(&guard);
        let (mut second, waits_for_second) = waiting(&guard);
        // The client's connection is gone: the batch is dropped line by line.
        let mut answer = Box::pin(waits_for_first.answer(in_a_minute()));
        assert!(futures::poll!(&mut answer).is_pending());
        drop(answer);
        assert_eq!(
            first.take_up(),
            Err(Some(turned_away(TurnedAway::AfterUnanswered)))
        );
        assert!(
            second.take_up().is_err(),
            "its client is still there, the line before is not"
        );
        drop(waits_for_second);
    }

    #[tokio::test]
    async fn an_answer_leaves_the_way_open() {
        let guard = Arc::new(Guard::default());
        let (first, waits_for_first) = waiting(&guard);
        first.reply.send(Err(SubmitError::Failed)).unwrap();
        let answer = waits_for_first.answer(in_a_minute());
        assert_eq!(answer.await, Err(SubmitError::Failed));
        let (mut second, _waits) = waiting(&guard);
        assert_eq!(second.take_up(), Ok(()));
    }
}
