//! One partition of a log as a value: its records in order, what readers make of them, and which
//! invariants its records break.
//!
//! Invariant: the log changes only when a record lands at its end, or by a cut. Deliberately
//! absent: answers to clients (`node`).

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use event_log::chain::Chain;
use event_log::checkpoint::Checkpoint;
use event_log::commit::{Commit, Outcome};
use event_log::known_bad::Flaw;
use event_log::log::Chunk;
use event_log::record::{NewRecord, Record};
use event_log::subscription::{Follower, Placed};
use kernel::Timestamp;
use position::{ChainHash, Offset, Partition, Position};
use uuid::Uuid;

use crate::invariant;
use crate::ledger::{Ledger, Written};
use crate::reference::{self, Reading};

/// The partition of the model.
pub const PARTITION: Partition = Partition(0);

/// The append session and the node that a record came from; no reader knows this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The node.
    pub node: u8,
    /// The number of its session: one for each claim.
    pub session: u8,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    origin: Origin,
    digest: u64,
}

/// An accepted commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its offset.
    pub offset: Offset,
    /// Its position.
    pub position: Position,
    /// Its command's id.
    pub id: String,
    /// The stream's version after the commit.
    pub version: u64,
    /// Whether it is a refusal.
    pub is_refusal: bool,
    /// The ids of its events.
    pub events: Vec<Uuid>,
}

/// The partition.
#[derive(Clone)]
pub struct Log {
    flaw: Flaw,
    entries: Vec<Arc<Entry>>,
    /// The chain heads that the reference computes: of the empty partition, and after each record.
    heads: Vec<[u8; 32]>,
    reading: Reading,
    /// A reader of the engine whose effects are durable as soon as it has read a record.
    follower: Follower,
    is_damaged: bool,
    accepted: Vec<Arc<Accepted>>,
    ledger: Ledger,
    version: u64,
    last_recorded_at: Option<Timestamp>,
    /// The origin of the current claim.
    holder: Option<Origin>,
    broken: BTreeSet<&'static str>,
    epoch: i32,
    digest: u64,
}

/// The digest of a record that is not yet in the log.
#[must_use]
pub fn record_digest(record: &NewRecord) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&record.key, &record.value, &record.headers).hash(&mut hasher);
    hasher.finish()
}

impl Log {
    /// An empty partition, whose engine readers have `flaw`.
    #[must_use]
    pub fn new(flaw: Flaw) -> Self {
        let reading = Reading::genesis(PARTITION.0);
        Self {
            flaw,
            entries: Vec::new(),
            heads: vec![reading.head],
            reading,
            follower: Follower::new(PARTITION, None).flawed(flaw),
            is_damaged: false,
            accepted: Vec::new(),
            ledger: Ledger::default(),
            version: 0,
            last_recorded_at: None,
            holder: None,
            broken: BTreeSet::new(),
            epoch: 0,
            digest: 0,
        }
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The offset after the last record.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset(self.entries.len() as u64)
    }

    /// A digest that differs for different states of the log.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The accepted commits, as the engine's readers see them.
    #[must_use]
    pub fn accepted(&self) -> &[Arc<Accepted>] {
        &self.accepted
    }

