//! A node of the simulated world: its process, its seats, and the tasks that drive them.
//!
//! Invariant: the engine's own driver (`seat::driver`) drives each seat; only the effects are
//! simulated. Deliberately absent: clients' connections (`door`) and links (`net`).

use std::collections::{BTreeMap, VecDeque};
use std::mem::Discriminant;

use engine::clock::Reference;
use engine::command::Reply;
use engine::owner::{Now, Owner, OwnerSettings, Phase, Submission};
use engine::peers::{LinkAnswer, LinkId};
use engine::seat::{
    Command, Control, Driver, Effects, FairQueue, Identity, Input, Peer as _, Seat,
};
use event_log::directory::Hint;
use event_log::log::{Bounds, LogError};
use event_log::record::NewRecord;
use position::{Offset, Term};

use super::book;
use super::door::{Handler, SimClient, Waiting};
use super::event::{Ask, NodeEvent};
use super::log::PartitionLog;
use super::net::{Served, SimPeer};
use super::random::Random;
use super::store::LocalStore;
use super::trace::Who;
use super::world::World;

/// How often a task looks at the clock, as in the engine, in microseconds.
const TICK_US: u64 = 50_000;
/// How often the local checkpoint is written while little changes, in microseconds.
const SAVE_EVERY_US: u64 = 1_000_000;
/// How long it takes, beyond the usual, to learn that the log cannot be read, in microseconds.
const TIMEOUT_US: u64 = 200_000;
/// A read returns at least one such part of what remains to be read.
const PIECES: usize = 256;

/// One partition's task in a node's process.
pub struct Task {
    pub(super) driver: Driver<SimClient, SimPeer, Ask>,
    pub(super) queues: TaskQueues,
    pub(super) control: VecDeque<Control<Ask>>,
    pub(super) assigned: Option<bool>,
    pub(super) hint: Option<Hint>,
    pub(super) ticked: bool,
    /// Whether the task has ended and takes nothing more.
    pub ended: bool,
    is_running: bool,
    saved_at_us: u64,
    /// The task's state as last traced: phase, term, and the commands in flight and waiting.
    traced: Option<(Discriminant<Phase>, Term, [usize; 3])>,
}

/// What waits for a task, and its session and link.
pub(super) struct TaskQueues {
    pub(super) inputs: VecDeque<Input>,
    pub(super) from_peers: VecDeque<(Submission, SimPeer)>,
    pub(super) commands: FairQueue<(Submission, SimClient)>,
    /// Whether a client gave up a command that was already taken out of the queue.
    pub(super) given_up: bool,
    session: Option<usize>,
    pub(super) link: Option<(LinkId, u64)>,
}

impl Task {
    pub fn seat(&self) -> &Seat<SimClient, SimPeer> {
        self.driver.seat()
    }

    /// Whether something waits for which the seat has room.
    fn has_more(&self) -> bool {
        !self.queues.inputs.is_empty()
            || (self.seat().takes_commands() && !self.queues.commands.is_empty())
            || (self.seat().takes_forwarded() && !self.queues.from_peers.is_empty())
    }
}

#[derive(Default)]
pub struct Node {
    /// Whether its process runs.
    pub up: bool,
    /// The number of its present process.
    pub incarnation: u32,
    /// Until when the node stands still; 0: it does not.
    pub paused_until_us: u64,
    /// Events that reached the node while it stood still.
    pub(super) backlog: Vec<NodeEvent>,
    /// Whether its program is broken: its rules fail on events that other programs could apply.
    pub(super) is_broken: bool,
    /// How far its clock is off, in microseconds.
    pub clock_off_us: i64,
    /// How long the node's machine was suspended on its own, in microseconds.
    pub suspended_us: u64,
    /// Since when the machine is suspended; 0: it is not.
    pub suspended_from_us: u64,
    /// The reference with which its clock is compared.
    pub(super) reference: Option<Reference>,
    pub(super) probe_at_us: u64,
    /// Its partitions' tasks; the entry of a running task is `None`.
    pub tasks: Vec<Option<Task>>,
    pub(super) producer: usize,
    /// The contents of its disk.
    pub stores: Vec<LocalStore>,
    pub(super) queue_full_until_us: u64,
    /// The time of the last assignment that the group sent to it, in microseconds.
    pub(super) told_us: u64,
    /// Until when its appends are held up on their way.
    pub(super) appends_held_until_us: u64,
    /// Until when its local store fails.
    pub(super) store_away_until_us: u64,
    /// The connections of its clients.
    pub(super) handlers: BTreeMap<u64, Handler>,
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// Links that other nodes opened.
    pub(super) served: BTreeMap<u64, Served>,
    /// What happens once a question to another node is answered, or its time is over.
    pub(super) asks: BTreeMap<u64, NodeEvent>,
    pub(super) leaving: Option<super::leave::Leaving>,
}

