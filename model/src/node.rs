//! One node of the model: the real owner, its producer, and the records and answers under way
//! between the node and the log.
//!
//! Invariant: whatever needs no choice happens at once: an owner's actions are performed until it
//! has none left. Deliberately absent: the choices (`world`).

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use engine::command::{Answer, SubmitError};
use engine::owner::{
    Action, LogAction, NoStore, Now, Owner, OwnerSettings, Phase, StateStore, Submission,
};
use event_log::log::{Appended, Chunk, LogError};
use event_log::record::NewRecord;
use kernel::Timestamp;
use kernel::registry::Registry;
use position::{ChainHash, LogId, Offset};
use uuid::Uuid;

use crate::config::{Config, Reads};
use crate::ledger::Ledgers;
use crate::log::{Log, Origin, PARTITION, record_digest};
use crate::names::SharedNames;
use crate::store::MemoryStore;

/// One sending of a command, for which a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The command.
    pub command: u8,
    /// The number of its sending.
    pub sending: u8,
}

/// A command that an owner gave back, with the sendings that wait for its answer.
pub type Released = (Submission, Vec<(Ticket, bool)>);

/// The effects of a node's step outside the node.
#[derive(Default)]
pub struct Effects {
    /// The answers to clients.
    pub answers: Vec<(Ticket, Result<Answer, SubmitError>)>,
    /// The commands that the owner gave back.
    pub released: Vec<Released>,
    /// How many claims were handed to the log.
    pub claims: u8,
    /// Whether the owner continued although the log is no longer the one that it had read.
    pub went_on_silently: bool,
}

/// The producer for one claim.
#[derive(Clone, Default)]
struct Session {
    /// Handed over, but not landed.
    queue: VecDeque<(u64, NewRecord)>,
    /// Landed, but not yet acknowledged.
    acks: VecDeque<(u64, Offset)>,
    /// An append failed: the session accepts nothing more.
    is_closed: bool,
}

/// Records of a closed session; nobody waits for them. Each may still land, in order.
#[derive(Clone, Debug)]
struct Late {
    session: u8,
    records: VecDeque<NewRecord>,
}

/// A read that an owner waits for.
#[derive(Clone)]
enum Reading {
    Asked(Offset),
    Served(Arc<Chunk>),
}

/// One node of the model: its owner, its append session, and what it waits for.
pub struct Node {
    id: u8,
    owner: Mutex<Owner<Ticket>>,
    names: SharedNames,
    store: Option<MemoryStore>,
    session: Session,
    late: Vec<Late>,
    reading: Option<Reading>,
    digest: u64,
}

/// The present moment. The model's clock stands still: a node that waits for a time may be told at
/// any step that this time has come.
#[must_use]
pub fn now() -> Now {
    Now {
        wall: Timestamp::from_micros(1_700_000_000_000_000).expect("a time in 2023"),
        monotonic_ms: 0,
        boottime_ms: 0,
    }
}

/// The time that an owner waits for, if any.
fn awaited_ms(owner: &Owner<Ticket>) -> Option<u64> {
    match owner.phase() {
        Phase::BackingOff { until_ms, .. } | Phase::Asking { until_ms } => Some(*until_ms),
        Phase::Standby { read_at_ms } => *read_at_ms,
        Phase::AwaitingStore { retry_at_ms } => Some(retry_at_ms.unwrap_or_default()),
        Phase::Claiming {
            acknowledged,
            until_ms,
            ..
        } => acknowledged.is_none().then_some(*until_ms),
        Phase::Owning => {
            let patience_ms = OwnerSettings::default().append_doubt_after_ms;
            (!owner.is_drained()).then_some(patience_ms)
        }
        Phase::Proving | Phase::Following | Phase::Doubt | Phase::Stopped(_) => None,
    }
}

/// The log's identity.
#[must_use]
pub fn log_id() -> LogId {
    LogId(Uuid::from_u128(77))
}

fn new_owner(
    id: u8,
    config: &Config,
    registry: &Registry,
    names: &SharedNames,
    store: Option<&MemoryStore>,
) -> Owner<Ticket> {
    let settings = OwnerSettings {
        node: format!("n{id}"),
        address: None,
        in_flight_max: config.in_flight_max,
        save_every_commits: 1,
        standby_read_every_ms: None,
        look_every_ms: None,
        ..OwnerSettings::default()
    };
    let mut owner = Owner::new(
        PARTITION,
        registry.clone(),
        settings,
        boxed(store),
        Box::new(names.clone()),
    );
    owner.set_flaw(config.flaw);
    owner.new_log = Some(log_id());
    owner
}

