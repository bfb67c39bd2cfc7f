//! The simulated world: everything in it, and the execution of its events one by one.
//!
//! Invariant: all events come from the schedule, and all randomness from the one source; there is
//! no clock, no thread, and no map with an order of its own.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::command::{Reply, SubmitError};
use event_log::claim::Claim;
use event_log::record::{ClaimHeaders, CommitHeaders, RECORD_VERSION, partition_of};
use kernel::registry::Registry;
use kernel::{TenantId, Timestamp};
use position::{LogId, Partition, Term, WriterId};
use serde_json::json;
use uuid::Uuid;

use super::book::{self, Accounts};
use super::client::{Client, Connection};
use super::event::{NodeEvent, Process, Schedule};
use super::group::Group;
use super::history::{Asked, AskedFor, PartitionHistory};
use super::log::PartitionLog;
use super::net::Link;
use super::node::Node;
use super::plan::Plan;
use super::producer::Producer;
use super::projector::{Projector, Tables};
use super::random::Random;
use super::trace::{Trace, Who};
use super::violation::{Invariant, Violation};

/// The moment at which every run begins, in microseconds since 1970.
const EPOCH_US: i64 = 1_750_000_000_000_000;
/// How long everything may take to work again after the faults have ended, in microseconds.
pub const RECOVERY_US: u64 = 10_000_000;

/// Counters of what happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Faults that were injected, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Cuts of the log.
    pub cuts: u64,
    /// Lines that were sent, repetitions included.
    pub sent: u64,
    /// Commands that were accepted.
    pub accepted: u64,
    /// Commands that were refused.
    pub refused: u64,
    /// Answers *unknown*.
    pub unknown: u64,
    /// Answers *turned away*.
    pub turned_away: u64,
    /// All other answers, except that an id was used for another command.
    pub other: u64,
}

impl Counts {
    /// Adds the counters of another run.
    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.cuts += other.cuts;
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.turned_away += other.turned_away;
        self.other += other.other;
    }

    pub(super) fn answered(&mut self, result: &Reply) {
        match result {
            Err(SubmitError::Unknown) => self.unknown += 1,
            Err(SubmitError::TurnedAway { .. }) => self.turned_away += 1,
            Ok(_) | Err(SubmitError::IdReused) => {}
            Err(_) => self.other += 1,
        }
    }
}

pub struct World {
    pub(super) now_us: u64,
    /// How long all machines were suspended together, in microseconds.
    pub(super) slept_us: u64,
    /// The present time, for parts without access to the world.
    pub(super) clock: Rc<Cell<u64>>,
    pub(super) random: Random,
    /// The source for clocks and nights.
    pub(super) aside: Random,
    pub(super) plan: Plan,
    pub(super) schedule: Schedule,
    pub(super) trace: Trace,
    pub(super) counts: Counts,
    pub(super) registry: Registry,
    pub(super) log_id: LogId,
    pub(super) logs: Vec<PartitionLog>,
    pub(super) histories: Vec<PartitionHistory>,
    pub(super) asked: AskedFor,
    pub(super) producers: Vec<Producer>,
    pub(super) nodes: Vec<Node>,
    pub(super) links: BTreeMap<u64, Link>,
    /// Until when nothing passes from one node to another, in microseconds.
    pub(super) blocked: Vec<Vec<u64>>,
    pub(super) group: Group,
    pub(super) clients: Vec<Client>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) projectors: Vec<Projector>,
    pub(super) database: Vec<Tables>,
    pub(super) slow_acknowledgements_until_us: u64,
    pub(super) no_offsets_until_us: u64,
    pub(super) slow_network_until_us: u64,
    pub(super) duplicate_next: bool,
    pub(super) imitate_next: bool,
    pub(super) disconnects: bool,
    pub(super) quiet: bool,
    pub(super) was_cut: bool,
    /// The streams with a command on which a broken program's rules fail.
    pub(super) has_broken: BTreeSet<String>,
    pub(super) violation: Option<Violation>,
    pub(super) finished: bool,
    numbers: u64,
}