impl Node {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            stores: (0..partitions).map(|_| LocalStore::default()).collect(),
            ..Self::default()
        }
    }
}

pub fn address(node: usize) -> String {
    format!("http://node-{node}")
}

pub fn node_at(address: &str) -> Option<usize> {
    address.strip_prefix("http://node-")?.parse().ok()
}

impl World {
    /// Schedules an event for a node's present process.
    pub(super) fn tell_node(
        &mut self,
        at_us: u64,
        node: usize,
        event: impl FnOnce(&mut Self, usize) + 'static,
    ) {
        self.schedule.tell(at_us, self.process_of(node), event);
    }

    pub(super) fn start_node(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.say(Who::Node(node), "starts", String::new);
        self.nodes[node].up = true;
        self.nodes[node].incarnation += 1;
        self.nodes[node].is_broken = self.starts_broken(node);
        book::set_broken(self.nodes[node].is_broken);
        self.nodes[node].producer = self.new_producer(node);
        let now = self.node_now(node);
        self.nodes[node].reference = Some(Reference::at_start(now));
        let partitions = 0..self.logs.len();
        let tasks = partitions.map(|partition| Some(self.new_task(node, partition, now)));
        self.nodes[node].tasks = tasks.collect();
        for partition in 0..self.logs.len() {
            self.wake(node, partition);
        }
        let first_tick_us = self.now_us + self.random.below(TICK_US);
        self.tell_node(first_tick_us, node, Self::tick);
        let joins_us = self.now_us + self.random.between(1_000, 300_000);
        self.join_at(joins_us, self.process_of(node));
    }

    fn new_task(&mut self, node: usize, partition: usize, now: Now) -> Task {
        let settings = OwnerSettings {
            node: format!("node-{node}"),
            address: Some(address(node)),
            ..self.plan.settings.clone()
        };
        let mut owner = Owner::new(
            self.histories[partition].partition,
            self.registry.clone(),
            settings.clone(),
            Box::new(self.nodes[node].stores[partition].clone()),
            Box::new(self.random.fork()),
        );
        let identity = Identity {
            node: settings.node,
            address: settings.address,
            log: self.log_id,
        };
        owner.set_flaw(self.plan.flaw);
        let mut seat = Seat::new(owner, identity);
        if let Some(hint) = self.group.directory[partition].clone()
            && self.random.chance(700)
        {
            seat.learn(hint, now);
        }
        seat.owner_mut().set_reference(Reference::at_start(now));
        seat.start(Offset(0), false, now);
        let queues = TaskQueues {
            inputs: VecDeque::new(),
            from_peers: VecDeque::new(),
            commands: FairQueue::new(self.plan.queue_max),
            given_up: false,
            session: None,
            link: None,
        };
        Task {
            driver: Driver::new(seat),
            queues,
            control: VecDeque::new(),
            assigned: None,
            hint: None,
            ticked: false,
            ended: false,
            is_running: false,
            saved_at_us: self.now_us,
            traced: None,
        }
    }

    /// Whether a process that starts now has a program whose rules fail.
    fn starts_broken(&self, node: usize) -> bool {
        if self.plan.failing_of == 0 || self.quiet {
            return false;
        }
        // A source of its own, so that no other draw changes.
        let of = (node as u64) << 32 ^ u64::from(self.nodes[node].incarnation);
        Random::new(of ^ self.plan.quiet_from_us).chance(300)
    }

    pub(super) fn task(&mut self, node: usize, partition: usize) -> &mut Task {
        self.nodes[node].tasks[partition]
            .as_mut()
            .expect("a task is taken only while it runs")
    }

    /// Lets a task run soon.
    pub(super) fn wake(&mut self, node: usize, partition: usize) {
        let jitter_us = self.random.below(200);
        let at_us = self.now_us + jitter_us;
        let task = self.task(node, partition);
        if !std::mem::replace(&mut task.is_running, true) {
            self.tell_node(at_us, node, move |world, node| {
                world.run_task(node, partition)
            });
        }
    }

    pub(super) fn input(&mut self, node: usize, partition: usize, input: Input) {
        self.task(node, partition).queues.inputs.push_back(input);
        self.wake(node, partition);
    }

    fn tick(&mut self, node: usize) {
        self.probe_time(node);
        for partition in 0..self.logs.len() {
            self.task(node, partition).ticked = true;
            self.wake(node, partition);
        }
        self.tell_node(self.now_us + TICK_US, node, Self::tick);
    }

