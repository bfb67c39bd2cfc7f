//! The model of reading: projectors over one partition whose log may be cut, and one database.
//!
//! Invariant: the followers and checkpoints are those of production; the log may hold any records
//! that writers can leave, without the reasons for them. Deliberately absent: owners (`world`),
//! Postgres, and how rows are merged: a row here is only the name of the commit it was made from.

mod records;

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use event_log::chain::{Chain, Stop};
use event_log::checkpoint::Checkpoint;
use event_log::known_bad::Flaw;
use event_log::record::{Record, record_hash};
use event_log::subscription::{Batch, Follower, ProofNeed};
use position::Offset;
use stateright::{Model, Property};

use crate::invariant;
use crate::log::PARTITION;
use crate::reference::{self, Reading as Reference};

/// A mistake on purpose in the way in which rows and checkpoint are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The checkpoint is only an offset: a restart folds up to the offset again and proves nothing.
    KeepsOffsetOnly,
    /// Rows are written in one transaction, their checkpoint in the next.
    MovesApartFromRows,
    /// A batch is written without a look at the present checkpoint.
    ComparesNothing,
}

/// A configuration of the model of reading. The numbers are maxima.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Projectors of the same rows, each of which believes that it is the only one.
    pub projectors: usize,
    /// Records that are appended in the whole run.
    pub records_max: u64,
    /// How often the last records are lost.
    pub cuts_max: u8,
    /// Crashes of a projector, with restart.
    pub crashes_max: u8,
    /// Errors that a client reports.
    pub interruptions_max: u8,
    /// The mistake on purpose in followers, if any.
    pub flaw: Flaw,
    /// The mistake on purpose in transactions, if any.
    pub mistake: Option<Mistake>,
}

impl Reading {
    /// One projector, and a log that is cut once.
    #[must_use]
    pub fn cut() -> Self {
        Self {
            projectors: 1,
            records_max: 4,
            cuts_max: 1,
            crashes_max: 1,
            interruptions_max: 1,
            flaw: Flaw::default(),
            mistake: None,
        }
    }

    /// Two projectors, and a log that loses nothing.
    #[must_use]
    pub fn shared() -> Self {
        Self {
            projectors: 2,
            records_max: 3,
            cuts_max: 0,
            ..Self::cut()
        }
    }
}

/// The kind of a record that is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A claim that counts.
    Claim,
    /// A commit that counts.
    Commit,
    /// A commit of a writer whose claim never counted.
    Late,
    /// A record of another program; its bytes are always the same.
    Foreign,
}

/// A possible next step. A number names a projector, except in `Cut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record lands.
    Append(Kind),
    /// This many of the last records are lost.
    Cut(usize),
    /// The next record is read.
    Take(usize),
    /// The log is compared with the checkpoint.
    Prove(usize),
    /// A batch is made from the records that were read.
    Begin(usize),
    /// The batch's transaction commits.
    Write(usize),
    /// The second transaction commits, for a projector that needs two.
    WritePlace(usize),
    /// The process ends, and another one continues from the database.
    Crash(usize),
    /// The client reports an error.
    Interrupt(usize),
}

/// A record: its offset and its number; no two appended records are equal.
type Seen = (u64, u64);

struct Entry {
    record: Record,
    /// Distinguishes records of the same bytes.
    number: u64,
}

#[derive(Clone)]
struct Pending {
    batch: Batch,
    /// The records it was made from.
    seen: BTreeSet<Seen>,
    /// Whether its rows are written but its checkpoint is not.
    is_half: bool,
}

#[derive(Clone)]
struct Projector {
    follower: Follower,
    /// The records read after the durable checkpoint.
    taken: BTreeSet<Seen>,
    pending: Option<Pending>,
    stopped: bool,
}

#[derive(Clone, Default)]
struct Database {
    checkpoint: Option<Checkpoint>,
    /// The records that rows were made from, in order.
    rows: Vec<Seen>,
    /// All records that were read up to the checkpoint.
    seen: BTreeSet<Seen>,
}

