//! The reader that goes on, as a state machine for one partition: records and proofs go in,
//! batches and wishes for proofs come out. No I/O, no clock.

use std::collections::{BTreeMap, VecDeque};

use kernel::Timestamp;

use crate::chain::{Acknowledged, Chain, Orphan, Stop, Verdict};
use crate::checkpoint::Checkpoint;
use crate::commit::Commit;
use crate::damage::{Damage, DamageKind};
use crate::ids::{Offset, Partition, Position, RecordHash};
use crate::keyed::Keyed;
use crate::known_bad::{Flaw, KnownBad};
use crate::record::{self, Record};

/// How many streams' versions a follower keeps for checking that commits follow.
const VERSIONS_MAX: usize = 100_000;

/// An accepted commit and its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The partition.
    pub partition: Partition,
    /// The record's position.
    pub position: Position,
    /// The record.
    pub record: Record,
    /// What it says.
    pub commit: Commit,
}

impl Placed {
    /// The record's hash, with which it is recognised when it is read again; made when it is asked for.
    #[must_use]
    pub fn record_hash(&self) -> RecordHash {
        record::record_hash(&self.record)
    }
}

/// How many orphans were met, by reason.
pub type OrphanCounts = BTreeMap<Orphan, u64>;

/// The records of one partition since the last batch.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The partition.
    pub partition: Partition,
    /// The checkpoint that this batch continues: that of the batch before it.
    pub before: Option<Checkpoint>,
    /// The checkpoint that must become durable together with what is made of the batch.
    pub after: Checkpoint,
    /// The accepted commits in order.
    pub commits: Vec<Placed>,
    /// The orphans among the records.
    pub orphans: OrphanCounts,
    /// Whether the log ended here when it was read.
    pub at_end: bool,
}

/// Whether a proof must be made before the batch may become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofNeed {
    /// Nothing asks for one.
    None,
    /// Only foreign records ask for one: at most once a second, and the batch waits for it.
    Foreign,
    /// One is due now.
    Due,
}

/// A reader of one partition that goes on from a checkpoint.
#[derive(Clone)]
pub struct Follower {
    /// The checkpoint of the last batch, or the one that it went on from.
    handed_out: Option<Checkpoint>,
    chain: Chain,
    versions: Keyed<u64, Box<[u8]>>,
    need: ProofNeed,
    /// The places that must still be in the log before anything behind them counts: the last read
    /// under each leader, since what was read under one continues only in a log that holds it all.
    unproven: VecDeque<Checkpoint>,
    /// The last record since the last batch.
    last: Option<Last>,
    last_recorded_at: Option<Timestamp>,
    commits: Vec<Placed>,
    /// The bytes of their records.
    commits_bytes: usize,
    orphans: OrphanCounts,
    at_end: bool,
    /// Why nothing more is taken or handed out, ever.
    stopped: Option<Stop>,
}

/// Where the last record is kept.
#[derive(Clone)]
enum Last {
    /// It is that of the last commit.
    Commit,
    /// It is none of a commit that counts.
    Other(Record),
}

impl Follower {
    /// A reader that goes on from a durable checkpoint, or starts with the first record. Going on asks
    /// for a proof.
    #[must_use]
    pub fn new(partition: Partition, from: Option<Checkpoint>) -> Self {
        let chain = match &from {
            Some(checkpoint) => checkpoint.chain(partition),
            None => Chain::genesis(partition),
        };
        Self {
            need: match &from {
                Some(_) => ProofNeed::Due,
                None => ProofNeed::None,
            },
            unproven: from.iter().cloned().collect(),
            last_recorded_at: from
                .as_ref()
                .and_then(|checkpoint| checkpoint.last_recorded_at),
            handed_out: from,
            chain,
            versions: Keyed::default(),
            last: None,
            commits: Vec::new(),
            commits_bytes: 0,
            orphans: BTreeMap::new(),
            at_end: false,
            stopped: None,
        }
    }