    /// The invariants that its records break.
    #[must_use]
    pub fn broken(&self) -> &BTreeSet<&'static str> {
        &self.broken
    }

    /// Whether the engine's readers stop at some record.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// The record at an offset.
    #[must_use]
    pub fn at(&self, offset: Offset) -> Option<&Record> {
        let index = usize::try_from(offset.0).ok()?;
        self.entries.get(index).map(|entry| &entry.record)
    }

    /// At most `records_max` records from an offset on; absent if the offset is above the end.
    #[must_use]
    pub fn read(&self, from: Offset, records_max: usize) -> Option<Chunk> {
        let first = usize::try_from(from.0).ok()?;
        let entries = self.entries.get(first..)?.iter().take(records_max);
        let records: Vec<_> = entries.map(|entry| entry.record.clone()).collect();
        let next = records.last().map_or(from, |last| last.offset.next());
        Some(Chunk {
            partition: PARTITION,
            records,
            next,
            at_end: next == self.end(),
        })
    }

    /// Whether a reader with the chain head `head` has read only records of this log.
    #[must_use]
    pub fn has_head(&self, head: ChainHash) -> bool {
        self.heads.contains(&head.0)
    }

    /// Appends a record at the end.
    pub fn land(&mut self, record: NewRecord, origin: Origin) -> Offset {
        let offset = self.end();
        let digest = record_digest(&record);
        let mut record = Record::at(offset, record);
        record.leader_epoch = Some(self.epoch);
        let entry = Arc::new(Entry {
            record,
            origin,
            digest,
        });
        self.take(entry);
        offset
    }

    /// Loses the last records, as after an unclean election; returns where they came from.
    pub fn cut(&mut self, count: usize) -> Vec<Origin> {
        let keep = self.entries.len().saturating_sub(count);
        let entries = std::mem::take(&mut self.entries);
        let epoch = self.epoch + 1;
        *self = Self::new(self.flaw);
        self.epoch = epoch;
        let lost = entries[keep..].iter().map(|entry| entry.origin).collect();
        for entry in &entries[..keep] {
            self.take(Arc::clone(entry));
        }
        let mut hasher = DefaultHasher::new();
        (self.digest, epoch).hash(&mut hasher);
        self.digest = hasher.finish();
        lost
    }

    fn take(&mut self, entry: Arc<Entry>) {
        let mut hasher = DefaultHasher::new();
        (self.digest, entry.digest, entry.origin, self.epoch).hash(&mut hasher);
        self.digest = hasher.finish();
        self.entries.push(Arc::clone(&entry));
        let before = self.follower.chain().position;
        let expected = self.reading.take(&entry.record);
        self.heads.push(self.reading.head);
        if self.is_damaged {
            return;
        }
        let commits = match self.read_on(&entry.record) {
            Some(commits) => commits,
            None => {
                self.is_damaged = true;
                if expected != reference::Verdict::Damage {
                    self.broken.insert(invariant::AGREE);
                }
                self.broken.insert(invariant::NO_DAMAGE);
                return;
            }
        };
        let counts = self.follower.chain().position != before;
        let found = match (counts, commits.is_empty()) {
            (false, _) => reference::Verdict::Orphan,
            (true, true) => reference::Verdict::Claim,
            (true, false) => reference::Verdict::Commit,
        };
        if found != expected || !same(self.follower.chain(), &self.reading) {
            self.broken.insert(invariant::AGREE);
        }
        if found == reference::Verdict::Claim {
            self.holder = Some(entry.origin);
        }
        for placed in commits {
            if self.holder != Some(entry.origin) {
                self.broken.insert(invariant::DEPOSED);
            }
            self.accept(&placed);
        }
    }

    /// Lets the engine's reader read one record and make it durable; absent if the reader stops.
    fn read_on(&mut self, record: &Record) -> Option<Vec<Placed>> {
        // A second reader resumes from the checkpoint in the form in which a database returns it.
        let durable = self.follower.handed_out().map(|place| {
            let json = serde_json::to_vec(place).expect("a checkpoint is plain data");
            serde_json::from_slice::<Checkpoint>(&json).expect("as it was written")
        });
        let mut resumed = Follower::new(PARTITION, durable).flawed(self.flaw);
        resumed.take(record.clone()).ok()?;
        self.follower.take(record.clone()).ok()?;
        if without_message(resumed.chain()) != without_message(self.follower.chain()) {
            self.broken.insert(invariant::AGREE);
        }
        while let Some(place) = self.follower.places_to_prove().first().copied() {
            let found = self.at(place).cloned();
            self.follower.prove(self.end(), found.as_ref()).ok()?;
        }
        let batch = self.follower.batch()?;
        Some(batch.commits)
    }

    /// Adds an accepted commit, and checks the invariants about it.
    fn accept(&mut self, placed: &Placed) {
        let commit = &placed.commit;
        let id = commit.command.id.as_str().to_owned();
        if self.accepted.iter().any(|earlier| earlier.id == id) {
            self.broken.insert(invariant::ONCE);
        }
        if commit.from_version != self.version {
            self.broken.insert(invariant::VERSIONS);
        }
        if self.last_recorded_at >= Some(commit.recorded_at) {
            self.broken.insert(invariant::RECORDED_TIME);
        }
        self.last_recorded_at = Some(commit.recorded_at);
        if !self.decided_on_this(commit) {
            self.broken.insert(invariant::HISTORY);
        }
        self.version = commit.version();
        let accepted = Accepted {
            offset: placed.record.offset,
            position: placed.position,
            id,
            version: commit.version(),
            is_refusal: commit.outcome == Outcome::Rejected,
            events: commit.events.iter().map(|event| event.id).collect(),
        };
        self.accepted.push(Arc::new(accepted));
    }

    /// Whether the commit's events and its refusal were decided on the accepted history before it.
    fn decided_on_this(&mut self, commit: &Commit) -> bool {
        let mut is_right = commit.from_version == self.ledger.seen;
        if let Some(rejection) = &commit.rejection {
            let fact = |name: &str| {
                rejection
                    .facts
                    .get(name)
                    .and_then(serde_json::Value::as_u64)
            };
            let ledger = self.ledger;
            is_right &= fact("seen").is_none_or(|seen| seen == ledger.seen);
            is_right &= fact("digest").is_none_or(|digest| digest == ledger.digest);
            is_right &= fact("current_version").is_none_or(|version| version == ledger.seen);
        }
        for event in &commit.events {
            let Ok(written) = serde_json::from_str::<Written>(event.data.get()) else {
                return false;
            };
            is_right &= (written.seen, written.digest) == (self.ledger.seen, self.ledger.digest);
            self.ledger.take(written.entry);
        }
        is_right
    }

    /// Whether a reader that starts from any checkpoint ends with the same result as a reader that
    /// reads everything. All checkpoints are tried: one after each record.
    #[must_use]
    pub fn readers_agree(&self) -> bool {
        if self.is_damaged {
            return true;
        }
        let Some(whole) = self.fold_from(None) else {
            return false;
        };
        let mut chain = Chain::genesis(PARTITION);
        chain.flaw = self.flaw;
        for entry in &self.entries {
            if chain.judge(&entry.record).is_err() {
                return false;
            }
            let place = Checkpoint::new(&chain, &entry.record, None);
            let Some((end, commits)) = self.fold_from(Some(place)) else {
                return false;
            };
            let tail = whole.1.len() - commits.len().min(whole.1.len());
            if end != whole.0 || commits != whole.1[tail..] {
                return false;
            }
        }
        without_message(&chain) == whole.0
    }

    fn fold_from(&self, place: Option<Checkpoint>) -> Option<(Chain, Vec<Offset>)> {
        let mut follower = Follower::new(PARTITION, place).flawed(self.flaw);
        let from = usize::try_from(follower.next_offset().0).ok()?;
        for entry in &self.entries[from..] {
            follower.take(entry.record.clone()).ok()?;
        }
        while let Some(place) = follower.places_to_prove().first().copied() {
            follower.prove(self.end(), self.at(place)).ok()?;
        }
        let chain = without_message(follower.chain());
        let commits = follower
            .batch()
            .map(|batch| batch.commits)
            .unwrap_or_default();
        Some((
            chain,
            commits.iter().map(|placed| placed.record.offset).collect(),
        ))
    }
}

/// A chain without the field that only messages use.
fn without_message(chain: &Chain) -> Chain {
    Chain {
        accepted_offset: None,
        ..chain.clone()
    }
}

fn same(chain: &Chain, reading: &Reading) -> bool {
    chain.log.map(|log| *log.0.as_bytes()) == reading.log
        && chain.term.0 == reading.term
        && *chain.writer.0.as_bytes() == reading.writer
        && chain.head.0 == reading.head
        && chain.position.0 == reading.position
}
