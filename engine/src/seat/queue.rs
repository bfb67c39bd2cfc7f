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

use super::desk::WayToDesk;
use super::fair::{FairQueue, Place, Sender};
use super::ticket::{ClientTicket, PeerTicket};
use crate::command::TurnedAway;
use crate::owner::{Inquired, Inquiry, Submission};

/// How many questions may wait for one partition.
const QUESTIONS_MAX: usize = 256;

/// Commands of this node's clients.
pub(crate) type OwnCommands = Queue<(Submission, ClientTicket)>;
/// Commands that other nodes forwarded.
pub(crate) type ForwardedCommands = Queue<(Submission, PeerTicket)>;

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

pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    /// Notified once for each place that becomes free.
    freed: Notify,
    /// Whether a client gave up a command that was already taken out.
    given_up: AtomicBool,
}

struct State<T> {
    fair: FairQueue<Box<T>>,
    is_closed: bool,
}

/// What a new command counts as: its sender, its tenant, and its size in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) sender: Sender,
    pub(crate) tenant: &'a TenantId,
    pub(crate) bytes: u32,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                fair: FairQueue::new(capacity),
                is_closed: false,
            }),
            freed: Notify::new(),
            given_up: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command behind those of its sender.
    ///
    /// # Errors
    /// The command, and why there is no place for it.
    pub(crate) fn try_push(
        &self,
        load: Load<'_>,
        command: Box<T>,
    ) -> Result<Place, (Box<T>, NoPlace)> {
        let mut state = self.state();
        if state.is_closed {
            return Err((command, NoPlace::Closed));
        }
        let pushed = state
            .fair
            .push(load.sender, load.tenant, load.bytes, command);
        pushed.map_err(|command| (command, NoPlace::Full))
    }

    /// Like [`Self::try_push`], but waits until its sender has a place.
    ///
    /// # Errors
    /// `Closed`.
    pub(crate) async fn push(&self, load: Load<'_>, mut command: Box<T>) -> Result<Place, NoPlace> {
        loop {
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            match self.try_push(load, command) {
                Ok(place) => return Ok(place),
                Err((_, NoPlace::Closed)) => return Err(NoPlace::Closed),
                Err((back, NoPlace::Full)) => command = back,
            }
            freed.await;
        }
    }

    /// Takes out the command whose turn it is.
    pub(super) fn pop(&self) -> Option<Box<T>> {
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
    pub(super) fn any(&self, is: impl Fn(&T) -> bool) -> bool {
        self.state().fair.iter().any(|command| is(command))
    }

    /// Takes out the commands for which `is` holds.
    pub(super) fn take_if(&self, is: impl Fn(&T) -> bool) -> Vec<Box<T>> {
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
    }
}

/// The place of a command while somebody waits for its answer; dropping it frees the place.
pub(crate) struct Held<T> {
    queue: Arc<Queue<T>>,
    desk: WayToDesk,
    place: Option<Place>,
}

impl<T> Held<T> {
    pub(crate) fn new(queue: Arc<Queue<T>>, desk: WayToDesk, place: Place) -> Self {
        let place = Some(place);
        Self { queue, desk, place }
    }

    /// Notes that the command was answered: nothing remains to free.
    pub(crate) fn keep(&mut self) {
        self.place = None;
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else {
            return;
        };
        let command = self.queue.state().fair.remove(&place);
        if command.is_some() {
            self.queue.freed.notify_one();
        } else {
            self.queue.given_up.store(true, Ordering::Release);
            self.desk.call();
        }
    }
}

type Question = (Inquiry, oneshot::Sender<Inquired>);

/// Questions about what happened to commands.
pub(crate) struct Questions(Mutex<Option<VecDeque<Question>>>);

impl Questions {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(VecDeque::new()))))
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

    /// Takes all questions.
    pub(super) fn take(&self) -> VecDeque<Question> {
        let mut waiting = self.waiting();
        waiting.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes no more questions, and ends the waiting of everybody who asked.
    pub(super) fn close(&self) {
        *self.waiting() = None;
    }
}