impl World {
    pub fn new(mut random: Random, plan: Plan, trace: Trace) -> Self {
        let partitions = plan.partitions as usize;
        let numbered = || (0..plan.partitions).map(Partition);
        let mut world = Self {
            now_us: 0,
            slept_us: 0,
            clock: Rc::new(Cell::new(0)),
            schedule: Schedule::default(),
            trace,
            counts: Counts::default(),
            registry: Registry::new().with::<Accounts>(),
            log_id: LogId::default(),
            logs: numbered().map(|_| PartitionLog::default()).collect(),
            histories: numbered()
                .map(|number| PartitionHistory::new(number, plan.settings.idempotency_window_ms))
                .collect(),
            asked: AskedFor::default(),
            producers: Vec::new(),
            nodes: (0..plan.nodes).map(|_| Node::new(partitions)).collect(),
            links: BTreeMap::new(),
            blocked: vec![vec![0; plan.nodes]; plan.nodes],
            group: Group::new(plan.nodes, partitions),
            clients: (0..plan.clients).map(|_| Client::default()).collect(),
            connections: BTreeMap::new(),
            projectors: (0..2).map(|_| Projector::default()).collect(),
            database: numbered().map(|_| Tables::default()).collect(),
            slow_acknowledgements_until_us: 0,
            no_offsets_until_us: 0,
            slow_network_until_us: 0,
            duplicate_next: false,
            imitate_next: false,
            disconnects: false,
            quiet: false,
            was_cut: false,
            has_broken: BTreeSet::new(),
            violation: None,
            finished: false,
            numbers: 0,
            aside: random.aside(),
            random: random.fork(),
            plan,
        };
        world.log_id = LogId(Uuid::from_u128(u128::from(random.number())));
        world.begin();
        world
    }

    fn begin(&mut self) {
        for partition in 0..self.logs.len() {
            let claim = ClaimHeaders {
                term: Term(1),
                writer: WriterId(Uuid::from_u128(u128::from(self.random.number()))),
                log: self.log_id,
                version: RECORD_VERSION,
            };
            let value = Claim {
                node: "maker".to_owned(),
                address: None,
                idempotency_window_ms: self.plan.settings.idempotency_window_ms,
                acknowledged: None,
                copied: None,
            };
            self.append_to_log(partition, claim.record(value.to_value()));
            if self.plan.log_ahead_ms > 0 {
                self.append_from_the_future(partition, &claim);
            }
        }
        for node in 0..self.nodes.len() {
            let at_us = self.random.below(300_000);
            self.schedule.at(at_us, move |world| world.start_node(node));
        }
        for client in 0..self.clients.len() {
            let at_us = self.random.below(500_000);
            self.schedule.at(at_us, move |world| world.go(client));
        }
        self.start_projector_at(0, 0);
        if !self.plan.faults.is_empty() {
            let at_us = self.random.below(1_000_000);
            self.schedule.at(at_us, Self::next_fault);
        }
        if self.plan.cuts {
            let last_us = self.plan.quiet_from_us - 500_000;
            let at_us = self.random.between(1_000_000, last_us);
            self.schedule.at(at_us, Self::cut);
        }
        self.schedule.at(self.plan.quiet_from_us, Self::end_faults);
    }

