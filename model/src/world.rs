//! The whole modelled world as a value, its possible next steps, and their effects.
//!
//! Invariant: the world depends only on the steps that led to it. Deliberately absent: what must
//! hold in it (`check`).

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use engine::command::{Answer, Decision, Request, SubmitError};
use engine::owner::Submission;
use kernel::registry::Registry;
use kernel::{CommandId, TenantId};
use position::{Position, Term};
use uuid::Uuid;

use crate::config::{Config, Producer, Reads};
use crate::ledger::{COMMAND, Ledgers, STREAM, Write};
use crate::log::Log;
use crate::node::{Effects, Node, Released, Ticket};

/// The answer to one sending of a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Accepted by the log.
    Accepted {
        /// The position of its commit.
        position: Position,
        /// The stream's version after the commit.
        version: u64,
        /// Its events.
        events: Vec<Uuid>,
    },
    /// Refused by the log.
    Refused {
        /// The position of its commit.
        position: Position,
    },
    /// The outcome is unknown.
    Unknown,
    /// It was not attempted.
    NotAttempted,
    /// Anything else: the model never leads to this.
    Unexpected,
}

/// The state of one sending of a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sending {
    /// With a node.
    With(u8),
    /// Given back by an owner, and on its way to the present owner.
    Released,
    /// The node that held it has crashed.
    Lost,
    /// Answered.
    Answered(Reply),
}

/// How often each bounded step has been taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    /// Claims handed to the log.
    pub claims: u8,
    crashes: u8,
    resends: u8,
    failures: u8,
    lost_acks: u8,
    blind_acks: u8,
    cuts: u8,
    mishaps: u8,
    imitations: u8,
}

/// One state of the whole model.
#[derive(Clone)]
pub struct World {
    /// The nodes.
    pub nodes: Vec<Arc<Node>>,
    /// The partition.
    pub log: Arc<Log>,
    /// The sendings of each command.
    pub sendings: Vec<Vec<Sending>>,
    /// The commands that owners gave back, in order.
    pub released: Vec<Released>,
    /// How often each bounded step has been taken.
    pub spent: Spent,
    /// Whether a sending was answered twice.
    pub answered_twice: bool,
    /// Whether an owner continued after a cut of records that it had read.
    pub went_on_silently: bool,
}

/// The next step. Nodes and places are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A client sends a command to a node, for the first time or again.
    Send {
        /// The command.
        command: u8,
        /// The node.
        node: u8,
    },
    /// A command that an owner gave back reaches a node that decides.
    Route {
        /// The node.
        node: u8,
    },
    /// The next record of a node's session lands.
    Land(u8),
    /// The next record of a closed session lands.
    LandLate {
        /// The node that had the session.
        node: u8,
        /// Which of its closed sessions.
        session: u8,
    },
    /// The next acknowledgement of a node arrives.
    Acknowledge(u8),
    /// The next acknowledgement arrives without an offset.
    AcknowledgeBlindly(u8),
    /// The next acknowledgement never arrives.
    LoseAcknowledgement(u8),
    /// The oldest unacknowledged append is reported as failed.
    Fail(u8),
    /// The time comes for which a node waits.
    Tick(u8),
    /// A node's read is served.
    Serve(u8),
    /// A node's read arrives.
    Read(u8),
    /// A node crashes and starts again.
    Crash {
        /// The node.
        node: u8,
        /// Whether its local store is kept.
        keep_store: bool,
    },
    /// The last records of the log are lost.
    Cut {
        /// How many.
        records: u8,
    },
    /// A foreign record lands with the headers of a node's next record and another value.
    Imitate(u8),
    /// A careless producer loses its next record and continues.
    DropNext(u8),
    /// A careless producer lands its second record first.
    LandSecond(u8),
    /// A careless producer lands its next record twice.
    LandTwice(u8),
}