    /// Runs a task until it has nothing to do, as the engine's own task does (`seat::desk`).
    fn run_task(&mut self, node: usize, partition: usize) {
        let Some(mut task) = self.nodes[node].tasks[partition].take() else {
            return;
        };
        task.is_running = false;
        while !task.ended {
            let is_ticked = std::mem::take(&mut task.ticked);
            let (driver, mut effects) = self.at_work(node, partition, &mut task);
            if is_ticked {
                driver.tick(&mut effects);
            }
            driver.turn(&mut effects);
            let it_is_time = self.now_us >= task.saved_at_us + SAVE_EVERY_US;
            if task.seat().owner().is_save_due(it_is_time) {
                task.driver.seat_mut().owner_mut().save();
                task.saved_at_us = self.now_us;
            }
            if task.seat().is_done() {
                self.end_task(node, partition, &mut task);
                break;
            }
            if !self.take_news(node, partition, &mut task) && !task.has_more() {
                break;
            }
        }
        self.trace_state(node, partition, &mut task);
        self.look_at(node, partition, &task);
        self.nodes[node].tasks[partition] = Some(task);
        self.feed(node, partition);
        self.feed_links(node, partition);
    }

    /// A task's driver, with its effects in this world.
    fn at_work<'w>(
        &'w mut self,
        node: usize,
        partition: usize,
        task: &'w mut Task,
    ) -> (&'w mut Driver<SimClient, SimPeer, Ask>, SimEffects<'w>) {
        let effects = SimEffects {
            world: self,
            node,
            partition,
            queues: &mut task.queues,
        };
        (&mut task.driver, effects)
    }

    /// Takes one piece of news that does not come through the queues; `false` if there is none.
    fn take_news(&mut self, node: usize, partition: usize, task: &mut Task) -> bool {
        if let Some(control) = task.control.pop_front() {
            if let Control::HandOver { reply, .. } = &control {
                let what = match task.seat().owner().held_term() {
                    Some(_) => "hands over",
                    None => "does not own",
                };
                let said = || format!("asked by node {}", reply.from.node);
                self.say(Who::Node(node), what, said);
            }
            let (driver, mut effects) = self.at_work(node, partition, task);
            driver.control(control, &mut effects);
        } else if let Some(assigned) = task.assigned.take() {
            task.driver.seat_mut().assign(assigned, self.node_now(node));
        } else if let Some(hint) = task.hint.take() {
            task.driver.seat_mut().learn(hint, self.node_now(node));
        } else {
            return task.ticked;
        }
        true
    }

    /// Writes a task's state into the trace, if it has changed.
    fn trace_state(&mut self, node: usize, partition: usize, task: &mut Task) {
        let (seat, owner) = (task.driver.seat(), task.driver.seat().owner());
        let (waiting, forwarded) = (seat.waiting(), seat.forwarded_waiting());
        let term = owner.chain().term;
        let phase = std::mem::discriminant(owner.phase());
        let traced = (phase, term, [owner.in_flight(), waiting, forwarded]);
        if task.traced.replace(traced) == Some(traced) {
            return;
        }
        let described = || {
            let phase = format!("{:?}", owner.phase());
            let phase = phase.split([' ', '(']).next().unwrap_or_default();
            let in_flight = owner.in_flight();
            format!(
                "partition {partition}: {phase}, read up to term {term}, {in_flight} in flight, \
                 {waiting} waiting, {forwarded} forwarded waiting"
            )
        };
        self.trace
            .say(self.now_us, Who::Node(node), "stands", described);
    }

    pub(super) fn end_task(&mut self, node: usize, partition: usize, task: &mut Task) {
        let (driver, mut effects) = self.at_work(node, partition, task);
        driver.end(&mut effects);
        driver.seat_mut().owner_mut().save();
        task.ended = true;
    }
}

/// The error of a simulated log that does not answer.
pub(super) fn away() -> LogError {
    LogError::unavailable("reach the log", "it is away")
}

/// A driver's effects in the simulated world.
struct SimEffects<'w> {
    world: &'w mut World,
    node: usize,
    partition: usize,
    queues: &'w mut TaskQueues,
}

impl SimEffects<'_> {
    fn say(&mut self, what: &'static str, said: impl FnOnce() -> String) {
        self.world.say(Who::Node(self.node), what, said);
    }

    /// Takes a look at the log after a while; what it finds comes back as an input. If the log is
    /// away, that takes longer by `timeout_us`.
    fn ask_log<T>(
        &mut self,
        timeout_us: u64,
        look: impl FnOnce(&PartitionLog) -> T + 'static,
        input: impl FnOnce(Result<T, LogError>) -> Input + 'static,
    ) {
        let partition = self.partition;
        let at_us = self.world.now_us + self.world.delay_us();
        self.world.tell_node(at_us, self.node, move |world, node| {
            let answer = world.logs[partition].reached(world.now_us).map(look);
            let late_us = if answer.is_err() { timeout_us } else { 0 };
            let at_us = world.now_us + world.delay_us() + late_us;
            let answer = input(answer);
            world.tell_node(at_us, node, move |world, node| {
                world.input(node, partition, answer)
            });
        });
    }
}