    /// Appends a commit as from an owner whose clock was ahead: a command without effect.
    fn append_from_the_future(&mut self, partition: usize, claim: &ClaimHeaders) {
        let history = &self.histories[partition];
        let position = history.position();
        let headers = CommitHeaders {
            term: claim.term,
            writer: claim.writer,
            position: position.next(),
            previous: history.head_at(position).expect("the claim was read"),
        };
        let stream = format!("{}-ahead-{partition}", book::CATEGORY);
        let (id, intent) = (format!("ahead-{partition}"), self.number());
        let ahead_us = self.plan.log_ahead_ms.cast_signed() * 1_000;
        let recorded_at = Timestamp::from_micros(self.wall_us() + ahead_us).unwrap_or_default();
        let value = json!({
            "commit": Uuid::from_u128(u128::from(self.aside.number())),
            "stream": stream,
            "from_version": 0,
            "recorded_at": recorded_at,
            "command": {
                "id": id,
                "type": book::COMMAND,
                "schema": 1,
                "data": {"intent": intent, "amounts": []},
            },
            "outcome": "accepted",
        });
        let asked = Asked {
            intent,
            occurred_at: None,
            after: None,
        };
        self.asked.insert((stream.clone(), id), asked);
        let key = [TenantId::default().as_str(), "/", &stream].concat();
        let value = value.to_string();
        self.append_to_log(partition, headers.record(key.into(), value.into()));
    }

    /// Executes the next event; `false` when the run is over.
    pub fn step(&mut self) -> bool {
        if self.finished || self.violation.is_some() {
            return false;
        }
        let Some((at_us, event)) = self.schedule.next() else {
            return false;
        };
        self.now_us = at_us;
        self.clock.set(at_us);
        event(self);
        true
    }

    pub(super) fn resume(&mut self, node: usize) {
        if self.nodes[node].paused_until_us != self.now_us {
            return;
        }
        self.nodes[node].paused_until_us = 0;
        let suspended_from_us = std::mem::take(&mut self.nodes[node].suspended_from_us);
        if suspended_from_us > 0 {
            self.nodes[node].suspended_us += self.now_us - suspended_from_us;
        }
        self.say(Who::Node(node), "goes on", String::new);
        let process = self.process_of(node);
        for event in std::mem::take(&mut self.nodes[node].backlog) {
            self.node_event(process, event);
        }
    }

    /// Whether this process of a node still runs.
    pub(super) fn runs(&self, process: Process) -> bool {
        let node = &self.nodes[process.node];
        node.up && node.incarnation == process.incarnation
    }

    pub(super) fn node_event(&mut self, process: Process, event: NodeEvent) {
        if !self.runs(process) {
            return;
        }
        let node = &mut self.nodes[process.node];
        if node.paused_until_us > 0 {
            node.backlog.push(event);
        } else {
            book::set_broken(node.is_broken);
            event(self, process.node);
        }
    }

    pub(super) fn say(&mut self, who: Who, what: &str, text: impl FnOnce() -> String) {
        self.trace.say(self.now_us, who, what, text);
    }

    /// Notes the first broken promise; it ends the run.
    pub(super) fn break_off(&mut self, invariant: Invariant, what: String) {
        if self.violation.is_none() {
            self.say(Who::Log, "VIOLATION", || format!("{invariant}: {what}"));
            self.violation = Some(Violation {
                invariant,
                at_us: self.now_us,
                what,
            });
        }
    }

    /// A number that was not used before.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn partition_of(&self, stream: &str) -> usize {
        partition_of(&TenantId::default(), stream, self.plan.partitions).0 as usize
    }

    /// The brokers' clock, which is right.
    pub(super) fn wall_us(&self) -> i64 {
        EPOCH_US + (self.now_us + self.slept_us).cast_signed()
    }

    /// A clock that counts suspended time and is never set; all nodes have the same one.
    pub(super) fn boottime_ms(&self) -> u64 {
        (self.now_us + self.slept_us) / 1_000
    }

    pub(super) fn wall_ms(&self) -> i64 {
        self.wall_us() / 1_000
    }

    /// A random delay, usually short, in microseconds.
    pub(super) fn delay_us(&mut self) -> u64 {
        match self.random.below(100) {
            0 => self.random.between(2_000, 60_000),
            1..=9 => self.random.between(500, 5_000),
            _ => self.random.between(50, 800),
        }
    }
}