/// A state of the model.
#[derive(Clone)]
pub struct Scene {
    log: Vec<Arc<Entry>>,
    chain: Chain,
    version: u64,
    epoch: i32,
    database: Database,
    projectors: Vec<Projector>,
    appended: u64,
    /// The number of the first record after a cut.
    cut_at: Option<u64>,
    crashes: u8,
    interruptions: u8,
    went_on_silently: bool,
    has_wrong_rows: bool,
}

impl Scene {
    fn new(config: &Reading) -> Self {
        let projector = Projector {
            follower: Follower::new(PARTITION, None).flawed(config.flaw),
            taken: BTreeSet::new(),
            pending: None,
            stopped: false,
        };
        Self {
            log: Vec::new(),
            chain: Chain::genesis(PARTITION),
            version: 0,
            epoch: 0,
            database: Database::default(),
            projectors: vec![projector; config.projectors],
            appended: 0,
            cut_at: None,
            crashes: 0,
            interruptions: 0,
            went_on_silently: false,
            has_wrong_rows: false,
        }
    }

    fn at(&self, offset: Offset) -> Option<&Entry> {
        let index = usize::try_from(offset.0).ok()?;
        self.log.get(index).map(|entry| &**entry)
    }

    fn end(&self) -> Offset {
        Offset(self.log.len() as u64)
    }

    fn append(&mut self, kind: Kind) {
        self.appended += 1;
        let number = self.appended;
        self.version += u64::from(kind == Kind::Commit);
        let record = records::record(kind, number, &self.chain, self.version);
        let mut record = Record::at(self.end(), record);
        record.leader_epoch = Some(self.epoch);
        self.chain
            .judge(&record)
            .expect("nothing is appended that is damage");
        self.log.push(Arc::new(Entry { record, number }));
    }

    fn cut(&mut self, count: usize) {
        self.log.truncate(self.log.len().saturating_sub(count));
        self.cut_at = Some(self.appended + 1);
        self.epoch += 1;
        self.chain = Chain::genesis(PARTITION);
        self.version = 0;
        for entry in &self.log {
            let before = self.chain.position;
            let judged = self.chain.judge(&entry.record);
            let counts = judged.is_ok() && self.chain.position != before;
            let key = entry.record.key.is_some();
            self.version += u64::from(counts && key);
        }
    }

    /// Starts a new process, which continues from the database.
    fn restart(&mut self, number: usize, config: &Reading) {
        let mut place = self.database.checkpoint.clone();
        if config.mistake == Some(Mistake::KeepsOffsetOnly) {
            place = place.map(|place| self.place_of(place.offset).unwrap_or(place));
        }
        self.projectors[number] = Projector {
            follower: Follower::new(PARTITION, place).flawed(config.flaw),
            taken: BTreeSet::new(),
            pending: None,
            stopped: false,
        };
    }

    /// The checkpoint that a fold of the present log up to an offset gives.
    fn place_of(&self, offset: Offset) -> Option<Checkpoint> {
        let mut chain = Chain::genesis(PARTITION);
        for entry in &self.log {
            chain.judge(&entry.record).ok()?;
            if entry.record.offset == offset {
                return Some(Checkpoint::new(&chain, &entry.record, None));
            }
        }
        None
    }

    fn take(&mut self, number: usize) {
        let next = self.projectors[number].follower.next_offset();
        let Some(index) = usize::try_from(next.0).ok() else {
            return;
        };
        let Some(entry) = self.log.get(index).cloned() else {
            return;
        };
        let projector = &mut self.projectors[number];
        projector.taken.insert((next.0, entry.number));
        let taken: Result<(), Stop> = projector.follower.take(entry.record.clone());
        projector.stopped |= taken.is_err();
    }

    fn prove(&mut self, number: usize) {
        let place = self.projectors[number]
            .follower
            .places_to_prove()
            .first()
            .copied();
        let found = place.and_then(|offset| self.at(offset));
        let found = found.map(|entry| entry.record.clone());
        let end = self.end();
        let projector = &mut self.projectors[number];
        let proven = projector.follower.prove(end, found.as_ref());
        projector.stopped |= proven.is_err();
    }

