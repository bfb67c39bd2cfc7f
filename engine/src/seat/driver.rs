//! Performs a seat's actions on the log and towards peers, and takes the seat's inputs out of its
//! queues.
//!
//! Invariant: each queue is emptied in order, and appends keep their order. Deliberately absent:
//! all decisions (`seat`), and on which thread this runs (`desk`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::directory::{DirectoryEntries, Hint};
use event_log::log::{AppendResult, AppendSession, EventLog, LogError};
use event_log::record::{NewRecord, RECORD_VERSION_FIRST};
use kernel::explained;
use metrics::{Histogram, counter, histogram};
use position::{Offset, Partition, Term};
use tokio::sync::{mpsc, oneshot, watch};

use super::desk::WayToDesk;
use super::queue::{ForwardedCommands, OwnCommands, Questions};
use super::shared::{Control, Input, Queues, Shared, Status};
use super::ticket::{ClientTicket, PeerTicket};
use super::{Peer as _, Seat, SeatAction};
use crate::clock;
use crate::owner::{Inquired, Lists, LogAction, NotOwning, Now, Submission};
use crate::peers::{CommandForPeer, LinkId, PeerLink};

/// The pause before a failed read is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How many items are taken out of each queue before another thread may work here.
const TAKEN_MAX: usize = 256;
/// How many commands are taken out of the fair queue before they are routed. Commands that were
/// taken out wait in that order, no longer in turns.
const TAKEN_AT_ONCE_MAX: usize = 16;

/// A seat, and everything that its actions need.
pub(super) struct Driver {
    partition: Partition,
    pub(super) seat: Seat<ClientTicket, PeerTicket>,
    shared: Shared,
    desk: WayToDesk,
    commands: Arc<OwnCommands>,
    from_peers: Arc<ForwardedCommands>,
    questions: Arc<Questions>,
    status: watch::Sender<Status>,
    link: Option<(LinkId, Box<dyn PeerLink>)>,
    hand_overs: Vec<oneshot::Sender<bool>>,
    take_overs: Vec<oneshot::Sender<()>>,
    inputs: mpsc::UnboundedSender<Input>,
    queue: mpsc::UnboundedReceiver<Input>,
    session: Option<Arc<dyn AppendSession>>,
    /// Appends for which the session had no room, in order.
    held_back: VecDeque<(u64, NewRecord)>,
    /// When the task next wakes up by itself.
    planned: Instant,
    is_stopping: bool,
    append_times: Histogram,
}

impl Driver {
    pub(super) fn new(
        seat: Seat<ClientTicket, PeerTicket>,
        shared: Shared,
        queues: Queues,
        desk: WayToDesk,
    ) -> Self {
        let (inputs, queue) = mpsc::unbounded_channel();
        Self {
            partition: seat.partition(),
            seat,
            shared,
            desk,
            commands: queues.commands,
            from_peers: queues.from_peers,
            questions: queues.questions,
            status: queues.status,
            link: None,
            hand_overs: Vec::new(),
            take_overs: Vec::new(),
            inputs,
            queue,
            session: None,
            held_back: VecDeque::new(),
            planned: Instant::now(),
            is_stopping: false,
            append_times: histogram!("annals_append_seconds"),
        }
    }

    /// Reports that a defect has ended this node's part in the partition.
    pub(super) fn end_by_defect(&mut self) {
        let partition = self.partition;
        tracing::error!(%partition, "{}", NotOwning::Defect);
        metrics::counter!("annals_defects_total").increment(1);
        self.status.send_modify(|status| {
            status.not_owning = Some(NotOwning::Defect);
            status.term = None;
        });
    }

    /// Takes inputs as far as there is room for them, and performs the actions that follow; `false`
    /// once no commands can come any more.
    pub(super) fn turn(&mut self) -> bool {
        let now = self.now();
        for _ in 0..TAKEN_MAX {
            match self.queue.try_recv() {
                Ok(input) => self.input(input, now),
                Err(_) => break,
            }
        }
        if self.commands.were_given_up() {
            self.seat.forget_given_up();
        }
        for _ in 0..TAKEN_MAX / TAKEN_AT_ONCE_MAX {
            let took = self.take_commands();
            self.perform();
            if !took {
                break;
            }
        }
        self.answer_questions();
        self.publish();
        !self.commands.is_closed() || !self.commands.is_empty()
    }

