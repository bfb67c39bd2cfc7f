//! The effects of a seat's driver in a real node: the log, other nodes, the queues and the time.
//!
//! Deliberately absent: the order of the effects (`driver`), and the choice of the thread (`desk`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::directory::Hint;
use event_log::log::{AppendResult, AppendSession, LogError};
use event_log::record::NewRecord;
use metrics::{Histogram, counter, histogram};
use position::{Offset, Partition, Term};
use tokio::sync::{mpsc, oneshot, watch};

use super::desk::WayToDesk;
use super::driver::Effects;
use super::shared::{Queues, Shared, Status};
use super::work::NodeSeat;
use super::{Command, Input, Peer as _, SentByClient, SentByPeer, Ticket};
use crate::clock::{self, Reference};
use crate::command::Reply;
use crate::owner::{Inquired, NotOwning, Now, Submission};
use crate::peers::{CommandForPeer, LinkAnswer, LinkId, PeerLink};
use crate::walk::{self, Stage, Walk};

/// How long a failed read waits for its next try.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The effects of one seat's driver in this node.
pub(super) struct NodeEffects {
    partition: Partition,
    pub(super) shared: Shared,
    pub(super) queues: Arc<Queues>,
    status: watch::Sender<Status>,
    desk: WayToDesk,
    link: Option<(LinkId, Box<dyn PeerLink>)>,
    send_input: mpsc::UnboundedSender<Input>,
    inputs: mpsc::UnboundedReceiver<Input>,
    session: Option<Arc<dyn AppendSession>>,
    append_times: Histogram,
}

impl NodeEffects {
    pub(super) fn new(
        partition: Partition,
        shared: Shared,
        (queues, status): (Arc<Queues>, watch::Sender<Status>),
        desk: WayToDesk,
    ) -> Self {
        let (send_input, inputs) = mpsc::unbounded_channel();
        Self {
            partition,
            shared,
            queues,
            status,
            desk,
            link: None,
            send_input,
            inputs,
            session: None,
            append_times: histogram!("annals_append_seconds"),
        }
    }

    /// Reports that a defect has ended this partition's seat.
    pub(super) fn end_by_defect(&mut self) {
        let partition = self.partition;
        tracing::error!(%partition, "{}", NotOwning::Defect);
        counter!("annals_defects_total").increment(1);
        self.status.send_modify(|status| {
            status.not_owning = Some(NotOwning::Defect);
            status.term = None;
        });
    }

    /// Answers the questions that wait. A command that still waits in a queue is in flight, too.
    pub(super) fn answer_questions(&mut self, seat: &NodeSeat) {
        let queues = &self.queues;
        if queues.questions.is_empty() {
            return;
        }
        for (inquiry, reply) in queues.questions.take() {
            let waits = queues.commands.any(|(command, _)| command.is(&inquiry))
                || queues.from_peers.any(|(command, _)| command.is(&inquiry));
            let inquired = match waits {
                true => Inquired::InFlight,
                false => seat.inquire(&inquiry),
            };
            // Whoever asked may have gone.
            let _ = reply.send(inquired);
        }
    }

    /// Whether something waits in the queues for which the seat has room.
    pub(super) fn has_more(&self, seat: &NodeSeat) -> bool {
        !self.inputs.is_empty()
            || !self.queues.questions.is_empty()
            || (seat.takes_commands() && !self.queues.commands.is_empty())
            || (seat.takes_forwarded() && !self.queues.from_peers.is_empty())
    }

    /// Whether commands may still come, or wait.
    pub(super) fn is_open(&self) -> bool {
        !self.queues.commands.is_closed() || !self.queues.commands.is_empty()
    }

    /// When the seat wants to go on before the next tick, if it does.
    pub(super) fn wakes_at(&self, seat: &NodeSeat) -> Option<Instant> {
        let at = self.shared.started + Duration::from_millis(seat.wakes_at_ms()?);
        (at > Instant::now()).then_some(at)
    }

    /// Publishes the seat's state.
    pub(super) fn publish(&mut self, seat: &NodeSeat) {
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
                *status = Status::of(seat);
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

    /// Puts an input into the queue at once.
    fn report(&self, input: Input) {
        // The receiver is in this struct.
        let _ = self.send_input.send(input);
    }

    /// Puts the result of some work into the queue, and wakes the seat's task.
    fn report_later(&self, work: impl Future<Output = Input> + Send + 'static) {
        let (send_input, task) = (self.send_input.clone(), Arc::clone(&self.queues.task));
        tokio::spawn(async move {
            // The seat may be gone.
            let _ = send_input.send(work.await);
            task.notify_one();
        });
    }
}

impl Effects<SentByClient, SentByPeer> for NodeEffects {
    type Asker = oneshot::Sender<bool>;

    fn now(&self) -> Now {
        clock::system::now(self.shared.started)
    }

    fn reference(&self) -> Option<Reference> {
        Some(self.shared.log_clock.reference())
    }

    fn next_input(&mut self) -> Option<Input> {
        self.inputs.try_recv().ok()
    }

    fn next_command(&mut self) -> Option<(Submission, SentByClient)> {
        self.queues.commands.pop().map(|command| *command)
    }

    fn next_forwarded(&mut self) -> Option<(Submission, SentByPeer)> {
        let (submission, peer) = *self.queues.from_peers.pop()?;
        peer.note(Stage::Taken);
        Some((submission, peer))
    }

