//! Runs one partition in this node: its owner, and the router of the commands that are for it. One
//! task for each partition.
//!
//! Invariant: everything that an owner does happens in its task, in order; client threads only put
//! results into its queue. Deliberately absent: decisions (`owner`, `cluster::Router`).

mod perform;
mod route;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kernel::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::ticket::{Command, PeerCommand, Ticket};
use super::{Inquiry, NotOwning, Now, Owner, Phase};
use crate::chain::Stop;
use crate::cluster::{Directory, Hint, Known, LinkEvent, LinkId, PeerLink, Peers, Router};
use crate::command::{Answer, SubmitError};
use crate::ids::{LogId, Offset, Partition, Position, Term};
use crate::log::{AppendResult, AppendSession, Appender, Chunk, EventLog, LogError};
use crate::record::{NewRecord, Record};

/// How often an owner looks at the clock.
const TICK: Duration = Duration::from_millis(50);
/// How often the local checkpoint is written when there is little to write.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long a failed read waits for its next try.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How many inputs are taken before actions are performed.
const INPUTS_MAX: usize = 256;
/// How long a node that handed a partition over, and should own it all the same, leaves it alone.
const WANT_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What an owner's task is asked by this node's clients.
pub(crate) enum Message {
    Command(Box<Command>),
    Inquire(
        Inquiry,
        oneshot::Sender<Result<Option<Answer>, SubmitError>>,
    ),
}

/// What an owner's task is asked by other nodes, apart from commands.
pub(crate) enum Control {
    /// Hand the partition over; the reply says whether this node owned it.
    HandOver {
        successor: Hint,
        reply: oneshot::Sender<bool>,
    },
    /// Take the partition over, whoever should own it; the reply comes when this node owns.
    TakeOver { reply: oneshot::Sender<()> },
}

/// What a partition's owner shows to others.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) not_owning: Option<NotOwning>,
    pub(crate) log: Option<LogId>,
    pub(crate) position: Position,
    /// The term under which this node owns, if it does.
    pub(crate) term: Option<Term>,
    /// Who owns, as far as this node knows.
    pub(crate) owner: Option<Hint>,
}

enum Input {
    Appended(u64, AppendResult),
    Read(Result<Chunk, LogError>),
    Proven(Result<(Offset, Option<Record>), LogError>),
    OwnerAnswered,
    Link(LinkId, LinkEvent),
}

/// What the tasks of all partitions share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) appender: Arc<dyn Appender>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) directory: Arc<dyn Directory>,
    /// This node's name.
    pub(crate) node: String,
    /// Where other nodes reach this one; absent: nowhere.
    pub(crate) address: Option<String>,
    /// Against which monotonic times are counted.
    pub(crate) started: Instant,
}

/// The ends that others hold of a partition's task.
pub(crate) struct Ends {
    pub(crate) commands: mpsc::Receiver<Message>,
    pub(crate) from_peers: mpsc::Receiver<PeerCommand>,
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) status: watch::Sender<Status>,
    /// Whether the group says that this node should own.
    pub(crate) assigned: watch::Receiver<bool>,
    pub(crate) known: watch::Receiver<Known>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// A partition's task.
pub(crate) struct Driver {
    partition: Partition,
    shared: Shared,
    ends: Ends,
    owner: Owner<Ticket>,
    router: Router<Command>,
    /// Commands that other nodes forwarded, in order.
    from_peers: VecDeque<PeerCommand>,
    link: Option<(LinkId, Box<dyn PeerLink>)>,
    /// The newest that was heard of who owns, apart from the log.
    hint: Option<Hint>,
    /// Whether another node asked this one to take over.
    asked: bool,
    want_again_at: Option<Instant>,
    hand_overs: Vec<oneshot::Sender<bool>>,
    take_overs: Vec<oneshot::Sender<()>>,
    /// The term under which this node last said that it owns.
    said: Option<Term>,
    inputs: mpsc::UnboundedSender<Input>,
    queue: mpsc::UnboundedReceiver<Input>,
    session: Option<Arc<dyn AppendSession>>,
    /// Appends that the session had no room for, in order.
    held_back: VecDeque<(u64, NewRecord)>,
}