    /// Takes commands out of the fair queues as far as there is room; `false` if there were none.
    fn take_commands(&mut self) -> bool {
        let mut took = false;
        if self.seat.forwarded_waiting() == 0 {
            for _ in 0..TAKEN_AT_ONCE_MAX {
                let Some(command) = self.from_peers.pop() else {
                    break;
                };
                self.forwarded(*command);
                took = true;
            }
        }
        if self.seat.waiting() == 0 {
            for _ in 0..TAKEN_AT_ONCE_MAX {
                let Some(command) = self.commands.pop() else {
                    break;
                };
                self.command(*command);
                took = true;
            }
        }
        took
    }

    fn command(&mut self, (submission, ticket): (Submission, ClientTicket)) {
        self.seat.command(submission, ticket);
    }

    fn forwarded(&mut self, (submission, ticket): (Submission, PeerTicket)) {
        self.seat.forwarded(submission, ticket);
    }

    /// Answers questions about commands. Commands that still wait for their turn count as in
    /// flight.
    pub(super) fn answer_questions(&mut self) {
        if self.questions.is_empty() {
            return;
        }
        for (inquiry, reply) in self.questions.take() {
            let waits = self.commands.any(|(command, _)| command.is(&inquiry))
                || self.from_peers.any(|(command, _)| command.is(&inquiry));
            let inquired = match waits {
                true => Inquired::InFlight,
                false => self.seat.inquire(&inquiry),
            };
            let _ = reply.send(inquired);
        }
    }

    /// Whether the queues hold something for which there is room.
    pub(super) fn has_more(&self) -> bool {
        !self.queue.is_empty()
            || !self.questions.is_empty()
            || (self.seat.waiting() == 0 && !self.commands.is_empty())
            || (self.seat.forwarded_waiting() == 0 && !self.from_peers.is_empty())
    }

    /// Closes the queues, and gives what is in them to the seat.
    pub(super) fn close(&mut self) {
        self.commands.close();
        self.from_peers.close();
        while let Some(command) = self.commands.pop() {
            self.command(*command);
        }
        while let Some(command) = self.from_peers.pop() {
            self.forwarded(*command);
        }
    }

    /// Notes and returns when the task next wakes up by itself: at `latest`, or earlier if the seat
    /// asks.
    pub(super) fn plan(&mut self, latest: Instant) -> Instant {
        self.planned = self.wakes_at().map_or(latest, |at| at.min(latest));
        self.planned
    }

    /// Whether the task has something to do before the moment for which it waits.
    pub(super) fn needs_task(&self) -> bool {
        self.has_more()
            || self.wakes_at().is_some_and(|at| at < self.planned)
            || (self.is_stopping && self.seat.is_done())
    }

    pub(super) fn log(&self) -> (Arc<dyn EventLog>, Partition) {
        (Arc::clone(&self.shared.log), self.partition)
    }

    /// Begins with the first record that the log still keeps.
    pub(super) fn start(&mut self, first_offset: Offset, assigned: bool) {
        let now = self.now();
        self.seat.set_reference(self.shared.log_clock.reference());
        self.seat.start(first_offset, assigned, now);
    }

    /// Notes whether the group assigns the partition to this node.
    pub(super) fn assign(&mut self, assigned: bool) {
        let now = self.now();
        self.seat.assign(assigned, now);
    }

