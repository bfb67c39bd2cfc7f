//! A node of the simulated world: its process, its seats, and the tasks that drive them.
//!
//! Invariant: a seat's actions are performed as the engine's own driver performs them
//! (`seat::driver`), with inputs in the same order. Deliberately absent: clients' connections
//! (`door`) and links (`net`).

use std::collections::{BTreeMap, VecDeque};
use std::mem::Discriminant;

use engine::clock::Reference;
use engine::owner::{LogAction, Owner, OwnerSettings, Phase, Submission};
use engine::peers::{LinkEvent, LinkId};
use engine::seat::{FairQueue, Identity, Seat, SeatAction};
use event_log::directory::Hint;
use event_log::log::{Appended, Chunk};
use event_log::record::{NewRecord, Record};
use position::{Offset, Partition, Term};

use super::book;
use super::door::{Handler, SimClient, Waiting};
use super::event::{Ask, Event, NodeEvent};
use super::net::{About, Served, SimPeer};
use super::random::Random;
use super::store::LocalStore;
use super::trace::Who;
use super::world::World;

/// How often a task looks at the clock, as in the engine, in microseconds.
const TICK_US: u64 = 50_000;
/// How often the local checkpoint is written while little changes, in microseconds.
const SAVE_EVERY_US: u64 = 1_000_000;
/// How many inputs are taken before actions are performed, as in the engine.
const INPUTS_MAX: usize = 256;

/// How many commands are taken out of the fair queue before they are routed, as in the engine.
const COMMANDS_MAX: usize = 16;

/// An input of a task.
pub enum Input {
    /// The result of an append.
    Appended(u64, Option<Appended>),
    /// The result of a read; `None`: it failed.
    Read(Option<Chunk>),
    /// The result of a look for a proof; `None`: it failed.
    Looked(Offset, Option<(Offset, Option<Record>)>),
    /// The log's end; `None`: it could not be read.
    Peeked(Option<Offset>),
    /// The owner that was asked has answered, or will not.
    OwnerAnswered,
    /// An event of a link.
    Link(LinkId, LinkEvent),
}

/// Requests of other nodes to a task, apart from commands.
pub enum Control {
    HandOver(Hint, Ask),
    TakeOver(Ask),
}

/// One partition's task in a node's process.
pub struct Task {
    pub seat: Seat<SimClient, SimPeer>,
    pub(super) inputs: VecDeque<Input>,
    pub(super) control: VecDeque<Control>,
    pub(super) from_peers: VecDeque<(Submission, SimPeer)>,
    pub(super) commands: FairQueue<(Submission, SimClient)>,
    pub(super) assigned: Option<bool>,
    pub(super) hint: Option<Hint>,
    pub(super) ticked: bool,
    /// Whether a client gave up a command that was already taken out of the queue.
    pub(super) given_up: bool,
    pub(super) stops: bool,
    /// Whether the task has ended and takes nothing more.
    pub ended: bool,
    is_running: bool,
    saved_at_us: u64,
    session: Option<usize>,
    held_back: VecDeque<(u64, NewRecord)>,
    pub(super) link: Option<(LinkId, u64)>,
    hand_overs: Vec<Ask>,
    take_overs: Vec<Ask>,
    /// What the trace last said about the task: phase, term, and the numbers in flight and waiting.
    stands: Option<(Discriminant<Phase>, Term, [usize; 3])>,
}

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
    /// Until when its appends are held up on their way.
    pub(super) appends_held_until_us: u64,
    /// Until when its local store fails.
    pub(super) store_away_until_us: u64,
    /// The connections of its clients.
    pub(super) handlers: BTreeMap<u64, Handler>,
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// Links that other nodes opened.
    pub(super) served: BTreeMap<u64, Served>,
    /// Questions to other nodes that have no answer yet.
    pub(super) asks: BTreeMap<u64, About>,
    pub(super) leaving: Option<super::leave::Leaving>,
}