    fn write(&mut self, number: usize, config: &Reading) {
        let Some(pending) = self.projectors[number].pending.clone() else {
            return;
        };
        let continues = match config.mistake {
            Some(Mistake::ComparesNothing) => true,
            Some(Mistake::KeepsOffsetOnly) => {
                let offset = |place: &Option<Checkpoint>| place.as_ref().map(|p| p.offset);
                offset(&self.database.checkpoint) == offset(&pending.batch.before)
            }
            Some(Mistake::MovesApartFromRows) | None => {
                self.database.checkpoint == pending.batch.before
            }
        };
        if !continues {
            // Another projector has written: continue from the present checkpoint.
            return self.restart(number, config);
        }
        let rows = pending
            .batch
            .commits
            .iter()
            .map(|placed| placed.record.offset.0);
        let number_at = |offset| pending.seen.iter().find(|seen| seen.0 == offset).copied();
        self.database.rows.extend(rows.filter_map(number_at));
        if config.mistake == Some(Mistake::MovesApartFromRows) {
            let pending = self.projectors[number].pending.as_mut();
            pending.expect("it was looked at").is_half = true;
        } else {
            self.move_to(number, pending);
        }
    }

    fn move_to(&mut self, number: usize, pending: Pending) {
        let continues_behind_cut = pending.seen.iter().any(|(_, number)| {
            let is_new = self.cut_at.is_some_and(|first| *number >= first);
            is_new && self.log.iter().any(|entry| entry.number == *number)
        });
        self.database.seen.extend(&pending.seen);
        self.database.checkpoint = Some(pending.batch.after.clone());
        let projector = &mut self.projectors[number];
        projector.pending = None;
        for seen in &pending.seen {
            projector.taken.remove(seen);
        }
        let is_there = |seen: &Seen| {
            let entry = self.at(Offset(seen.0));
            entry.is_some_and(|entry| entry.number == seen.1)
        };
        let is_whole = self.database.seen.iter().all(is_there);
        self.went_on_silently |= continues_behind_cut && !is_whole;
        self.has_wrong_rows |= is_whole && self.database.rows != self.rows_at_checkpoint();
    }

    /// An independent fold up to the checkpoint.
    fn rows_at_checkpoint(&self) -> Vec<Seen> {
        let place = self.database.checkpoint.as_ref();
        let end = place.map_or(Offset(0), |place| place.offset.next());
        let mut reference = Reference::genesis(PARTITION.0);
        let read = self.log.iter().filter(|entry| entry.record.offset < end);
        read.filter(|entry| reference.take(&entry.record) == reference::Verdict::Commit)
            .map(|entry| (entry.record.offset.0, entry.number))
            .collect()
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for entry in &self.log {
            (
                entry.number,
                entry.record.leader_epoch,
                record_hash(&entry.record),
            )
                .hash(&mut hasher);
        }
        self.database.hash(&mut hasher);
        self.projectors.hash(&mut hasher);
        (self.epoch, self.appended, self.cut_at).hash(&mut hasher);
        (self.crashes, self.interruptions).hash(&mut hasher);
        (self.went_on_silently, self.has_wrong_rows).hash(&mut hasher);
        hasher.finish()
    }
}

fn hash_place(place: Option<&Checkpoint>, hasher: &mut impl Hasher) {
    let place = place.map(|place| {
        (
            place.offset,
            place.record_hash,
            place.leader_epoch,
            place.head,
            place.position,
        )
    });
    place.hash(hasher);
}

impl Hash for Database {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hash_place(self.checkpoint.as_ref(), hasher);
        (&self.rows, &self.seen).hash(hasher);
    }
}

