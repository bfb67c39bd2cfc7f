//! A reader of one partition, as a state machine: records and proofs go in, batches and requests
//! for proofs come out. Deliberately absent: I/O, a clock.

use std::collections::{BTreeMap, VecDeque};

use kernel::Timestamp;
use position::{Offset, Partition, Position};

use crate::chain::{Acknowledged, Chain, Orphan, Stop, Verdict};
use crate::checkpoint::Checkpoint;
use crate::commit::Commit;
use crate::damage::Damage;
use crate::known_bad::{Flaw, KnownBad};
use crate::record::{Kind, Record};
use crate::verdict::{self, Content, StreamVersions, Streams as _};

/// How many streams' versions a follower keeps, to check that commits follow them.
const VERSIONS_MAX: usize = 100_000;

/// An accepted commit and its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The partition.
    pub partition: Partition,
    /// The record's position.
    pub position: Position,
    /// When it was recorded. Older logs may have times that are equal to or lower than the one before:
    /// then the greatest time of the partition so far counts.
    pub at: Timestamp,
    /// The record.
    pub record: Record,
    /// The commit in the record's value.
    pub commit: Commit,
    /// Whether the stream's version was known, and the commit follows it. Otherwise a consumer that
    /// stores stream versions must check the commit before the batch becomes durable.
    pub is_checked: bool,
}

/// How many orphans were met, by reason.
pub type OrphanCounts = BTreeMap<Orphan, u64>;

/// The records of one partition since the last batch.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The partition.
    pub partition: Partition,
    /// The checkpoint that this batch continues, which is that of the batch before it.
    pub before: Option<Checkpoint>,
    /// The checkpoint that must become durable together with what is made of the batch.
    pub after: Checkpoint,
    /// The accepted commits in order.
    pub commits: Vec<Placed>,
    /// The orphans among the records.
    pub orphans: OrphanCounts,
}

/// Whether a proof must be made before the batch may become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofNeed {
    /// Nothing asks for one.
    None,
    /// Only foreign records ask for one: made at most once a second, and the batch waits for it.
    Foreign,
    /// One is due now.
    Due,
}

/// A reader of one partition that goes on from a checkpoint.
#[derive(Clone)]
pub struct Follower {
    /// The checkpoint of the last batch, or the one that the follower started from.
    handed_out: Option<Checkpoint>,
    chain: Chain,
    streams: StreamVersions,
    need: ProofNeed,
    /// The places that must still be in the log before anything after them counts. There is one for
    /// each leader: the last place read under that leader. Records of a later leader continue the
    /// earlier ones only if the log still holds all of these places.
    unproven: VecDeque<Checkpoint>,
    /// The last record since the last batch that is not a commit to be handed out.
    last_other: Option<Record>,
    last_recorded_at: Option<Timestamp>,
    commits: Vec<Placed>,
    commits_bytes: usize,
    orphans: OrphanCounts,
    /// Why the follower takes and hands out nothing more, for good.
    stopped: Option<Stop>,
}

impl Follower {
    /// A reader that continues from a durable checkpoint, or starts at the first record. A start
    /// from a checkpoint needs a proof.
    #[must_use]
    pub fn new(partition: Partition, from: Option<Checkpoint>) -> Self {
        let (chain, need, last_recorded_at) = match &from {
            Some(from) => (from.chain(partition), ProofNeed::Due, from.last_recorded_at),
            None => (Chain::genesis(partition), ProofNeed::None, None),
        };
        Self {
            need,
            unproven: from.iter().cloned().collect(),
            last_recorded_at,
            streams: StreamVersions {
                versions_max: VERSIONS_MAX,
                is_complete: from.is_none(),
                ..StreamVersions::default()
            },
            handed_out: from,
            chain,
            last_other: None,
            commits: Vec::new(),
            commits_bytes: 0,
            orphans: BTreeMap::new(),
            stopped: None,
        }
    }

    /// Lets the follower pass damaged places that an operator has acknowledged.
    #[must_use]
    pub fn passing(mut self, acknowledged: Acknowledged) -> Self {
        self.chain.acknowledged = acknowledged;
        self
    }

    /// The acknowledged places before the checkpoint that the follower starts from. Pass the
    /// records at these places to [`Self::recall`] before the first record is taken.
    #[must_use]
    pub fn places_to_recall(&self) -> Vec<Offset> {
        let (partition, acknowledged) = (self.chain.partition, &self.chain.acknowledged);
        let from = self.handed_out.iter();
        from.flat_map(|from| acknowledged.up_to(partition, from.offset))
            .collect()
    }

    /// Freezes the stream of an acknowledged place that lies before the follower's start.
    pub fn recall(&mut self, record: &Record) {
        if let (Kind::Commit(_), Some(key)) = (Kind::of(record), &record.key) {
            self.streams.freeze(key, record.offset, "");
        }
    }

    /// Turns on a known-bad change.
    #[must_use]
    pub fn flawed(mut self, flaw: Flaw) -> Self {
        self.chain.flaw = flaw;
        self
    }