fn boxed(store: Option<&MemoryStore>) -> Box<dyn StateStore> {
    match store {
        Some(store) => Box::new(store.clone()),
        None => Box::new(NoStore),
    }
}

impl Clone for Node {
    fn clone(&self) -> Self {
        let names = self.names.copy();
        let store = self.store.as_ref().map(MemoryStore::copy);
        let owner = self.owner.lock().expect("nobody panics while holding it");
        let owner = owner.fork(boxed(store.as_ref()), Box::new(names.clone()));
        Self {
            id: self.id,
            owner: Mutex::new(owner),
            names,
            store,
            session: self.session.clone(),
            late: self.late.clone(),
            reading: self.reading.clone(),
            digest: 0,
        }
    }
}

impl Node {
    /// A node that has read nothing and has just started.
    #[must_use]
    pub fn new(id: u8, config: &Config, log: &Log, effects: &mut Effects) -> Self {
        let names = SharedNames::of(id);
        let store = config.stores.then(MemoryStore::default);
        let registry = Registry::new().with::<Ledgers>();
        let owner = new_owner(id, config, &registry, &names, store.as_ref());
        let mut node = Self {
            id,
            owner: Mutex::new(owner),
            names,
            store,
            session: Session::default(),
            late: Vec::new(),
            reading: None,
            digest: 0,
        };
        node.step(config, log, effects, |owner| owner.start(Offset(0)));
        node
    }

    /// Loses all volatile state, and the local store too unless `keep_store`; then starts again.
    /// Records that were handed to the log may still land.
    pub fn crash(&mut self, keep_store: bool, config: &Config, log: &Log, effects: &mut Effects) {
        self.close_session();
        self.session = Session::default();
        self.reading = None;
        if !keep_store {
            self.store = config.stores.then(MemoryStore::default);
        }
        self.names.start_again();
        let registry = Registry::new().with::<Ledgers>();
        let owner = new_owner(self.id, config, &registry, &self.names, self.store.as_ref());
        self.owner = Mutex::new(owner);
        self.step(config, log, effects, |owner| owner.start(Offset(0)));
    }

    /// A digest that differs for different states of the node.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Calls `look` with the owner.
    pub fn look<R>(&self, look: impl FnOnce(&Owner<Ticket>) -> R) -> R {
        look(&self.owner.lock().expect("nobody panics while holding it"))
    }