    /// From now on, only decides what has begun.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.seat.stop();
    }

    /// Handles the passing of time.
    pub(super) fn tick(&mut self) {
        self.retry_held_back();
        let now = self.now();
        self.seat.set_reference(self.shared.log_clock.reference());
        self.seat.tick(now);
        self.dismiss_hindered();
    }

    /// Answers forwarded commands that must not be attempted any more, without waiting for their
    /// turn. Otherwise they would keep their places while no node owns the partition.
    fn dismiss_hindered(&mut self) {
        let hindered = self
            .from_peers
            .take_if(|(_, peer)| peer.hindrance().is_some());
        for command in hindered {
            self.forwarded(*command);
        }
        self.seat.dismiss_hindered();
    }

    /// How many commands of this seat are in flight or wait.
    pub(super) fn load(&self) -> usize {
        self.seat.owner().in_flight() + self.seat.waiting() + self.seat.forwarded_waiting()
    }

    /// When to wake up before the next tick, if at all.
    fn wakes_at(&self) -> Option<Instant> {
        let at = self.shared.started + Duration::from_millis(self.seat.wakes_at_ms()?);
        (at > Instant::now()).then_some(at)
    }

    fn now(&self) -> Now {
        clock::system::now(self.shared.started)
    }

    pub(super) fn control(&mut self, control: Control) {
        let now = self.now();
        match control {
            Control::HandOver { successor, reply } => {
                let to = successor.node.clone();
                let owned = self.seat.hand_over(successor, now);
                tracing::info!(partition = %self.partition, to, owned, "asked to hand over");
                if owned {
                    self.hand_overs.push(reply);
                } else {
                    let _ = reply.send(false);
                }
            }
            Control::TakeOver { reply } => {
                self.take_overs.push(reply);
                self.seat.take_over(now);
            }
        }
    }

    fn input(&mut self, input: Input, now: Now) {
        match input {
            Input::Appended(_, Err(error))
            | Input::Read(Err(error))
            | Input::Proven(_, Err(error))
            | Input::Peeked(Err(error))
                if error.is_final() =>
            {
                self.seat.log_gone(error.to_string());
            }
            Input::Appended(sequence, result) => {
                if let Err(error) = &result {
                    tracing::warn!(error = explained(error), partition = %self.partition, "an append failed");
                }
                self.seat.appended(sequence, result.ok(), now);
            }
            Input::Read(Ok(chunk)) => self.seat.read(chunk, now),
            Input::Proven(offset, Ok((end, found))) => {
                self.seat.proven(offset, end, found.as_ref());
            }
            Input::Read(Err(LogError::OffsetGone { offset, .. })) => {
                tracing::warn!(partition = %self.partition, %offset, "the log does not go on there");
                self.seat.offset_gone(now);
            }
            Input::Read(Err(error)) => {
                tracing::warn!(error = explained(&error), partition = %self.partition, "the log is away");
                self.seat.read_failed();
            }
            Input::Proven(_, Err(error)) => {
                tracing::warn!(error = explained(&error), partition = %self.partition, "the log is away");
                self.seat.proof_failed();
            }
            Input::Peeked(bounds) => self.seat.peeked(bounds.ok().map(|bounds| bounds.end), now),
            Input::OwnerAnswered => self.seat.owner_answered(now),
            Input::Link(link, event) => self.seat.link_event(link, event, now),
        }
    }

    /// Reads from the directory who owns this partition, and which formats the nodes can read.
    pub(super) fn look_up(&mut self, known: &DirectoryEntries) {
        let now = self.shared.log_clock.now();
        let (hint, version) = {
            let hint = known.owners.get(&self.partition).cloned();
            // The directory is published as a whole: if it names no nodes, it has not been read
            // yet.
            let unheard = self.shared.in_group.then_some(RECORD_VERSION_FIRST);
            (hint, known.read_by_all(now).or(unheard))
        };
        self.seat.set_read_by_all(version);
        let lists = match self.shared.in_group {
            false => Lists::Alone,
            true => known.lists(now).map_or(Lists::Unheard, Lists::Of),
        };
        let now = self.now();
        self.seat.set_lists(lists, now);
        if let Some(hint) = hint {
            let now = self.now();
            self.seat.learn(hint, now);
        }
    }

    fn perform(&mut self) {
        for action in self.seat.take_actions(self.now()) {
            match action {
                SeatAction::Answer(client, answer) => client.answer(answer),
                SeatAction::AnswerPeer(peer, answer) => peer.answer(answer),
                SeatAction::Log(LogAction::Append {
                    sequence,
                    record,
                    claim,
                }) => {
                    if claim {
                        self.held_back.clear();
                        self.session = None;
                    }
                    self.append(sequence, record);
                }
                SeatAction::Log(LogAction::Read { from }) => {
                    let (log, partition) = (Arc::clone(&self.shared.log), self.partition);
                    self.report(async move {
                        let read = log.read(partition, from).await;
                        pause_if_failed(&read).await;
                        Input::Read(read)
                    });
                }
                SeatAction::Log(LogAction::Prove { offset }) => {
                    let (log, partition) = (Arc::clone(&self.shared.log), self.partition);
                    self.report(async move {
                        let looked = log.look(partition, offset).await;
                        pause_if_failed(&looked).await;
                        Input::Proven(offset, looked)
                    });
                }
                SeatAction::Log(LogAction::Peek) => {
                    let (log, partition) = (Arc::clone(&self.shared.log), self.partition);
                    self.report(async move { Input::Peeked(log.bounds(partition).await) });
                }
                SeatAction::AskOwner { owner, successor } => self.ask(owner, successor),
                SeatAction::Open(id, address) => {
                    let reporter = self.reporter();
                    let events = Box::new(move |event| reporter.say(Input::Link(id, event)));
                    let link = self.shared.peers.open(&address, self.partition, events);
                    self.link = Some((id, link));
                }
                SeatAction::Send(id, sequence) => self.send(id, sequence),
                SeatAction::Close(id) => drop(self.link.take_if(|(open, _)| *open == id)),
                SeatAction::SayOwner(hint) => {
                    let directory = Arc::clone(&self.shared.directory);
                    let partition = self.partition;
                    tokio::spawn(async move { directory.say_owner(partition, &hint).await });
                }
                SeatAction::LetGo => {
                    for reply in self.hand_overs.drain(..) {
                        let _ = reply.send(true);
                    }
                }
                SeatAction::TookOver => {
                    for reply in self.take_overs.drain(..) {
                        let _ = reply.send(());
                    }
                }
            }
        }
    }

    fn reporter(&self) -> Reporter {
        Reporter {
            inputs: self.inputs.clone(),
            desk: self.desk.clone(),
        }
    }

    /// Runs `work`, and puts its result into the queue of inputs.
    fn report(&self, work: impl Future<Output = Input> + Send + 'static) {
        let reporter = self.reporter();
        tokio::spawn(async move { reporter.say(work.await) });
    }

    fn ask(&self, owner: Hint, successor: Hint) {
        let (peers, partition) = (Arc::clone(&self.shared.peers), self.partition);
        self.report(async move {
            match peers.hand_over(&owner.address, partition, &successor).await {
                Ok(owned) => {
                    tracing::debug!(%partition, from = owner.node, owned, "was handed over");
                }
                Err(error) => {
                    tracing::info!(%partition, from = owner.node, %error, "claiming all the same");
                }
            }
            Input::OwnerAnswered
        });
    }

    fn send(&self, id: LinkId, sequence: u64) {
        let (Some((open, link)), Some(command)) = (&self.link, self.seat.sent(sequence)) else {
            return;
        };
        if *open == id {
            let deadlines = command.waiters.iter().map(|(ticket, _)| ticket.deadline);
            link.send(CommandForPeer {
                sequence,
                request: command.submission.request.clone(),
                deadline: deadlines.max().unwrap_or_else(Instant::now),
            });
        }
    }

    fn append(&mut self, sequence: u64, record: NewRecord) {
        if !self.seat.sends(sequence) {
            return;
        }
        // Keeps the order: no append overtakes one that is held back.
        let held = if self.held_back.is_empty() {
            self.try_append(sequence, record)
        } else {
            Some(record)
        };
        self.held_back.extend(held.map(|record| (sequence, record)));
        self.seat.set_room(self.held_back.is_empty());
    }

    /// Hands the record to the log; returns it if there is no room now.
    fn try_append(&mut self, sequence: u64, record: NewRecord) -> Option<NewRecord> {
        if self.session.is_none() {
            match self.shared.appender.session() {
                Ok(session) => self.session = Some(session),
                Err(error) => {
                    let _ = self.inputs.send(Input::Appended(sequence, Err(error)));
                    return None;
                }
            }
        }
        let session = self.session.as_ref().expect("it was opened above");
        let reporter = self.reporter();
        let (handed_over, times) = (Instant::now(), self.append_times.clone());
        let done = Box::new(move |result: AppendResult| {
            if result.is_ok() {
                times.record(handed_over.elapsed());
            }
            reporter.say_and_work(Input::Appended(sequence, result));
        });
        match session.append(self.partition, &record, done) {
            Ok(()) => None,
            Err(LogError::Full) => Some(record),
            Err(error) => {
                let _ = self.inputs.send(Input::Appended(sequence, Err(error)));
                None
            }
        }
    }

    fn retry_held_back(&mut self) {
        while let Some((sequence, record)) = self.held_back.pop_front() {
            if !self.seat.sends(sequence) {
                continue;
            }
            if let Some(record) = self.try_append(sequence, record) {
                self.held_back.push_front((sequence, record));
                break;
            }
        }
        self.seat.set_room(self.held_back.is_empty());
    }

    fn publish(&mut self) {
        let seat = &self.seat;
        let chain = seat.owner().chain();
        let (position, log) = (chain.position, chain.log);
        let not_owning = seat.not_owning();
        let term = seat.owner().held_term().filter(|_| not_owning.is_none());
        let elsewhere = seat.target();
        let changed = self.status.send_if_modified(|status| {
            let changed = status.not_owning != not_owning
                || status.log != log
                || status.term != term
                || status.elsewhere.as_ref() != elsewhere;
            if changed {
                count_moves(status.term, term);
                status.not_owning = not_owning;
                status.log = log;
                status.term = term;
                status.elsewhere = elsewhere.cloned();
            }
            status.position = position;
            changed
        });
        if changed {
            let status = self.status.borrow();
            let reason = status.not_owning.as_ref();
            self.shared
                .unfit
                .send_if_modified(|unfit| unfit.note(self.partition, reason));
        }
    }
}