impl Driver {
    pub(crate) fn new(
        partition: Partition,
        owner: Owner<Ticket>,
        shared: Shared,
        ends: Ends,
    ) -> Self {
        let (inputs, queue) = mpsc::unbounded_channel();
        Self {
            partition,
            shared,
            ends,
            owner,
            router: Router::default(),
            from_peers: VecDeque::new(),
            link: None,
            hint: None,
            asked: false,
            want_again_at: None,
            hand_overs: Vec::new(),
            take_overs: Vec::new(),
            said: None,
            inputs,
            queue,
            session: None,
            held_back: VecDeque::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut saved_at = Instant::now();
        let mut batch = Vec::with_capacity(INPUTS_MAX);
        let mut messages = Vec::with_capacity(INPUTS_MAX);
        let mut forwarded = Vec::with_capacity(INPUTS_MAX);
        let mut assignment_known = true;
        let mut directory_known = true;
        self.begin().await;
        loop {
            self.work();
            self.owner.save(saved_at.elapsed() >= SAVE_EVERY);
            if saved_at.elapsed() >= SAVE_EVERY {
                saved_at = Instant::now();
            }
            self.publish();
            let stopping = *self.ends.stopping.borrow();
            if stopping && self.is_done() {
                break;
            }
            let takes = self.router.waiting() == 0;
            let takes_forwarded = self.from_peers.is_empty();
            tokio::select! {
                biased;
                _ = self.queue.recv_many(&mut batch, INPUTS_MAX) => {
                    for input in batch.drain(..) {
                        self.input(input);
                    }
                }
                Some(control) = self.ends.control.recv() => self.control(control),
                count = self.ends.from_peers.recv_many(&mut forwarded, INPUTS_MAX),
                    if takes_forwarded => {
                    if count == 0 {
                        break;
                    }
                    self.from_peers.extend(forwarded.drain(..));
                }
                count = self.ends.commands.recv_many(&mut messages, INPUTS_MAX), if takes => {
                    if count == 0 {
                        break;
                    }
                    for message in messages.drain(..) {
                        self.message(message);
                    }
                }
                changed = self.ends.assigned.changed(), if assignment_known => {
                    assignment_known = changed.is_ok();
                    self.assigned();
                }
                changed = self.ends.known.changed(), if directory_known => {
                    directory_known = changed.is_ok();
                    self.look_up();
                }
                _ = self.ends.stopping.changed(), if !stopping => {}
                _ = tick.tick() => {
                    let now = self.now();
                    self.owner.tick(now);
                    self.retry_held_back();
                    self.want_again();
                }
            }
        }
        self.end().await;
    }

    async fn begin(&mut self) {
        let assigned = *self.ends.assigned.borrow_and_update();
        self.owner.want(assigned, self.now());
        self.look_up();
        loop {
            match self.shared.log.bounds(self.partition).await {
                Ok(bounds) => return self.owner.start(bounds.first),
                Err(error) => {
                    tracing::warn!(%error, partition = %self.partition, "the log is away");
                    tokio::time::sleep(RETRY_AFTER).await;
                    if *self.ends.stopping.borrow() {
                        return;
                    }
                }
            }
        }
    }

    /// Turns away what still waits, and keeps what was folded.
    async fn end(&mut self) {
        self.ends.commands.close();
        self.ends.from_peers.close();
        while let Some(message) = self.ends.commands.recv().await {
            self.message(message);
        }
        while let Some(command) = self.ends.from_peers.recv().await {
            self.from_peers.push_back(command);
        }
        self.turn_away_all();
        self.owner.save(true);
    }

    fn is_done(&self) -> bool {
        self.owner.is_drained()
            && self.held_back.is_empty()
            && self.router.is_idle()
            && self.from_peers.is_empty()
    }

    fn now(&self) -> Now {
        let elapsed = self.shared.started.elapsed().as_millis();
        Now {
            wall: wall_clock(),
            monotonic_ms: u64::try_from(elapsed).unwrap_or(u64::MAX),
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Inquire(inquiry, reply) => {
                let _ = reply.send(self.owner.inquire(&inquiry));
            }
            Message::Command(command) => self.router.push(*command),
        }
    }

    fn control(&mut self, control: Control) {
        let now = self.now();
        match control {
            Control::HandOver { successor, reply } => {
                let owned = self.owner.held_term().is_some();
                tracing::info!(partition = %self.partition, to = successor.node, owned, "asked to hand over");
                self.asked = false;
                self.want_again_at = Some(Instant::now() + WANT_AGAIN_AFTER);
                if owned {
                    self.learn(successor);
                    self.hand_overs.push(reply);
                } else {
                    let _ = reply.send(false);
                }
                self.owner.hand_over(now);
            }
            Control::TakeOver { reply } => {
                self.asked = true;
                self.want_again_at = None;
                self.take_overs.push(reply);
                self.owner.want(true, now);
            }
        }
    }

    fn assigned(&mut self) {
        let now = self.now();
        let assigned = *self.ends.assigned.borrow_and_update();
        self.want_again_at = None;
        self.owner.want(assigned || self.asked, now);
    }

    /// Takes a partition that was handed over, but is still this node's to own, again.
    fn want_again(&mut self) {
        let Some(at) = self.want_again_at else { return };
        if *self.ends.assigned.borrow() && Instant::now() >= at {
            self.want_again_at = None;
            let now = self.now();
            self.owner.want(true, now);
        }
    }

    /// What every command is told once the reader must not go on.
    fn owner_stopped(&self) -> Option<SubmitError> {
        match self.owner.phase() {
            Phase::Stopped(Stop::Damage(damage)) => Some(SubmitError::Damaged(damage.clone())),
            Phase::Stopped(Stop::NewerFormat { .. }) => Some(super::ticket::turned_away(
                crate::command::TurnedAway::NotReady,
            )),
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
            Input::OwnerAnswered => self.owner.owner_answered(),
            Input::Link(link, event) => self.link_event(link, event),
        }
    }

    fn publish(&mut self) {
        self.tell_who_waits_for_a_move();
        let chain = self.owner.chain();
        let (position, log) = (chain.position, chain.log);
        let not_owning = self.owner.not_owning();
        let term = self.owner.held_term().filter(|_| not_owning.is_none());
        self.ends.status.send_if_modified(|status| {
            let same_owner = match term {
                Some(term) => status.term == Some(term),
                None => status.term.is_none() && status.owner.as_ref() == self.target(),
            };
            if !same_owner {
                status.term = term;
                status.owner = match term {
                    Some(term) => self.own_hint(term),
                    None => self.target().cloned(),
                };
            }
            let changed = !same_owner || status.not_owning != not_owning || status.log != log;
            status.not_owning = not_owning;
            status.log = log;
            status.position = position;
            changed
        });
    }

    fn tell_who_waits_for_a_move(&mut self) {
        if !self.hand_overs.is_empty() && !self.owner.is_letting_go() {
            for reply in self.hand_overs.drain(..) {
                let _ = reply.send(true);
            }
        }
        if self.owner.not_owning().is_some() {
            return;
        }
        for reply in self.take_overs.drain(..) {
            let _ = reply.send(());
        }
        let term = self.owner.held_term();
        if term != self.said
            && let Some(hint) = term.and_then(|term| self.own_hint(term))
        {
            self.said = term;
            let (directory, partition) = (Arc::clone(&self.shared.directory), self.partition);
            tokio::spawn(async move { directory.say_owner(partition, &hint).await });
        }
    }

    fn own_hint(&self, term: Term) -> Option<Hint> {
        Some(Hint {
            term,
            node: self.shared.node.clone(),
            address: self.shared.address.clone()?,
        })
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
