//! Performs an owner's actions on a log: one task for each partition.
//!
//! Invariant: everything that an owner does happens in its task, in order; client threads only put
//! results into its queue. Deliberately absent: decisions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kernel::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Action, Inquiry, NotOwning, Now, Owner, Phase, Submission};
use crate::chain::Stop;
use crate::command::{Answer, SubmitError, TurnedAway};
use crate::ids::{LogId, Offset, Partition, Position};
use crate::log::{AppendResult, AppendSession, Appended, Appender, Chunk, EventLog, LogError};
use crate::record::{NewRecord, Record};
use crate::subscription::look;

/// How often an owner looks at the clock.
const TICK: Duration = Duration::from_millis(50);
/// How often the local checkpoint is written when there is little to write.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long a failed read waits for its next try.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How many inputs are taken before actions are performed.
const INPUTS_MAX: usize = 256;

/// Whoever waits for an answer.
pub(crate) type Ticket = oneshot::Sender<Result<Answer, SubmitError>>;

/// Whether a waiting command was taken up or given up; whoever comes first decides.
#[derive(Default)]
pub(crate) struct Fate(AtomicU8);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Fate {
    /// Takes the command up; `false` if its sender gave it up before.
    fn take(&self) -> bool {
        self.0
            .compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
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
pub(crate) struct Guard(AtomicU8);

const OPEN: u8 = 0;
const UNKNOWN: u8 = 1;
const TURNED_AWAY: u8 = 2;

impl Guard {
    pub(crate) fn close(&self, error: &SubmitError) {
        match error {
            SubmitError::Unknown => self.0.store(UNKNOWN, Ordering::Release),
            SubmitError::TurnedAway { .. } => self.0.store(TURNED_AWAY, Ordering::Release),
            SubmitError::IdReused
            | SubmitError::TooLarge { .. }
            | SubmitError::Failed
            | SubmitError::Damaged(_) => {}
        }
    }

    /// What later commands of the stream are answered.
    pub(crate) fn closed(&self) -> Option<SubmitError> {
        match self.0.load(Ordering::Acquire) {
            OPEN => None,
            _ => Some(turned_away(TurnedAway::AfterUnanswered)),
        }
    }
}

pub(crate) fn turned_away(reason: TurnedAway) -> SubmitError {
    SubmitError::TurnedAway {
        reason,
        retry_after: Duration::from_secs(1),
    }
}

/// A command on its way to its owner.
pub(crate) struct Command {
    pub(crate) submission: Submission,
    pub(crate) ticket: Ticket,
    pub(crate) fate: Arc<Fate>,
    pub(crate) guard: Option<Arc<Guard>>,
}

/// What an owner's task is asked.
pub(crate) enum Message {
    Command(Box<Command>),
    Inquire(
        Inquiry,
        oneshot::Sender<Result<Option<Answer>, SubmitError>>,
    ),
}

/// What a partition's owner shows to others.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) not_owning: Option<NotOwning>,
    pub(crate) log: Option<LogId>,
    pub(crate) position: Position,
}

enum Input {
    Appended(u64, AppendResult),
    Read(Result<Chunk, LogError>),
    Proven(Result<(Offset, Option<Record>), LogError>),
}

/// An owner's task.
pub(crate) struct Driver {
    pub(crate) owner: Owner<Ticket>,
    pub(crate) partition: Partition,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) appender: Arc<dyn Appender>,
    pub(crate) commands: mpsc::Receiver<Message>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) started: Instant,
}

/// The part of a driver that runs beside the owner.
struct Running {
    session: Option<Arc<dyn AppendSession>>,
    inputs: mpsc::UnboundedSender<Input>,
    /// Appends that the session had no room for, in order.
    held_back: VecDeque<(u64, NewRecord)>,
}

impl Driver {
    pub(crate) async fn run(mut self) {
        let (inputs, mut queue) = mpsc::unbounded_channel();
        let mut running = Running {
            session: None,
            inputs,
            held_back: VecDeque::new(),
        };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut saved_at = Instant::now();
        let mut batch = Vec::with_capacity(INPUTS_MAX);
        let mut messages = Vec::with_capacity(INPUTS_MAX);
        self.begin().await;
        loop {
            self.perform(&mut running);
            self.owner.save(saved_at.elapsed() >= SAVE_EVERY);
            if saved_at.elapsed() >= SAVE_EVERY {
                saved_at = Instant::now();
            }
            self.publish();
            let stopping = *self.stopping.borrow();
            if stopping && self.owner.is_drained() && running.held_back.is_empty() {
                break;
            }
            let takes = stopping
                || self.owner_stopped().is_some()
                || (self.owner.takes_commands() && running.held_back.is_empty());
            tokio::select! {
                biased;
                _ = queue.recv_many(&mut batch, INPUTS_MAX) => {
                    for input in batch.drain(..) {
                        self.input(input);
                    }
                }
                count = self.commands.recv_many(&mut messages, INPUTS_MAX), if takes => {
                    if count == 0 {
                        break;
                    }
                    for message in messages.drain(..) {
                        self.message(message, stopping);
                    }
                }
                _ = self.stopping.changed(), if !stopping => {}
                _ = tick.tick() => {
                    let now = self.now();
                    self.owner.tick(now);
                    self.retry_held_back(&mut running);
                }
            }
        }
        self.end().await;
    }

    async fn begin(&mut self) {
        loop {
            match self.log.bounds(self.partition).await {
                Ok(bounds) => return self.owner.start(bounds.first),
                Err(error) => {
                    tracing::warn!(%error, partition = %self.partition, "the log is away");
                    tokio::time::sleep(RETRY_AFTER).await;
                    if *self.stopping.borrow() {
                        return;
                    }
                }
            }
        }
    }