impl Effects<SimClient, SimPeer> for SimEffects<'_> {
    type Asker = Ask;

    fn now(&self) -> Now {
        self.world.node_now(self.node)
    }

    fn reference(&self) -> Option<Reference> {
        self.world.nodes[self.node].reference
    }

    fn next_input(&mut self) -> Option<Input> {
        self.queues.inputs.pop_front()
    }

    fn next_command(&mut self) -> Option<(Submission, SimClient)> {
        self.queues.commands.pop()
    }

    fn next_forwarded(&mut self) -> Option<(Submission, SimPeer)> {
        self.queues.from_peers.pop_front()
    }

    fn take_hindered(&mut self) -> Vec<(Submission, SimPeer)> {
        let waiting = std::mem::take(&mut self.queues.from_peers).into_iter();
        let (hindered, rest): (VecDeque<_>, _) =
            waiting.partition(|(_, peer)| peer.hindrance().is_some());
        self.queues.from_peers = rest;
        hindered.into()
    }

    fn were_given_up(&mut self) -> bool {
        std::mem::take(&mut self.queues.given_up)
    }

    fn new_session(&mut self) {
        self.queues.session = None;
        let partition = self.partition;
        self.say("claims", || format!("partition {partition}"));
    }

    fn append(
        &mut self,
        seat: &Seat<SimClient, SimPeer>,
        sequence: u64,
        record: NewRecord,
    ) -> Option<NewRecord> {
        let (world, node) = (&mut *self.world, self.node);
        let producer = *self.queues.session.get_or_insert_with(|| {
            if world.producers[world.nodes[node].producer].failed {
                world.nodes[node].producer = world.new_producer(node);
            }
            world.nodes[node].producer
        });
        if self.world.producers[producer].failed {
            let failed = Input::Appended(sequence, Err(away()));
            self.queues.inputs.push_back(failed);
            return None;
        }
        self.world.check_sending(self.node, seat, &record);
        self.world
            .produce(producer, self.partition, sequence, record)
    }

    fn read(&mut self, from: Offset) {
        let number = self.world.histories[self.partition].partition;
        let read_max = self.world.plan.read_max;
        let look = move |log: &PartitionLog| {
            // Small pieces allow events in between, which matters near the end. A node that lost
            // its store would read one record at a time for longer than a partition may stand
            // still.
            let behind = usize::try_from(log.end().0.saturating_sub(from.0)).unwrap_or(0);
            log.read(number, from, read_max.max(behind / PIECES))
        };
        self.ask_log(TIMEOUT_US, look, Input::Read);
    }

    fn prove(&mut self, offset: Offset) {
        let look = move |log: &PartitionLog| (log.end(), log.at(offset).cloned());
        self.ask_log(TIMEOUT_US, look, move |found| Input::Proven(offset, found));
    }

    fn peek(&mut self) {
        let first = Offset(0);
        self.ask_log(0, PartitionLog::end, move |end| {
            Input::Peeked(end.map(|end| Bounds { first, end }))
        });
    }

    fn ask_owner(&mut self, owner: Hint, successor: Hint) {
        let (node, partition) = (self.node, self.partition);
        self.world.ask_owner(node, partition, &owner, successor);
    }

    fn open_link(&mut self, id: LinkId, address: &str) {
        let link = self.world.open_link(self.node, self.partition, id, address);
        self.queues.link = Some((id, link));
    }

    fn send(&mut self, id: LinkId, sequence: u64, command: &Command<SimClient>) {
        if let Some((open, link)) = self.queues.link
            && open == id
        {
            let deadlines = command.waiters.iter().map(|(client, _)| client.deadline_us);
            let deadline_us = deadlines.max().unwrap_or(self.world.now_us);
            let request = command.submission.request.clone();
            self.world.send_over(link, sequence, request, deadline_us);
        }
    }

    fn close_link(&mut self, id: LinkId) {
        if let Some((_, link)) = self.queues.link.take_if(|(open, _)| *open == id) {
            self.world.close_link(link);
        }
    }

    fn say_owner(&mut self, hint: Hint) {
        let partition = self.partition;
        let term = hint.term;
        self.say("owns", || format!("partition {partition} in term {term}"));
        self.world.say_owner(partition, hint);
    }

    fn answer(&mut self, client: SimClient, answer: Reply) {
        self.world.answer_client(self.node, client.ticket, answer);
    }

    fn answer_peer(&mut self, peer: SimPeer, answer: LinkAnswer) {
        let (node, partition) = (self.node, self.partition);
        self.world.answer_peer(node, partition, &peer, answer);
    }

    fn reply(&mut self, ask: Ask, _: bool) {
        self.world.answer_ask(self.node, ask);
    }
}