    /// The next offset to read.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        let last = self.last().map(|record| record.offset);
        let last = last.or_else(|| Some(self.handed_out.as_ref()?.offset));
        last.map_or(Offset(0), Offset::next)
    }

    /// The chain as folded so far.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The checkpoint of the last batch, or the one that the follower started from.
    #[must_use]
    pub fn handed_out(&self) -> Option<&Checkpoint> {
        self.handed_out.as_ref()
    }

    /// How many accepted commits wait to be handed out.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.commits.len()
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.commits_bytes
    }

    /// Whether anything was read since the last batch.
    pub(super) fn has_read(&self) -> bool {
        self.last().is_some()
    }

    /// The last record read since the last batch.
    fn last(&self) -> Option<&Record> {
        let commit = self.commits.last().map(|placed| &placed.record);
        let both = commit.into_iter().chain(&self.last_other);
        both.max_by_key(|record| record.offset)
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`Stop`]: damage, or a newer format. Nothing of this batch may become durable. The follower
    /// takes no other record, because the chain may already be past the damage.
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
        // Take the place before `judge` moves the chain.
        let mut place = is_of_another_leader.then(|| self.place()).flatten();
        if is_of_another_leader {
            self.need = ProofNeed::Due;
        }
        let partition = self.chain.partition;
        let verdict = self.chain.judge(&record)?;
        let is_orphan = matches!(verdict, Verdict::Orphan(_));
        let mut commit = None;
        let content = verdict::content(&self.chain, &verdict, &record, &mut self.streams)?;
        match (verdict, content) {
            (Verdict::Claim(..), _) => {}
            (Verdict::Commit(headers), Content::Commit(read)) => {
                let key = record.key.as_deref().unwrap_or_default();
                let is_checked = self.streams.version(key).is_some();
                self.streams.note(key, read.version());
                // Older records may have a time that is equal to or lower than the one before.
                self.last_recorded_at = self.last_recorded_at.max(Some(read.recorded_at));
                let at = self.last_recorded_at.unwrap_or(read.recorded_at);
                commit = Some((read, headers.position, at, is_checked));
            }
            (Verdict::Commit(_), Content::Frozen | Content::Nothing) => {
                *self.orphans.entry(verdict::FROZEN).or_default() += 1;
            }
            (Verdict::Orphan(reason), _) => {
                *self.orphans.entry(reason).or_default() += 1;
                // An orphan does not move the chain, so the place before it is still known here.
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
        if let Some((commit, position, at, is_checked)) = commit {
            self.commits_bytes += record.size();
            self.commits.push(Placed {
                partition,
                position,
                at,
                record,
                commit,
                is_checked,
            });
        } else if !(is_orphan && self.chain.flaw.is(KnownBad::ProvesLastAcceptedOnly)) {
            self.last_other = Some(record);
        }
        Ok(())
    }

    /// Notes that the client library reported an error or was replaced.
    pub fn interrupted(&mut self) {
        let place = self.place();
        if place.is_some() {
            self.need = ProofNeed::Due;
            self.suspect(place);
        }
    }

    /// Whether another leader served the record before this one, if there is one.
    fn is_of_another_leader(&self, record: &Record) -> bool {
        let last = self.last().map(|record| record.leader_epoch);
        let before = last.or_else(|| Some(self.handed_out.as_ref()?.leader_epoch));
        before.is_some_and(|before| before != record.leader_epoch)
    }

    /// The place after everything that was read.
    fn place(&self) -> Option<Checkpoint> {
        match self.last() {
            Some(last) => Some(Checkpoint::new(&self.chain, last, self.last_recorded_at)),
            None => self.handed_out.clone(),
        }
    }

    /// Notes that the records after `place` may belong to another log.
    fn suspect(&mut self, place: Option<Checkpoint>) {
        let Some(place) = place else { return };
        let is_first = self.unproven.len() < 2;
        match self.unproven.back_mut() {
            Some(back) if back.offset == place.offset => {}
            // Under one leader a later place implies the earlier places, so replace the last one.
            // The first place stays: if a topic was created again or a disk was lost, the same
            // epoch can occur again.
            Some(back) if !is_first && back.leader_epoch == place.leader_epoch => *back = place,
            _ => self.unproven.push_back(place),
        }
    }

    /// Where the log must be compared with what was read, in this order, while a proof is needed.
    #[must_use]
    pub fn places_to_prove(&self) -> Vec<Offset> {
        self.unproven.iter().map(|place| place.offset).collect()
    }

    /// Whether a proof must be made before the waiting batch may become durable.
    #[must_use]
    pub fn proof_need(&self) -> ProofNeed {
        self.need
    }

    /// Compares the log with the first of [`Self::places_to_prove`]. `found` is the log's record
    /// there, and `end` is the log's end.
    ///
    /// # Errors
    /// [`Damage`]: the log is not the log that was read.
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

    /// The records since the last batch; `None` if there are none or a proof is missing. If you
    /// cannot make the batch durable, start a new follower from the last durable checkpoint.
    pub fn batch(&mut self) -> Option<Batch> {
        let unproven =
            self.need != ProofNeed::None && !self.chain.flaw.is(KnownBad::MovesBeforeProof);
        if unproven || self.stopped.is_some() {
            return None;
        }
        let after = Checkpoint::new(&self.chain, self.last()?, self.last_recorded_at);
        self.last_other = None;
        self.commits_bytes = 0;
        Some(Batch {
            partition: self.chain.partition,
            before: self.handed_out.replace(after.clone()),
            after,
            commits: std::mem::take(&mut self.commits),
            orphans: std::mem::take(&mut self.orphans),
        })
    }
}