/// A command of the model in the form in which an owner gets it.
#[must_use]
pub fn submission(config: &Config, command: u8) -> Submission {
    let write = config.commands[usize::from(command)];
    let data = Write {
        entry: u64::from(command),
        at_most: write.at_most,
    };
    let json = serde_json::to_string(&data).expect("plain data");
    let registry = Registry::new().with::<Ledgers>();
    let aggregate = registry.get("ledger").expect("it was registered");
    let decoded = aggregate.decode_command(COMMAND, None, &json);
    let request = Request {
        tenant: TenantId::default(),
        stream: STREAM.parse().expect("a stream's name"),
        command: COMMAND.into(),
        schema: None,
        id: id_of(command),
        occurred_at: None,
        expected_version: write.expected_version,
        correlation_id: None,
        causation_id: None,
        actor: None,
        trace: None,
        data: serde_json::value::RawValue::from_string(json).expect("it is JSON"),
    };
    Submission {
        request,
        command: decoded.expect("it has the command's shape"),
    }
}

/// The id of a command.
#[must_use]
pub fn id_of(command: u8) -> CommandId {
    format!("c{command}").parse().expect("a command's id")
}

impl World {
    /// The world before anything happened.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            log: Arc::new(Log::new(config.flaw)),
            sendings: vec![Vec::new(); config.commands.len()],
            released: Vec::new(),
            spent: Spent::default(),
            answered_twice: false,
            went_on_silently: false,
        };
        for id in 0..config.nodes {
            let mut effects = Effects::default();
            let node = Node::new(id, config, &world.log, &mut effects);
            world.nodes.push(Arc::new(node));
            world.take(effects);
        }
        world
    }

    /// Whether a command has an answer that comes from the log.
    #[must_use]
    pub fn is_answered(&self, command: usize) -> bool {
        let by_log = |sending: &Sending| {
            let Sending::Answered(reply) = sending else {
                return false;
            };
            matches!(reply, Reply::Accepted { .. } | Reply::Refused { .. })
        };
        self.sendings[command].iter().any(by_log)
    }

    /// All possible next steps.
    pub fn steps(&self, config: &Config, steps: &mut Vec<Step>) {
        if self.released.is_empty() {
            self.sends(config, steps);
        }
        for (id, node) in (0..).zip(&self.nodes) {
            if !self.released.is_empty() && node.takes_commands() {
                steps.push(Step::Route { node: id });
            }
            self.steps_of(id, node, config, steps);
        }
        if self.spent.cuts < config.cuts_max {
            let longest = u8::try_from(self.log.len()).unwrap_or(u8::MAX);
            steps.extend((1..=longest).map(|records| Step::Cut { records }));
        }
    }

    fn sends(&self, config: &Config, steps: &mut Vec<Step>) {
        for (command, sendings) in (0..).zip(&self.sendings) {
            let is_first = sendings.is_empty();
            // Commands differ only in name before they are sent, so it is enough to send them in
            // one order.
            let in_order = self.sendings[..usize::from(command)]
                .iter()
                .all(|s| !s.is_empty());
            if (is_first && in_order) || (!is_first && self.spent.resends < config.resends_max) {
                for (node, at) in (0..).zip(&self.nodes) {
                    if at.takes_commands() {
                        steps.push(Step::Send { command, node });
                    }
                }
            }
        }
    }

    fn steps_of(&self, id: u8, node: &Node, config: &Config, steps: &mut Vec<Step>) {
        let spent = &self.spent;
        // Nodes differ only in name while the log is empty, so the first record is always of node
        // 0.
        let may_be_first = id == 0 || !self.log.is_empty();
        if node.queued() > 0 && may_be_first {
            steps.push(Step::Land(id));
            if spent.mishaps < config.mishaps_max && config.producer() == Producer::Careless {
                steps.extend([Step::DropNext(id), Step::LandTwice(id)]);
                if node.queued() > 1 {
                    steps.push(Step::LandSecond(id));
                }
            }
        }
        if spent.imitations < config.imitations_max && node.is_next_a_commit() {
            steps.push(Step::Imitate(id));
        }
        let late = u8::try_from(node.late()).unwrap_or(u8::MAX);
        steps.extend((0..late).map(|session| Step::LandLate { node: id, session }));
        if node.has_ack() {
            steps.push(Step::Acknowledge(id));
            if spent.blind_acks < config.blind_acks_max {
                steps.push(Step::AcknowledgeBlindly(id));
            }
            if spent.lost_acks < config.lost_acks_max {
                steps.push(Step::LoseAcknowledgement(id));
            }
        }
        let unresolved = node.has_ack() || node.queued() > 0;
        if unresolved && spent.failures < config.failures_max {
            steps.push(Step::Fail(id));
        }
        // Another claim would exceed the bound. A wait that ends while an append is still under way
        // counts as a failure.
        let may_tick = match node.is_backing_off() {
            true => spent.claims < config.claims_max,
            false => !unresolved || spent.failures < config.failures_max,
        };
        if node.waits_for_time() && may_tick {
            steps.push(Step::Tick(id));
        }
        if let Some(is_served) = node.is_reading() {
            if !is_served && config.reads == Reads::LaterAndLate {
                steps.push(Step::Serve(id));
            } else {
                steps.push(Step::Read(id));
            }
        }
        if spent.crashes < config.crashes_max {
            steps.push(Step::Crash {
                node: id,
                keep_store: false,
            });
            if config.stores {
                steps.push(Step::Crash {
                    node: id,
                    keep_store: true,
                });
            }
        }
    }

    /// The world after a step.
    #[must_use]
    pub fn after(&self, step: Step, config: &Config) -> Self {
        let mut world = self.clone();
        world.step(step, config);
        world
    }

    fn step(&mut self, step: Step, config: &Config) {
        match step {
            Step::Send { command, node } => self.send(command, node, config),
            Step::Route { node } => {
                let released = self.released.remove(0);
                for (ticket, _) in &released.1 {
                    *self.sending(*ticket) = Sending::With(node);
                }
                self.at(node, |node, log, effects| {
                    node.submit(released, config, log, effects);
                });
            }
            Step::Land(node) => self.land(node, |node, log| node.land(0, log)),
            Step::LandSecond(node) => {
                self.spent.mishaps += 1;
                self.land(node, |node, log| node.land(1, log));
            }
            Step::LandTwice(node) => {
                self.spent.mishaps += 1;
                self.land(node, Node::land_twice);
            }
            Step::DropNext(node) => {
                self.spent.mishaps += 1;
                self.land(node, |node, _| node.drop_next());
            }
            Step::Imitate(node) => {
                self.spent.imitations += 1;
                self.land(node, |node, log| node.imitate(log));
            }
            Step::LandLate { node, session } => {
                self.land(node, |node, log| node.land_late(usize::from(session), log));
            }
            Step::Acknowledge(node) => self.at(node, |node, log, effects| {
                node.acknowledge(false, config, log, effects);
            }),
            Step::AcknowledgeBlindly(node) => {
                self.spent.blind_acks += 1;
                self.at(node, |node, log, effects| {
                    node.acknowledge(true, config, log, effects);
                });
            }
            Step::LoseAcknowledgement(node) => {
                self.spent.lost_acks += 1;
                self.at(node, |node, _, _| node.lose_ack());
            }
            Step::Fail(node) => {
                self.spent.failures += 1;
                self.at(node, |node, log, effects| node.fail(config, log, effects));
            }
            Step::Tick(node) => {
                let at = &self.nodes[usize::from(node)];
                let is_failure = !at.is_backing_off() && (at.has_ack() || at.queued() > 0);
                self.spent.failures += u8::from(is_failure);
                self.at(node, |node, log, effects| node.tick(config, log, effects));
            }
            Step::Serve(node) => self.at(node, |node, log, _| node.serve(config, log)),
            Step::Read(node) => {
                self.at(node, |node, log, effects| node.read(config, log, effects));
            }
            Step::Crash { node, keep_store } => self.crash(node, keep_store, config),
            Step::Cut { records } => self.cut(records, config),
        }
    }

    fn send(&mut self, command: u8, node: u8, config: &Config) {
        let sendings = &mut self.sendings[usize::from(command)];
        self.spent.resends += u8::from(!sendings.is_empty());
        let sending = u8::try_from(sendings.len()).expect("few sendings");
        sendings.push(Sending::With(node));
        let ticket = Ticket { command, sending };
        let submission = submission(config, command);
        self.at(node, |node, log, effects| {
            node.submit((submission, vec![(ticket, false)]), config, log, effects);
        });
    }

    fn crash(&mut self, node: u8, keep_store: bool, config: &Config) {
        self.spent.crashes += 1;
        for sending in self.sendings.iter_mut().flatten() {
            if *sending == Sending::With(node) {
                *sending = Sending::Lost;
            }
        }
        self.at(node, |node, log, effects| {
            node.crash(keep_store, config, log, effects);
        });
    }

    fn cut(&mut self, records: u8, config: &Config) {
        self.spent.cuts += 1;
        let lost = Arc::make_mut(&mut self.log).cut(usize::from(records));
        for origin in lost {
            // The broker has lost the producer's last sequence number: the next append fails.
            self.at(origin.node, |node, log, effects| {
                node.lose(origin, config, log, effects);
            });
        }
    }

    fn sending(&mut self, ticket: Ticket) -> &mut Sending {
        &mut self.sendings[usize::from(ticket.command)][usize::from(ticket.sending)]
    }

    /// Lands records of a node.
    fn land(&mut self, node: u8, land: impl FnOnce(&mut Node, &mut Log)) {
        let node = Arc::make_mut(&mut self.nodes[usize::from(node)]);
        land(node, Arc::make_mut(&mut self.log));
    }

    /// Lets a node act, and applies the effects.
    fn at(&mut self, node: u8, act: impl FnOnce(&mut Node, &Log, &mut Effects)) {
        let mut effects = Effects::default();
        let node = Arc::make_mut(&mut self.nodes[usize::from(node)]);
        act(node, &self.log, &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Effects) {
        self.spent.claims += effects.claims;
        self.went_on_silently |= effects.went_on_silently;
        for (ticket, answer) in effects.answers {
            let sending = self.sending(ticket);
            let is_second = matches!(sending, Sending::Answered(_));
            *sending = Sending::Answered(reply_of(answer));
            self.answered_twice |= is_second;
        }
        for released in effects.released {
            for (ticket, _) in &released.1 {
                *self.sending(*ticket) = Sending::Released;
            }
            self.released.push(released);
        }
    }
}