impl Node {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            up: false,
            incarnation: 0,
            paused_until_us: 0,
            backlog: Vec::new(),
            is_broken: false,
            clock_off_us: 0,
            suspended_us: 0,
            suspended_from_us: 0,
            reference: None,
            probe_at_us: 0,
            tasks: Vec::new(),
            producer: 0,
            stores: (0..partitions).map(|_| LocalStore::default()).collect(),
            queue_full_until_us: 0,
            appends_held_until_us: 0,
            store_away_until_us: 0,
            handlers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            served: BTreeMap::new(),
            asks: BTreeMap::new(),
            leaving: None,
        }
    }

    /// The tasks that are not running at this moment.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().flatten()
    }
}

#[must_use]
pub fn address(node: usize) -> String {
    format!("http://node-{node}")
}

#[must_use]
pub fn node_at(address: &str) -> Option<usize> {
    address.strip_prefix("http://node-")?.parse().ok()
}

impl World {
    /// Schedules an event for a node's present process.
    pub(super) fn tell_node(&mut self, at_us: u64, node: usize, event: NodeEvent) {
        let incarnation = self.nodes[node].incarnation;
        self.schedule.at(
            at_us,
            Event::Node {
                node,
                incarnation,
                event,
            },
        );
    }

    pub(super) fn start_node(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        let now = self.now_us;
        self.trace.say(now, Who::Node(node), "starts", String::new);
        self.nodes[node].up = true;
        self.nodes[node].incarnation += 1;
        self.nodes[node].is_broken = self.starts_broken(node);
        book::set_broken(self.nodes[node].is_broken);
        self.nodes[node].producer = self.new_producer(node);
        let mut tasks = Vec::new();
        for partition in 0..self.logs.len() {
            let settings = OwnerSettings {
                node: format!("node-{node}"),
                address: Some(address(node)),
                ..self.plan.settings.clone()
            };
            let mut owner = Owner::new(
                Partition(u32::try_from(partition).expect("there are few partitions")),
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
                seat.learn(hint, self.node_now(node));
            }
            let at_start = Reference::at_start(self.node_now(node));
            self.nodes[node].reference = Some(at_start);
            seat.set_reference(at_start);
            seat.start(Offset(0), false, self.node_now(node));
            tasks.push(Some(Task {
                seat,
                inputs: VecDeque::new(),
                control: VecDeque::new(),
                from_peers: VecDeque::new(),
                commands: FairQueue::new(self.plan.queue_max),
                assigned: None,
                hint: None,
                ticked: false,
                given_up: false,
                stops: false,
                ended: false,
                is_running: false,
                saved_at_us: now,
                session: None,
                held_back: VecDeque::new(),
                link: None,
                hand_overs: Vec::new(),
                take_overs: Vec::new(),
                stands: None,
            }));
        }
        self.nodes[node].tasks = tasks;
        for partition in 0..self.logs.len() {
            self.wake(node, partition);
        }
        let first_tick_us = now + self.random.below(TICK_US);
        self.tell_node(first_tick_us, node, NodeEvent::Tick);
        let joins_us = now + self.random.between(1_000, 300_000);
        let incarnation = self.nodes[node].incarnation;
        self.schedule
            .at(joins_us, Event::Join { node, incarnation });
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
            self.tell_node(at_us, node, NodeEvent::Run(partition));
        }
    }

    pub(super) fn input(&mut self, node: usize, partition: usize, input: Input) {
        self.task(node, partition).inputs.push_back(input);
        self.wake(node, partition);
    }

    pub(super) fn tick(&mut self, node: usize) {
        self.probe_time(node);
        for partition in 0..self.logs.len() {
            self.task(node, partition).ticked = true;
            self.wake(node, partition);
        }
        self.tell_node(self.now_us + TICK_US, node, NodeEvent::Tick);
    }

    /// Runs a task until it has nothing to do.
    pub(super) fn run_task(&mut self, node: usize, partition: usize) {
        let Some(mut task) = self.nodes[node].tasks[partition].take() else {
            return;
        };
        task.is_running = false;
        while !task.ended {
            self.perform(node, partition, &mut task);
            let it_is_time = self.now_us >= task.saved_at_us + SAVE_EVERY_US;
            if task.seat.is_save_due(it_is_time) {
                task.seat.save();
                task.saved_at_us = self.now_us;
            }
            if task.stops && task.seat.is_done() {
                self.end_task(node, partition, &mut task);
                break;
            }
            if !self.take_inputs(node, &mut task) {
                break;
            }
        }
        self.say_standing(node, partition, &mut task);
        self.look_at(node, partition, &task);
        self.nodes[node].tasks[partition] = Some(task);
        self.feed(node, partition);
        self.feed_links(node, partition);
    }

    /// Notes a task's state in the trace, if it has changed.
    fn say_standing(&mut self, node: usize, partition: usize, task: &mut Task) {
        let owner = task.seat.owner();
        let (waiting, forwarded) = (task.seat.waiting(), task.seat.forwarded_waiting());
        let term = owner.chain().term;
        let phase = std::mem::discriminant(owner.phase());
        let stands = (phase, term, [owner.in_flight(), waiting, forwarded]);
        if task.stands.replace(stands) == Some(stands) {
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

    /// Takes what the engine's driver would take next; `false` if there is nothing.
    fn take_inputs(&mut self, node: usize, task: &mut Task) -> bool {
        let now = self.node_now(node);
        if std::mem::take(&mut task.given_up) {
            task.seat.forget_given_up();
        }
        let takes = task.seat.waiting() == 0;
        let takes_forwarded = task.seat.forwarded_waiting() == 0;
        if !task.inputs.is_empty() {
            for _ in 0..INPUTS_MAX {
                let Some(input) = task.inputs.pop_front() else {
                    break;
                };
                match input {
                    Input::Appended(sequence, appended) => {
                        task.seat.appended(sequence, appended, now);
                    }
                    Input::Read(Some(chunk)) => task.seat.read(chunk, now),
                    Input::Looked(offset, Some((end, found))) => {
                        task.seat.proven(offset, end, found.as_ref());
                    }
                    Input::Read(None) => task.seat.read_failed(),
                    Input::Looked(_, None) => task.seat.proof_failed(),
                    Input::Peeked(end) => task.seat.peeked(end, now),
                    Input::OwnerAnswered => task.seat.owner_answered(now),
                    Input::Link(link, event) => task.seat.link_event(link, event, now),
                }
            }
        } else if let Some(control) = task.control.pop_front() {
            match control {
                Control::HandOver(successor, ask) => {
                    let owned = task.seat.hand_over(successor, now);
                    let what = if owned { "hands over" } else { "does not own" };
                    let to = ask.node;
                    let said = || format!("asked by node {to}");
                    self.trace.say(self.now_us, Who::Node(node), what, said);
                    if owned {
                        task.hand_overs.push(ask);
                    } else {
                        self.answer_ask(node, ask);
                    }
                }
                Control::TakeOver(ask) => {
                    task.take_overs.push(ask);
                    task.seat.take_over(now);
                }
            }
        } else if takes_forwarded && !task.from_peers.is_empty() {
            for (submission, peer) in task.from_peers.drain(..) {
                task.seat.forwarded(submission, peer);
            }
        } else if takes && !task.commands.is_empty() {
            for _ in 0..COMMANDS_MAX {
                let Some((submission, client)) = task.commands.pop() else {
                    break;
                };
                task.seat.command(submission, client);
            }
        } else if let Some(assigned) = task.assigned.take() {
            task.seat.assign(assigned, now);
        } else if let Some(hint) = task.hint.take() {
            task.seat.learn(hint, now);
        } else if std::mem::take(&mut task.ticked) {
            self.retry_held_back(node, task);
            if let Some(reference) = self.nodes[node].reference {
                task.seat.set_reference(reference);
            }
            task.seat.tick(now);
            task.seat.dismiss_hindered();
        } else {
            return false;
        }
        true
    }

    fn end_task(&mut self, node: usize, partition: usize, task: &mut Task) {
        while let Some((submission, client)) = task.commands.pop() {
            task.seat.command(submission, client);
        }
        for (submission, peer) in task.from_peers.drain(..) {
            task.seat.forwarded(submission, peer);
        }
        task.seat.give_up();
        self.perform(node, partition, task);
        task.seat.save();
        task.ended = true;
    }

    /// Ends a task, whether it is done or not.
    pub(super) fn force_end(&mut self, node: usize, partition: usize) {
        if let Some(mut task) = self.nodes[node].tasks[partition].take() {
            if !task.ended {
                self.end_task(node, partition, &mut task);
            }
            self.nodes[node].tasks[partition] = Some(task);
        }
    }

    fn perform(&mut self, node: usize, partition: usize, task: &mut Task) {
        let now = self.node_now(node);
        for action in task.seat.take_actions(now) {
            match action {
                SeatAction::Answer(client, answer) => {
                    self.answer_client(node, client.ticket, answer);
                }
                SeatAction::AnswerPeer(peer, answer) => {
                    self.answer_peer(node, partition, &peer, answer)
                }
                SeatAction::Log(LogAction::Append {
                    sequence,
                    record,
                    claim,
                }) => {
                    if !task.seat.sends(sequence) {
                        continue;
                    }
                    if claim {
                        task.held_back.clear();
                        task.session = None;
                        let who = Who::Node(node);
                        let said = || format!("partition {partition}");
                        self.trace.say(self.now_us, who, "claims", said);
                    }
                    let held = match task.held_back.is_empty() {
                        true => self.try_append(node, partition, task, sequence, record),
                        false => Some(record),
                    };
                    let held = held.map(|record| (sequence, record));
                    task.held_back.extend(held);
                    task.seat.set_room(task.held_back.is_empty());
                }
                SeatAction::Log(LogAction::Read { from }) => {
                    let at_us = self.now_us + self.delay_us();
                    self.tell_node(at_us, node, NodeEvent::ServeRead(partition, from));
                }
                SeatAction::Log(LogAction::Prove { offset }) => {
                    let at_us = self.now_us + self.delay_us();
                    self.tell_node(at_us, node, NodeEvent::ServeLook(partition, offset));
                }
                SeatAction::Log(LogAction::Peek) => {
                    let at_us = self.now_us + self.delay_us();
                    self.tell_node(at_us, node, NodeEvent::ServePeek(partition));
                }
                SeatAction::AskOwner { owner, successor } => {
                    self.ask_owner(node, partition, &owner, successor);
                }
                SeatAction::Open(id, address) => {
                    let link = self.open_link(node, partition, id, &address);
                    task.link = Some((id, link));
                }
                SeatAction::Send(id, sequence) => {
                    if let Some((open, link)) = task.link
                        && open == id
                        && let Some(command) = task.seat.sent(sequence)
                    {
                        let deadlines =
                            command.waiters.iter().map(|(client, _)| client.deadline_us);
                        let deadline_us = deadlines.max().unwrap_or(self.now_us);
                        let request = command.submission.request.clone();
                        self.send_over(link, sequence, request, deadline_us);
                    }
                }
                SeatAction::Close(id) => {
                    if let Some((_, link)) = task.link.take_if(|(open, _)| *open == id) {
                        self.close_link(link);
                    }
                }
                SeatAction::SayOwner(hint) => {
                    let said = || format!("partition {partition} in term {}", hint.term);
                    self.trace.say(self.now_us, Who::Node(node), "owns", said);
                    self.say_owner(partition, hint);
                }
                SeatAction::LetGo => {
                    for ask in task.hand_overs.drain(..) {
                        self.answer_ask(node, ask);
                    }
                }
                SeatAction::TookOver => {
                    for ask in task.take_overs.drain(..) {
                        self.answer_ask(node, ask);
                    }
                }
            }
        }
    }

    /// Hands the record over; returns it if there is no room now.
    fn try_append(
        &mut self,
        node: usize,
        partition: usize,
        task: &mut Task,
        sequence: u64,
        record: NewRecord,
    ) -> Option<NewRecord> {
        let producer = match task.session {
            Some(producer) => producer,
            None => {
                if self.producers[self.nodes[node].producer].failed {
                    self.nodes[node].producer = self.new_producer(node);
                }
                *task.session.insert(self.nodes[node].producer)
            }
        };
        if self.producers[producer].failed {
            task.inputs.push_back(Input::Appended(sequence, None));
            return None;
        }
        self.check_sending(node, task, &record);
        self.produce(producer, partition, sequence, record)
    }

    fn retry_held_back(&mut self, node: usize, task: &mut Task) {
        let partition = task.seat.partition().0 as usize;
        while let Some((sequence, record)) = task.held_back.pop_front() {
            if !task.seat.sends(sequence) {
                continue;
            }
            if let Some(record) = self.try_append(node, partition, task, sequence, record) {
                task.held_back.push_front((sequence, record));
                break;
            }
        }
        task.seat.set_room(task.held_back.is_empty());
    }
}