    /// Lets the follower pass damaged places that an operator has acknowledged.
    #[must_use]
    pub fn passing(mut self, acknowledged: Acknowledged) -> Self {
        self.chain.acknowledged = acknowledged;
        self
    }

    /// Turns a known-bad change on.
    #[must_use]
    pub fn flawed(mut self, flaw: Flaw) -> Self {
        self.chain.flaw = flaw;
        self
    }

    /// Where reading goes on.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        let last = self.last().map(|record| record.offset);
        last.or(self.handed_out.as_ref().map(|checkpoint| checkpoint.offset))
            .map_or(Offset(0), Offset::next)
    }

    /// The chain as folded so far.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The checkpoint of the last batch, or the one that it went on from.
    #[must_use]
    pub fn handed_out(&self) -> Option<&Checkpoint> {
        self.handed_out.as_ref()
    }

    /// How many accepted commits wait for being handed out.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.commits.len()
    }

    /// How many bytes their records have.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.commits_bytes
    }

    /// Whether anything was read since the last batch.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.last.is_some()
    }

    fn last(&self) -> Option<&Record> {
        match self.last.as_ref()? {
            Last::Commit => self.commits.last().map(|placed| &placed.record),
            Last::Other(record) => Some(record),
        }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`Stop`]: damage, or a newer format. Nothing of this batch may become durable, and the
    /// follower takes no other record: the chain may stand behind the damage already.
    pub fn take(&mut self, record: Record) -> Result<(), Stop> {
        if let Some(stop) = &self.stopped {
            return Err(stop.clone());
        }
        if record.offset < self.next_offset() {
            return Ok(());
        }
        self.follow(record)
            .inspect_err(|stop| self.stopped = Some(stop.clone()))
    }

    fn follow(&mut self, record: Record) -> Result<(), Stop> {
        let need = self.need;
        let is_of_another_leader = self.is_of_another_leader(&record);
        // It is what the chain says before this record moves it.
        let mut place = is_of_another_leader.then(|| self.place()).flatten();
        if is_of_another_leader {
            self.need = ProofNeed::Due;
        }
        let partition = self.chain.partition;
        let verdict = self.chain.judge(&record)?;
        let is_orphan = matches!(verdict, Verdict::Orphan(_));
        let mut commit = None;
        match verdict {
            Verdict::Claim(..) => {}
            Verdict::Commit(headers) => match self.read_commit(&record) {
                Err(_) if self.chain.acknowledged.contains(partition, record.offset) => {
                    *self.orphans.entry(Orphan::Acknowledged).or_default() += 1;
                }
                read => commit = Some((read?, headers.position)),
            },
            Verdict::Orphan(reason) => {
                *self.orphans.entry(reason).or_default() += 1;
                // An orphan moves no chain.
                place = place.or_else(|| self.place());
                if place.is_some() && self.need != ProofNeed::Due {
                    self.need = match reason {
                        Orphan::Foreign => ProofNeed::Foreign,
                        Orphan::Late
                        | Orphan::Losing
                        | Orphan::Duplicate
                        | Orphan::Acknowledged => ProofNeed::Due,
                    };
                }
            }
        }
        if self.chain.flaw.is(KnownBad::ProvesOnResumeOnly) {
            self.need = need;
        } else if is_of_another_leader || is_orphan {
            self.suspect(place);
        }
        if let Some((commit, position)) = commit {
            self.commits_bytes += record.size();
            self.commits.push(Placed {
                partition,
                position,
                record,
                commit,
            });
            self.last = Some(Last::Commit);
        } else if !(is_orphan && self.chain.flaw.is(KnownBad::ProvesLastAcceptedOnly)) {
            self.last = Some(Last::Other(record));
        }
        Ok(())
    }

    /// What a commit that counts says, if it follows on what is known of its stream.
    fn read_commit(&mut self, record: &Record) -> Result<Commit, Stop> {
        let partition = self.chain.partition;
        let damage = |kind| Damage {
            partition,
            offset: record.offset,
            kind,
        };
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let commit = Commit::read(key, value)
            .map_err(|error| damage(DamageKind::Unreadable(error.to_string())))?;
        match self.versions.get_mut(key) {
            Some(version) if *version == commit.from_version => *version = commit.version(),
            Some(version) => {
                return Err(damage(DamageKind::VersionGap {
                    stream: String::from_utf8_lossy(key).into_owned(),
                    expected: *version,
                    found: commit.from_version,
                })
                .into());
            }
            None => {
                if self.versions.len() >= VERSIONS_MAX {
                    self.versions.clear();
                }
                self.versions.insert(key.into(), commit.version());
            }
        }
        // In older records it may stand still or fall.
        self.last_recorded_at = self.last_recorded_at.max(Some(commit.recorded_at));
        Ok(commit)
    }

    /// Notes that the log ended, or went on, behind the last record.
    pub fn set_at_end(&mut self, at_end: bool) {
        self.at_end = at_end;
    }

    /// Notes that the client library reported an error or was replaced.
    pub fn interrupted(&mut self) {
        let place = self.place();
        if place.is_some() {
            self.need = ProofNeed::Due;
            self.suspect(place);
        }
    }

    /// Whether a record was served by another leader than what was read before it, if anything was.
    fn is_of_another_leader(&self, record: &Record) -> bool {
        let before = match (self.last(), &self.handed_out) {
            (Some(last), _) => last.leader_epoch,
            (None, Some(handed_out)) => handed_out.leader_epoch,
            (None, None) => return false,
        };
        record.leader_epoch != before
    }

    /// The place behind everything that was read.
    fn place(&self) -> Option<Checkpoint> {
        match self.last() {
            Some(last) => Some(Checkpoint::new(&self.chain, last, self.last_recorded_at)),
            None => self.handed_out.clone(),
        }
    }

    /// What follows on `place` may be another log's.
    fn suspect(&mut self, place: Option<Checkpoint>) {
        let Some(place) = place else { return };
        let is_first = self.unproven.len() < 2;
        match self.unproven.back_mut() {
            Some(back) if back.offset == place.offset => {}
            // Of one leader the later place implies the earlier. Not the first: where a topic was
            // made anew, or a disk was lost, an epoch comes again.
            Some(back) if !is_first && back.leader_epoch == place.leader_epoch => *back = place,
            _ => self.unproven.push_back(place),
        }
    }

    /// Where the log is to be held against what was read, one after the other, while a proof is
    /// needed.
    #[must_use]
    pub fn places_to_prove(&self) -> Vec<Offset> {
        self.unproven.iter().map(|place| place.offset).collect()
    }

    /// Whether a proof must be made before the waiting batch may become durable.
    #[must_use]
    pub fn proof_need(&self) -> ProofNeed {
        self.need
    }

    /// Holds the log against the first of [`Self::places_to_prove`], as found there and at its end.
    ///
    /// # Errors
    /// Damage: the log is not the one that was read.
    pub fn prove(&mut self, end: Offset, found: Option<&Record>) -> Result<(), Damage> {
        if let Some(place) = self.unproven.front() {
            place.prove(self.chain.partition, end, found)?;
            self.unproven.pop_front();
        }
        if self.unproven.is_empty() {
            self.need = ProofNeed::None;
        }
        Ok(())
    }

    /// The records since the last batch, if there are any and no proof is missing. Whoever cannot make
    /// it durable goes on with another follower, from the checkpoint that is.
    pub fn batch(&mut self) -> Option<Batch> {
        let unproven =
            self.need != ProofNeed::None && !self.chain.flaw.is(KnownBad::MovesBeforeProof);
        if unproven || self.stopped.is_some() {
            return None;
        }
        let after = Checkpoint::new(&self.chain, self.last()?, self.last_recorded_at);
        self.last = None;
        self.commits_bytes = 0;
        Some(Batch {
            partition: self.chain.partition,
            before: self.handed_out.replace(after.clone()),
            after,
            commits: std::mem::take(&mut self.commits),
            orphans: std::mem::take(&mut self.orphans),
            at_end: self.at_end,
        })
    }
}