fn reply_of(answer: Result<Answer, SubmitError>) -> Reply {
    match answer {
        Ok(answer) => {
            let position = answer.position.positions.values().next().copied();
            let position = position.unwrap_or_default();
            match answer.decision {
                Decision::Accepted(events) => Reply::Accepted {
                    position,
                    version: answer.version,
                    events: events.iter().map(|event| event.id).collect(),
                },
                Decision::Rejected(_) => Reply::Refused { position },
            }
        }
        Err(SubmitError::Unknown) => Reply::Unknown,
        Err(SubmitError::TurnedAway { .. }) => Reply::NotAttempted,
        Err(
            SubmitError::IdReused
            | SubmitError::TooLarge { .. }
            | SubmitError::StreamTooLarge { .. }
            | SubmitError::Failed
            | SubmitError::Damaged(_)
            | SubmitError::Frozen(_),
        ) => Reply::Unexpected,
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.nodes
            .iter()
            .for_each(|node| node.digest().hash(hasher));
        self.log.digest().hash(hasher);
        (&self.sendings, self.spent).hash(hasher);
        for (submission, waiters) in &self.released {
            (submission.request.id.as_str(), waiters).hash(hasher);
        }
        (self.answered_twice, self.went_on_silently).hash(hasher);
    }
}

impl World {
    /// A digest that differs for different worlds.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.nodes.iter().enumerate() {
            let (phase, term) = node.look(|owner| {
                let term: Term = owner.chain().term;
                (format!("{:?}", owner.phase()), term)
            });
            write!(f, "n{id} term {term} {phase}; ")?;
        }
        write!(f, "log of {} {:?}", self.log.len(), self.log.accepted())?;
        write!(f, " {:?} {:?}", self.sendings, self.spent)
    }
}