    fn take_hindered(&mut self) -> Vec<(Submission, SentByPeer)> {
        let is_hindered = |(_, peer): &(Submission, SentByPeer)| peer.hindrance().is_some();
        let hindered = self.queues.from_peers.take_if(is_hindered).into_iter();
        hindered.map(|command| *command).collect()
    }

    fn were_given_up(&mut self) -> bool {
        self.queues.commands.were_given_up()
    }

    fn new_session(&mut self) {
        self.session = None;
    }

    fn append(&mut self, seat: &NodeSeat, sequence: u64, record: NewRecord) -> Option<NewRecord> {
        let session = match &self.session {
            Some(session) => session,
            None => match self.shared.appender.session() {
                Ok(session) => self.session.insert(session),
                Err(error) => {
                    self.report(Input::Appended(sequence, Err(error)));
                    return None;
                }
            },
        };
        let (send_input, desk) = (self.send_input.clone(), self.desk.clone());
        let (handed_over, times) = (Instant::now(), self.append_times.clone());
        let walks = walks(seat, sequence);
        walks.iter().for_each(|walk| walk.note(Stage::Appended));
        let done = Box::new(move |result: AppendResult| {
            if result.is_ok() {
                times.record(handed_over.elapsed());
                walks.iter().for_each(|walk| walk.note(Stage::Acknowledged));
            }
            // The seat may be gone.
            let _ = send_input.send(Input::Appended(sequence, result));
            desk.work();
        });
        match session.append(self.partition, &record, done) {
            Ok(()) => None,
            Err(LogError::Full) => Some(record),
            Err(error) => {
                self.report(Input::Appended(sequence, Err(error)));
                None
            }
        }
    }

    fn read(&mut self, from: Offset) {
        let (log, partition) = (Arc::clone(&self.shared.log), self.partition);
        self.report_later(async move {
            let read = log.read(partition, from).await;
            pause_if_failed(&read).await;
            Input::Read(read)
        });
    }

    fn prove(&mut self, offset: Offset) {
        let (log, partition) = (Arc::clone(&self.shared.log), self.partition);
        self.report_later(async move {
            let looked = log.look(partition, offset).await;
            pause_if_failed(&looked).await;
            Input::Proven(offset, looked)
        });
    }

    fn peek(&mut self) {
        let (log, partition) = (Arc::clone(&self.shared.log), self.partition);
        self.report_later(async move { Input::Peeked(log.bounds(partition).await) });
    }

    fn ask_owner(&mut self, owner: Hint, successor: Hint) {
        let (peers, partition) = (Arc::clone(&self.shared.peers), self.partition);
        self.report_later(async move {
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

    fn open_link(&mut self, id: LinkId, address: &str) {
        let (send_input, task) = (self.send_input.clone(), Arc::clone(&self.queues.task));
        let events = Box::new(move |event| {
            // The seat may be gone.
            let _ = send_input.send(Input::Link(id, event));
            task.notify_one();
        });
        let link = self.shared.peers.open(address, self.partition, events);
        self.link = Some((id, link));
    }

    fn send(&mut self, id: LinkId, sequence: u64, command: &Command<SentByClient>) {
        let Some((open, link)) = &self.link else {
            return;
        };
        if *open == id {
            let waiters = command.waiters.iter();
            waiters.for_each(|(client, _)| client.note(Stage::Sent));
            let deadlines = command.waiters.iter().map(|(ticket, _)| ticket.deadline);
            link.send(CommandForPeer {
                sequence,
                request: command.submission.request.clone(),
                deadline: deadlines.max().unwrap_or_else(Instant::now),
            });
        }
    }

    fn close_link(&mut self, id: LinkId) {
        drop(self.link.take_if(|(open, _)| *open == id));
    }

    fn say_owner(&mut self, hint: Hint) {
        let directory = Arc::clone(&self.shared.directory);
        let partition = self.partition;
        tokio::spawn(async move { directory.say_owner(partition, &hint).await });
    }

    fn answer(&mut self, client: SentByClient, answer: Reply) {
        client.answer(answer);
    }

    fn answer_peer(&mut self, peer: SentByPeer, answer: LinkAnswer) {
        peer.answer(answer);
    }

    fn reply(&mut self, reply: oneshot::Sender<bool>, is_so: bool) {
        // Whoever asked may have gone.
        let _ = reply.send(is_so);
    }
}

impl Drop for NodeEffects {
    /// Ends all waiting: nothing works on the seat any more.
    fn drop(&mut self) {
        self.status.send_if_modified(|status| {
            let is_news = status.not_owning.is_none();
            if is_news {
                status.not_owning = Some(NotOwning::Standby);
                status.term = None;
            }
            is_news
        });
        self.queues.questions.close();
        self.queues.close();
        while self.queues.commands.pop().is_some() {}
        while self.queues.from_peers.pop().is_some() {}
    }
}

/// The walks of the traced commands that wait for an append.
fn walks(seat: &NodeSeat, sequence: u64) -> Vec<Arc<Walk>> {
    if !walk::are_any() {
        return Vec::new();
    }
    let waiters = seat.owner().waiters(sequence);
    let walk = |ticket: &Ticket<SentByClient, SentByPeer>| match ticket {
        Ticket::Client(client) => client.walk().cloned(),
        Ticket::Peer(peer) => peer.walk().cloned(),
    };
    waiters.filter_map(walk).collect()
}

/// Counts that a partition was taken over or let go.
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

async fn pause_if_failed<T>(result: &Result<T, LogError>) {
    if result.is_err() {
        tokio::time::sleep(RETRY_AFTER).await;
    }
}