    /// Whether the node can be given commands.
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        self.look(Owner::takes_commands)
    }

    /// Whether its owner has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.look(|owner| matches!(owner.phase(), Phase::Stopped(_)))
    }

    /// Whether the owner waits for a time.
    #[must_use]
    pub fn waits_for_time(&self) -> bool {
        self.look(|owner| awaited_ms(owner).is_some())
    }

    /// Whether the owner backs off, so that the next tick leads to another claim.
    #[must_use]
    pub fn is_backing_off(&self) -> bool {
        self.look(|owner| matches!(owner.phase(), Phase::BackingOff { .. }))
    }

    /// How many records of the present session have not landed yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.session.queue.len()
    }

    /// Whether an acknowledgement is under way.
    #[must_use]
    pub fn has_ack(&self) -> bool {
        !self.session.acks.is_empty()
    }

    /// Whether the session accepts appends.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.session.is_closed
    }

    /// How many closed sessions have records that may still land.
    #[must_use]
    pub fn late(&self) -> usize {
        self.late.len()
    }

    /// Whether a requested read has been served but not delivered; absent if no read is requested.
    #[must_use]
    pub fn is_reading(&self) -> Option<bool> {
        self.reading
            .as_ref()
            .map(|reading| matches!(reading, Reading::Served(_)))
    }

    fn origin(&self) -> Origin {
        Origin {
            node: self.id,
            session: self.names.claims(),
        }
    }

    /// Lands the `index`th queued record of the present session.
    pub fn land(&mut self, index: usize, log: &mut Log) {
        let (sequence, record) = self.session.queue.remove(index).expect("it was looked at");
        let offset = log.land(record, self.origin());
        self.session.acks.push_back((sequence, offset));
        self.seal();
    }

    /// Lands the next queued record twice, as a producer does that repeats an unacknowledged
    /// record.
    pub fn land_twice(&mut self, log: &mut Log) {
        let (_, record) = self.session.queue.front().expect("it was looked at");
        let _: Offset = log.land(record.clone(), self.origin());
        self.land(0, log);
    }

    /// Whether the next queued record is a commit.
    #[must_use]
    pub fn is_next_a_commit(&self) -> bool {
        let next = self.session.queue.front();
        next.is_some_and(|(_, record)| record.key.is_some())
    }

    /// Lands a copy of the next queued record in which the command id is one that nobody sent.
    pub fn imitate(&self, log: &mut Log) {
        let (_, record) = self.session.queue.front().expect("it was looked at");
        let value = record.value.as_deref().unwrap_or_default();
        let value = String::from_utf8_lossy(value).replace("\"id\":\"c", "\"id\":\"x");
        let record = NewRecord {
            value: Some(value.into_bytes().into()),
            ..record.clone()
        };
        let _: Offset = log.land(record, self.origin());
    }

    /// Loses the next queued record without any report.
    pub fn drop_next(&mut self) {
        self.session.queue.pop_front();
        self.seal();
    }

    /// Lands the next record of a closed session.
    pub fn land_late(&mut self, index: usize, log: &mut Log) {
        let late = &mut self.late[index];
        let record = late.records.pop_front().expect("none is empty");
        let origin = Origin {
            node: self.id,
            session: late.session,
        };
        let _: Offset = log.land(record, origin);
        self.late.retain(|late| !late.records.is_empty());
        self.seal();
    }

    /// Closes the session: its queued records may land later, and nothing is acknowledged any more.
    fn close_session(&mut self) {
        let session = self.origin().session;
        self.session.is_closed = true;
        self.session.acks.clear();
        let queue = std::mem::take(&mut self.session.queue);
        if !queue.is_empty() {
            let records = queue.into_iter().map(|(_, record)| record).collect();
            self.late.push(Late { session, records });
        }
    }

    /// Closes the session if it has this origin.
    pub fn lose(&mut self, origin: Origin, config: &Config, log: &Log, effects: &mut Effects) {
        if origin == self.origin() && !self.session.is_closed {
            self.fail(config, log, effects);
        }
    }

    /// Delivers the next acknowledgement, `blind` or with its offset.
    pub fn acknowledge(&mut self, blind: bool, config: &Config, log: &Log, effects: &mut Effects) {
        let (sequence, offset) = self.session.acks.pop_front().expect("it was looked at");
        let appended = Appended {
            offset: (!blind).then_some(offset),
            appended_at_ms: None,
        };
        self.step(config, log, effects, |owner| {
            owner.acknowledged(sequence, appended, now());
        });
    }

    /// Loses the next acknowledgement.
    pub fn lose_ack(&mut self) {
        self.session.acks.pop_front();
        self.seal();
    }

    /// Reports the oldest unacknowledged append as failed, whether it has landed or not.
    pub fn fail(&mut self, config: &Config, log: &Log, effects: &mut Effects) {
        let landed = self.session.acks.front().map(|(sequence, _)| *sequence);
        let queued = self.session.queue.front().map(|(sequence, _)| *sequence);
        self.close_session();
        let failed = landed.or(queued);
        self.step(config, log, effects, |owner| {
            if let Some(sequence) = failed {
                owner.append_failed(sequence, now());
            }
        });
    }

    /// Lets the time come that the owner waits for.
    pub fn tick(&mut self, config: &Config, log: &Log, effects: &mut Effects) {
        self.step(config, log, effects, |owner| {
            let monotonic_ms = awaited_ms(owner).unwrap_or_default();
            owner.tick(Now {
                monotonic_ms,
                ..now()
            });
        });
    }

    /// Serves the requested read, without delivering it.
    pub fn serve(&mut self, config: &Config, log: &Log) {
        if let Some(Reading::Asked(from)) = self.reading
            && let Some(chunk) = log.read(from, config.reads.records_max())
        {
            self.reading = Some(Reading::Served(Arc::new(chunk)));
        }
        self.seal();
    }

    /// Delivers the requested read; serves it now if it was not served before.
    pub fn read(&mut self, config: &Config, log: &Log, effects: &mut Effects) {
        let chunk = match self.reading.take() {
            Some(Reading::Asked(from)) => log.read(from, config.reads.records_max()),
            Some(Reading::Served(chunk)) => Some(Chunk::clone(&chunk)),
            None => return,
        };
        let read = chunk.ok_or_else(|| LogError::unavailable("read the log", "it was cut off"));
        self.step(config, log, effects, |owner| owner.read(read, now()));
    }

    /// Gives the node a command to decide: a new one, or one that an owner gave back.
    pub fn submit(&mut self, command: Released, config: &Config, log: &Log, effects: &mut Effects) {
        let (submission, waiters) = command;
        self.step(config, log, effects, |owner| {
            owner.decide(submission, waiters, now());
        });
    }

    fn owner_mut(&mut self) -> &mut Owner<Ticket> {
        let owner = self.owner.get_mut();
        owner.expect("nobody panics while holding it")
    }

    fn head(&self) -> ChainHash {
        self.look(|owner| owner.chain().head)
    }

    /// Gives the owner an input, then performs its actions until it has none left.
    fn step(
        &mut self,
        config: &Config,
        log: &Log,
        effects: &mut Effects,
        input: impl FnOnce(&mut Owner<Ticket>),
    ) {
        let before = self.head();
        input(self.owner_mut());
        self.perform(config, log, effects);
        let after = self.head();
        effects.went_on_silently |= before != after && !log.has_head(after) && !self.is_stopped();
        let owner = self.owner_mut();
        if owner.is_save_due(false) {
            owner.save();
        }
        self.seal();
    }

    fn perform(&mut self, config: &Config, log: &Log, effects: &mut Effects) {
        loop {
            let owner = self.owner_mut();
            let actions = owner.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.act(action, config, log, effects);
            }
        }
    }

    fn act(&mut self, action: Action<Ticket>, config: &Config, log: &Log, effects: &mut Effects) {
        let owner = self.owner_mut();
        match action {
            Action::Log(LogAction::Append {
                sequence,
                record,
                claim,
            }) => {
                if !owner.sends(sequence) {
                    return;
                }
                if claim {
                    effects.claims += 1;
                    self.open_session();
                }
                if self.session.is_closed {
                    let owner = self.owner_mut();
                    return owner.append_failed(sequence, now());
                }
                self.session.queue.push_back((sequence, record));
            }
            Action::Answer { ticket, answer } => effects.answers.push((ticket, answer)),
            Action::Release {
                submission,
                waiters,
            } => effects.released.push((submission, waiters)),
            Action::AskOwner => owner.owner_answered(now()),
            Action::Log(LogAction::Peek) => owner.peeked(Some(log.end()), now()),
            Action::Log(LogAction::Prove { offset }) => {
                owner.proven(offset, Ok((log.end(), log.at(offset).cloned())))
            }
            Action::Log(LogAction::Read { from }) => match log.read(from, usize::MAX) {
                Some(chunk) if config.reads == Reads::AtOnce => owner.read(Ok(chunk), now()),
                _ => self.reading = Some(Reading::Asked(from)),
            },
        }
    }

    /// Opens the session of a new claim. The claim's writer id was drawn just before, so records
    /// left in the queue are renumbered to the session before.
    fn open_session(&mut self) {
        self.close_session();
        if let Some(late) = self.late.last_mut()
            && late.session == self.names.claims()
        {
            late.session -= 1;
        }
        self.session = Session::default();
    }

    /// Updates the digest.
    fn seal(&mut self) {
        let mut hasher = DefaultHasher::new();
        self.look(|owner| owner.digest(&mut hasher));
        self.names.hash(&mut hasher);
        self.store
            .as_ref()
            .map(MemoryStore::digest)
            .hash(&mut hasher);
        for (sequence, record) in &self.session.queue {
            (sequence, record_digest(record)).hash(&mut hasher);
        }
        (&self.session.acks, self.session.is_closed).hash(&mut hasher);
        for late in &self.late {
            late.session.hash(&mut hasher);
            late.records
                .iter()
                .for_each(|record| record_digest(record).hash(&mut hasher));
        }
        match &self.reading {
            None => 0.hash(&mut hasher),
            Some(Reading::Asked(from)) => (1, from).hash(&mut hasher),
            Some(Reading::Served(chunk)) => {
                let last = chunk.records.last().map(event_log::record::record_hash);
                (2, last, chunk.next).hash(&mut hasher);
            }
        }
        self.digest = hasher.finish();
    }
}