    /// Turns away what still waits, and keeps what was folded.
    async fn end(&mut self) {
        self.commands.close();
        while let Some(message) = self.commands.recv().await {
            self.message(message, true);
        }
        self.owner.save(true);
    }

    fn now(&self) -> Now {
        let monotonic_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            wall: wall_clock(),
            monotonic_ms,
        }
    }

    fn message(&mut self, message: Message, stopping: bool) {
        match message {
            Message::Inquire(inquiry, reply) => {
                let _ = reply.send(self.owner.inquire(&inquiry));
            }
            Message::Command(command) => self.command(*command, stopping),
        }
    }

    fn command(&mut self, command: Command, stopping: bool) {
        let Command {
            submission,
            ticket,
            fate,
            guard,
        } = command;
        if !fate.take() {
            return;
        }
        let refusal = guard
            .as_ref()
            .and_then(|guard| guard.closed())
            .or_else(|| self.owner_stopped())
            .or_else(|| stopping.then(|| turned_away(TurnedAway::Stopping)));
        if let Some(error) = refusal {
            if let Some(guard) = guard {
                guard.close(&error);
            }
            let _ = ticket.send(Err(error));
            return;
        }
        let now = self.now();
        self.owner.command(submission, ticket, now);
    }

    /// What every command is told once the reader must not go on.
    fn owner_stopped(&self) -> Option<SubmitError> {
        match self.owner.phase() {
            Phase::Stopped(Stop::Damage(damage)) => Some(SubmitError::Damaged(damage.clone())),
            Phase::Stopped(Stop::NewerFormat { .. }) => Some(turned_away(TurnedAway::NotReady)),
            _ => None,
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Appended(sequence, Ok(appended)) => {
                self.owner.acknowledged(sequence, appended, now);
            }
            Input::Appended(sequence, Err(error)) => {
                tracing::warn!(%error, partition = %self.partition, "an append failed");
                self.owner.append_failed(sequence, now);
            }
            Input::Read(Ok(chunk)) => self.owner.read(chunk, now),
            Input::Proven(Ok((end, found))) => self.owner.proven(end, found.as_ref()),
            Input::Read(Err(error)) | Input::Proven(Err(error)) => {
                tracing::warn!(%error, partition = %self.partition, "the log is away");
                self.owner.read_failed();
            }
        }
    }

    fn perform(&mut self, running: &mut Running) {
        for action in self.owner.take_actions() {
            match action {
                Action::Answer { ticket, answer } => {
                    // Whoever asked may have gone.
                    let _ = ticket.send(answer);
                }
                Action::Append {
                    sequence,
                    record,
                    claim,
                } => {
                    if claim {
                        running.held_back.clear();
                        running.session = None;
                    }
                    self.append(running, sequence, record);
                }
                Action::Read { from } => {
                    let (log, partition) = (Arc::clone(&self.log), self.partition);
                    let inputs = running.inputs.clone();
                    tokio::spawn(async move {
                        let read = log.read(partition, from).await;
                        pause_if_failed(&read).await;
                        let _ = inputs.send(Input::Read(read));
                    });
                }
                Action::Prove { offset } => {
                    let (log, partition) = (Arc::clone(&self.log), self.partition);
                    let inputs = running.inputs.clone();
                    tokio::spawn(async move {
                        let looked = look(&*log, partition, offset).await;
                        pause_if_failed(&looked).await;
                        let _ = inputs.send(Input::Proven(looked));
                    });
                }
            }
        }
    }

    fn append(&mut self, running: &mut Running, sequence: u64, record: NewRecord) {
        // Order is kept: nothing passes what is held back.
        let held = if running.held_back.is_empty() {
            self.try_append(running, sequence, record)
        } else {
            Some(record)
        };
        running
            .held_back
            .extend(held.map(|record| (sequence, record)));
    }

    /// Gives the record back if there is no room for it now.
    fn try_append(
        &mut self,
        running: &mut Running,
        sequence: u64,
        record: NewRecord,
    ) -> Option<NewRecord> {
        if running.session.is_none() {
            match self.appender.session() {
                Ok(session) => running.session = Some(session),
                Err(error) => {
                    let _ = running.inputs.send(Input::Appended(sequence, Err(error)));
                    return None;
                }
            }
        }
        let session = running.session.as_ref().expect("it was opened above");
        let inputs = running.inputs.clone();
        let done = Box::new(move |result: Result<Appended, LogError>| {
            let _ = inputs.send(Input::Appended(sequence, result));
        });
        match session.append(self.partition, &record, done) {
            Ok(()) => None,
            Err(LogError::Full) => Some(record),
            Err(error) => {
                let _ = running.inputs.send(Input::Appended(sequence, Err(error)));
                None
            }
        }
    }

    fn retry_held_back(&mut self, running: &mut Running) {
        while let Some((sequence, record)) = running.held_back.pop_front() {
            if let Some(record) = self.try_append(running, sequence, record) {
                running.held_back.push_front((sequence, record));
                return;
            }
        }
    }

    fn publish(&mut self) {
        let chain = self.owner.chain();
        let not_owning = self.owner.not_owning();
        let position = chain.position;
        let log = chain.log;
        self.status.send_if_modified(|status| {
            let changed = status.not_owning != not_owning || status.log != log;
            status.not_owning = not_owning;
            status.log = log;
            status.position = position;
            changed
        });
    }
}

async fn pause_if_failed<T>(result: &Result<T, LogError>) {
    if result.is_err() {
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// The clock on the wall, to the microsecond.
pub(crate) fn wall_clock() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let micros = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or_default()
}