impl Hash for Projector {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // A follower's state: the records it read after its checkpoint, and whether it needs a
        // proof.
        hash_place(self.follower.handed_out(), hasher);
        let need = match self.follower.proof_need() {
            ProofNeed::None => 0_u8,
            ProofNeed::Foreign => 1,
            ProofNeed::Due => 2,
        };
        let chain = self.follower.chain();
        (need, self.follower.places_to_prove()).hash(hasher);
        (chain.head, chain.position).hash(hasher);
        self.follower.next_offset().hash(hasher);
        (&self.taken, self.stopped, self.follower.waiting()).hash(hasher);
        if let Some(pending) = &self.pending {
            hash_place(pending.batch.before.as_ref(), hasher);
            hash_place(Some(&pending.batch.after), hasher);
            (&pending.seen, pending.is_half).hash(hasher);
        }
        self.pending.is_some().hash(hasher);
    }
}

impl Hash for Scene {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest().hash(hasher);
    }
}

impl PartialEq for Scene {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log: Vec<u64> = self.log.iter().map(|entry| entry.number).collect();
        let place = self.database.checkpoint.as_ref();
        f.debug_struct("Scene")
            .field("log", &log)
            .field("checkpoint", &place.map(|place| place.offset.0))
            .field("rows", &self.database.rows)
            .field("seen", &self.database.seen)
            .finish()
    }
}

impl Model for Reading {
    type State = Scene;
    type Action = Step;

    fn init_states(&self) -> Vec<Scene> {
        vec![Scene::new(self)]
    }

    fn actions(&self, scene: &Scene, steps: &mut Vec<Step>) {
        if scene.appended < self.records_max {
            steps.extend([Kind::Claim, Kind::Late, Kind::Foreign].map(Step::Append));
            if scene.chain.log.is_some() {
                steps.push(Step::Append(Kind::Commit));
            }
        }
        if scene.cut_at.is_none() && self.cuts_max > 0 {
            steps.extend((1..=scene.log.len()).map(Step::Cut));
        }
        for (number, projector) in scene.projectors.iter().enumerate() {
            if scene.crashes < self.crashes_max {
                steps.push(Step::Crash(number));
            }
            if projector.stopped {
                continue;
            }
            if let Some(pending) = &projector.pending {
                steps.push(match pending.is_half {
                    false => Step::Write(number),
                    true => Step::WritePlace(number),
                });
                continue;
            }
            let follower = &projector.follower;
            if follower.next_offset() < scene.end() {
                steps.push(Step::Take(number));
            }
            if follower.proof_need() != ProofNeed::None {
                steps.push(Step::Prove(number));
            }
            if !projector.taken.is_empty() {
                steps.push(Step::Begin(number));
            }
            if scene.interruptions < self.interruptions_max {
                steps.push(Step::Interrupt(number));
            }
        }
    }

    fn next_state(&self, scene: &Scene, step: Step) -> Option<Scene> {
        let mut next = scene.clone();
        match step {
            Step::Append(kind) => next.append(kind),
            Step::Cut(count) => next.cut(count),
            Step::Take(number) => next.take(number),
            Step::Prove(number) => next.prove(number),
            Step::Begin(number) => {
                let projector = &mut next.projectors[number];
                let batch = projector.follower.batch()?;
                projector.pending = Some(Pending {
                    batch,
                    seen: projector.taken.clone(),
                    is_half: false,
                });
            }
            Step::Write(number) => next.write(number, self),
            Step::WritePlace(number) => {
                let pending = next.projectors[number].pending.clone()?;
                next.move_to(number, pending);
            }
            Step::Crash(number) => {
                next.crashes += 1;
                next.restart(number, self);
            }
            Step::Interrupt(number) => {
                next.interruptions += 1;
                next.projectors[number].follower.interrupted();
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::<Self>::always(invariant::ROWS, |_, scene| {
            !scene.has_wrong_rows
        })];
        if self.cuts_max > 0 {
            properties.push(Property::<Self>::always(
                invariant::CUT_IS_SEEN,
                |_, scene| !scene.went_on_silently,
            ));
        } else {
            properties.push(Property::<Self>::always(
                invariant::NO_DAMAGE,
                |_, scene| scene.projectors.iter().all(|one| !one.stopped),
            ));
        }
        properties
    }
}