impl Drop for Driver {
    /// Answers everybody who still waits: nothing works on this partition any more.
    fn drop(&mut self) {
        // Without a driver, this node owns nothing.
        self.status.send_if_modified(|status| {
            let is_news = status.not_owning.is_none();
            if is_news {
                status.not_owning = Some(NotOwning::StandingBy);
                status.term = None;
            }
            is_news
        });
        self.questions.close();
        self.commands.close();
        self.from_peers.close();
        while self.commands.pop().is_some() {}
        while self.from_peers.pop().is_some() {}
    }
}

/// Counts a take-over, or the loss of a partition.
fn count_moves(before: Option<Term>, now: Option<Term>) {
    if before == now {
        return;
    }
    if now.is_some() {
        counter!("annals_take_overs_total").increment(1);
    } else {
        counter!("annals_let_go_total").increment(1);
    }
}

/// Brings inputs to a seat.
struct Reporter {
    inputs: mpsc::UnboundedSender<Input>,
    desk: WayToDesk,
}

impl Reporter {
    /// Puts an input into the queue and wakes the seat's task.
    fn say(&self, input: Input) {
        let _ = self.inputs.send(input);
        self.desk.call();
    }

    /// Puts an input into the queue and works on it on this thread.
    fn say_and_work(&self, input: Input) {
        let _ = self.inputs.send(input);
        self.desk.work();
    }
}

async fn pause_if_failed<T>(result: &Result<T, LogError>) {
    if result.is_err() {
        tokio::time::sleep(RETRY_AFTER).await;
    }
}
