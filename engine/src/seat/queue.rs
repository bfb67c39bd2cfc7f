//! What waits for a seat, from the view of the threads that bring it: commands that take turns, and
//! questions.
//!
//! Invariant: a command that is given up gives its place back at once, wherever it waits; a
//! question is answered after every command that was queued before it. Deliberately absent: whose
//! turn it is (`fair`), and what a place costs in memory (`service::room`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::TenantId;
use tokio::sync::{Notify, oneshot};

use super::fair::{FairQueue, Place, Sender};
use super::waiter::{Sent, Waiting};
use crate::command::{Reply, TurnedAway};
use crate::owner::{Inquired, Inquiry, Submission};
use crate::peers::LinkAnswer;

/// How many questions may wait for one partition.
const QUESTIONS_MAX: usize = 256;

/// Commands of this node's clients.
pub(crate) type OwnCommands = Queue<Reply>;
/// Commands that other nodes forwarded.
pub(crate) type ForwardedCommands = Queue<LinkAnswer>;

/// A command that waits here.
type Waits<A> = Box<(Submission, Sent<A>)>;
/// A command without a place yet, with the other side of its waiting.
pub(crate) type Unplaced<A> = (Waits<A>, Waiting<A>);

/// Why a command gets no place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// No place is free for its sender now.
    Full,
    /// The queue takes nothing more.
    Closed,
}

impl From<NoPlace> for TurnedAway {
    fn from(why: NoPlace) -> Self {
        match why {
            NoPlace::Full => Self::Overloaded,
            NoPlace::Closed => Self::Stopping,
        }
    }
}

/// The commands that wait for a seat. `A` is their answer.
pub(crate) struct Queue<A> {
    state: Mutex<State<A>>,
    /// Notified once for each place that becomes free.
    freed: Notify,
    /// Whether a client gave up a command that was already taken out.
    given_up: AtomicBool,
    /// Wakes the seat's task.
    task: Arc<Notify>,
}

struct State<A> {
    fair: FairQueue<Waits<A>>,
    is_closed: bool,
}

impl<A> Queue<A> {
    pub(crate) fn new(capacity: usize, task: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                fair: FairQueue::new(capacity),
                is_closed: false,
            }),
            freed: Notify::new(),
            given_up: AtomicBool::new(false),
            task,
        })
    }

    fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command behind those of its sender for this tenant.
    ///
    /// # Errors
    /// The command, and why there is no place for it.
    pub(crate) fn try_push(
        self: &Arc<Self>,
        (sender, tenant): (Sender, &TenantId),
        (command, mut waiting): Unplaced<A>,
    ) -> Result<Waiting<A>, (Unplaced<A>, NoPlace)> {
        let mut state = self.state();
        if state.is_closed {
            return Err(((command, waiting), NoPlace::Closed));
        }
        let bytes = command.0.size();
        match state.fair.push(sender, tenant, bytes, command) {
            Ok(place) => {
                waiting.place = Some((Arc::clone(self), place));
                Ok(waiting)
            }
            Err(command) => Err(((command, waiting), NoPlace::Full)),
        }
    }

    /// Like [`Self::try_push`], but waits until its sender has a place.
    ///
    /// # Errors
    /// `Closed`.
    pub(crate) async fn push(
        self: &Arc<Self>,
        (sender, tenant): (Sender, &TenantId),
        mut command: Unplaced<A>,
    ) -> Result<Waiting<A>, NoPlace> {
        loop {
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            match self.try_push((sender, tenant), command) {
                Ok(waiting) => return Ok(waiting),
                Err((_, NoPlace::Closed)) => return Err(NoPlace::Closed),
                Err((back, NoPlace::Full)) => command = back,
            }
            freed.await;
        }
    }

    /// Frees the place of a command for which nobody waits any more, wherever the command is.
    pub(super) fn give_up(&self, place: &Place) {
        let command = self.state().fair.remove(place);
        if command.is_some() {
            self.freed.notify_one();
        } else {
            self.given_up.store(true, Ordering::Release);
            self.task.notify_one();
        }
    }

    /// Takes out the command whose turn it is.
    pub(super) fn pop(&self) -> Option<Waits<A>> {
        let command = self.state().fair.pop()?;
        self.freed.notify_one();
        Some(command)
    }

    /// How many commands wait.
    pub(crate) fn len(&self) -> usize {
        self.state().fair.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state().fair.is_empty()
    }

    /// Whether `is` holds for any waiting command.
    pub(super) fn any(&self, is: impl Fn(&(Submission, Sent<A>)) -> bool) -> bool {
        self.state().fair.iter().any(|command| is(command))
    }

    /// Takes out the commands for which `is` holds.
    pub(super) fn take_if(&self, is: impl Fn(&(Submission, Sent<A>)) -> bool) -> Vec<Waits<A>> {
        let taken = self.state().fair.take_if(|command| is(command));
        for _ in &taken {
            self.freed.notify_one();
        }
        taken
    }

    /// Whether, since the last call, a client gave up a command that was already taken out.
    pub(super) fn were_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) && self.given_up.swap(false, Ordering::AcqRel)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Takes no more commands; those that wait can still be taken out.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.freed.notify_waiters();
        self.task.notify_one();
    }
}

type Question = (Inquiry, oneshot::Sender<Inquired>);

/// Questions about what happened to commands.
pub(crate) struct Questions(Mutex<Option<VecDeque<Question>>>);

impl Questions {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(VecDeque::new())))
    }

    fn waiting(&self) -> MutexGuard<'_, Option<VecDeque<Question>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a question behind the others.
    ///
    /// # Errors
    /// Why there is no place for it.
    pub(crate) fn ask(&self, inquiry: Inquiry) -> Result<oneshot::Receiver<Inquired>, NoPlace> {
        let mut waiting = self.waiting();
        let waiting = waiting.as_mut().ok_or(NoPlace::Closed)?;
        if waiting.len() >= QUESTIONS_MAX {
            // Nobody waits for the answer to a question whose deadline has passed.
            waiting.retain(|(_, reply)| !reply.is_closed());
        }
        if waiting.len() >= QUESTIONS_MAX {
            return Err(NoPlace::Full);
        }
        let (reply, answer) = oneshot::channel();
        waiting.push_back((inquiry, reply));
        Ok(answer)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting().as_ref().is_none_or(VecDeque::is_empty)
    }

    pub(super) fn take(&self) -> VecDeque<Question> {
        let mut waiting = self.waiting();
        waiting.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes no more questions, and ends the waiting of everybody who asked.
    pub(super) fn close(&self) {
        *self.waiting() = None;
    }
}
