//! The acceptance rule: which records of a partition count. The rule is one deterministic fold.
//! Every reader applies it from the first offset, or continues it from a checkpoint.
//!
//! Invariant: the rule looks at headers, key and hashes only, never into a value. From the first
//! offset on, all readers agree, whatever is in the log. Deliberately absent: I/O, and the meaning
//! of values.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::ShapeError;
use position::{ChainHash, LogId, Offset, Partition, Position, Term, WriterId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::damage::{Damage, DamageKind};
use crate::known_bad::{Flaw, KnownBad};
use crate::record::{self, ClaimHeaders, CommitHeaders, Kind, RECORD_VERSION, Record};

/// How far above the current term a claim may be.
pub const TERM_STEP_MAX: u64 = 1_000;

/// Damaged places that an operator has examined and readers therefore pass, each with a reason.
///
/// At an acknowledged place, an unlinked commit is accepted as it stands and the chain goes on from
/// it; an unclaimed commit is left out. In both cases every reader freezes the stream that the
/// commit's key names: nothing of that stream counts from there on, and all other streams go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Acknowledged(Arc<BTreeMap<(Partition, Offset), String>>);

impl Acknowledged {
    /// Whether readers pass this place.
    #[must_use]
    pub fn contains(&self, partition: Partition, offset: Offset) -> bool {
        self.0.contains_key(&(partition, offset))
    }

    /// Why readers pass this place, if they do.
    #[must_use]
    pub fn reason(&self, partition: Partition, offset: Offset) -> Option<&str> {
        self.0.get(&(partition, offset)).map(String::as_str)
    }

    /// The places of one partition up to `last`, in order.
    pub fn up_to(&self, partition: Partition, last: Offset) -> impl Iterator<Item = Offset> {
        let places = self.0.range((partition, Offset(0))..=(partition, last));
        places.map(|((_, offset), _)| *offset)
    }

    /// A digest of the places, without their reasons; absent for an empty list. Nodes whose lists
    /// differ must not own partitions at the same time.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        let mut hash = Sha256::new();
        for (partition, offset) in self.0.keys() {
            hash.update(partition.0.to_be_bytes());
            hash.update(offset.0.to_be_bytes());
        }
        let digest = hash.finalize();
        (!self.0.is_empty()).then(|| hex::encode(&digest[..8]))
    }

    /// The places with their reasons.
    pub fn iter(&self) -> impl Iterator<Item = (&(Partition, Offset), &String)> {
        self.0.iter()
    }
}

impl FromIterator<((Partition, Offset), String)> for Acknowledged {
    fn from_iter<I: IntoIterator<Item = ((Partition, Offset), String)>>(places: I) -> Self {
        Self(Arc::new(places.into_iter().collect()))
    }
}

/// What is known of a partition after the records folded so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// The partition.
    pub partition: Partition,
    /// The log's identity, once a claim fixed it.
    pub log: Option<LogId>,
    /// The record format of the current term.
    pub version: u16,
    /// The current term; 0 before the first claim.
    pub term: Term,
    /// The writer of the current claim.
    pub writer: WriterId,
    /// The hash of the last accepted record.
    pub head: ChainHash,
    /// The number of accepted records.
    pub position: Position,
    /// The offset of the last accepted record; used for messages only.
    pub accepted_offset: Option<Offset>,
    /// The newest record format that this reader reads.
    pub reads: u16,
    /// The damaged places that this reader passes.
    pub acknowledged: Acknowledged,
    /// The known-bad change that is on in this reader.
    pub flaw: Flaw,
}

/// The rule's verdict on one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A claim that counts, at this position.
    Claim(ClaimHeaders, Position),
    /// A commit that counts.
    Commit(CommitHeaders),
    /// A record that no reader accepts, and that harms nobody.
    Orphan(Orphan),
}

/// Why a record does not count without being damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orphan {
    /// A commit of a lower term or of another writer: a take-over leaves such records.
    Late,
    /// A claim that does not count.
    Losing,
    /// A commit of the current claim at a position that is taken already: a producer's repetition
    /// leaves such records.
    Duplicate,
    /// A record that does not have the format of ours.
    Foreign,
    /// Damage that an operator has acknowledged.
    Acknowledged,
}

impl Orphan {
    /// The name in tables and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Losing => "losing",
            Self::Duplicate => "duplicate",
            Self::Foreign => "foreign",
            Self::Acknowledged => "acknowledged",
        }
    }
}

/// Why a reader goes no further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The log is damaged here.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// A claim announces that the records after it have a newer format.
    #[error(
        "partition {partition} goes on in record format {version} at offset {offset}, and this \
         program reads up to {reads}: upgrade it"
    )]
    NewerFormat {
        /// The partition.
        partition: Partition,
        /// The claim's offset.
        offset: Offset,
        /// The format that the claim announces.
        version: u16,
        /// The newest format that this program reads.
        reads: u16,
    },
    /// A commit that counts has an event of a type or shape that this program does not know. Nothing
    /// is damaged: a newer program reads it.
    #[error(
        "partition {partition} has at offset {offset} an event of stream {stream} that this program \
         is too old for ({event}): upgrade it"
    )]
    NewerEvent {
        /// The partition.
        partition: Partition,
        /// The commit's offset.
        offset: Offset,
        /// The stream, with its tenant.
        stream: String,
        /// What is not known of the event.
        event: ShapeError,
    },
    /// The log at the address is not the log that was opened.
    #[error("{0}")]
    Gone(String),
}

impl Stop {
    /// Whether nothing is wrong with the log, and a newer program reads on.
    #[must_use]
    pub fn asks_for_upgrade(&self) -> bool {
        match self {
            Self::NewerFormat { .. } | Self::NewerEvent { .. } => true,
            Self::Damage(_) | Self::Gone(_) => false,
        }
    }

    /// The place of the stop; absent if the log as a whole is not the one that was opened.
    #[must_use]
    pub fn place(&self) -> Option<(Partition, Offset)> {
        match self {
            Self::Damage(damage) => Some((damage.partition, damage.offset)),
            Self::NewerFormat {
                partition, offset, ..
            }
            | Self::NewerEvent {
                partition, offset, ..
            } => Some((*partition, *offset)),
            Self::Gone(_) => None,
        }
    }
}

impl Chain {
    /// The chain of an empty partition.
    #[must_use]
    pub fn genesis(partition: Partition) -> Self {
        Self {
            partition,
            log: None,
            version: 0,
            term: Term(0),
            writer: WriterId::default(),
            head: record::genesis(partition),
            position: Position(0),
            accepted_offset: None,
            reads: RECORD_VERSION,
            acknowledged: Acknowledged::default(),
            flaw: Flaw::default(),
        }
    }

    /// Applies the rule to the next record. A record that counts moves the chain.
    ///
    /// # Errors
    /// [`Stop`]: the chain has not moved, and the reader must not go on.
    pub fn judge(&mut self, record: &Record) -> Result<Verdict, Stop> {
        match Kind::of(record) {
            Kind::Claim(claim) => self.judge_claim(claim, record),
            Kind::Commit(commit) => self.judge_commit(commit, record),
            Kind::Foreign => Ok(Verdict::Orphan(Orphan::Foreign)),
        }
    }

    fn judge_claim(&mut self, claim: ClaimHeaders, record: &Record) -> Result<Verdict, Stop> {
        let next_term =
            claim.term > self.term && claim.term.0 <= self.term.0.saturating_add(TERM_STEP_MAX);
        if !next_term || self.log.is_some_and(|log| log != claim.log) {
            return Ok(Verdict::Orphan(Orphan::Losing));
        }
        if claim.version > self.reads {
            return Err(Stop::NewerFormat {
                partition: self.partition,
                offset: record.offset,
                version: claim.version,
                reads: self.reads,
            });
        }
        let position = self.position.next();
        let value = record.value.as_deref().unwrap_or_default();
        self.head = record::chain_claim(&claim, self.head, position, value);
        self.position = position;
        self.log = Some(claim.log);
        self.version = claim.version;
        self.term = claim.term;
        self.writer = claim.writer;
        self.accepted_offset = Some(record.offset);
        Ok(Verdict::Claim(claim, position))
    }

    fn judge_commit(&mut self, commit: CommitHeaders, record: &Record) -> Result<Verdict, Stop> {
        let acknowledged = self.acknowledged.contains(self.partition, record.offset);
        let damage = |kind| {
            Err(Stop::Damage(Damage {
                partition: self.partition,
                offset: record.offset,
                kind,
            }))
        };
        if commit.term > self.term {
            return match acknowledged {
                true => Ok(Verdict::Orphan(Orphan::Acknowledged)),
                false => damage(DamageKind::Unclaimed),
            };
        }
        // Before the first claim no writer is current, not even one with a nil id.
        let unclaimed = self.log.is_none();
        if unclaimed || commit.term < self.term || commit.writer != self.writer {
            return Ok(Verdict::Orphan(Orphan::Late));
        }
        let expected = self.position.next();
        let flaw = self.flaw;
        let any_position = flaw.is(KnownBad::ChecksNoLink) || flaw.is(KnownBad::ChecksNoPosition);
        let any_previous = flaw.is(KnownBad::ChecksNoLink) || flaw.is(KnownBad::ChecksNoPrevious);
        if commit.position < expected && !any_position {
            return Ok(Verdict::Orphan(Orphan::Duplicate));
        }
        let linked = (commit.position == expected || any_position)
            && (commit.previous == self.head || any_previous);
        if !linked && !acknowledged {
            return damage(DamageKind::Unlinked {
                expected,
                found: commit.position,
                after: self.accepted_offset,
            });
        }
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let head = record::chain_commit(&commit, key, value);
        self.take(commit, head, record.offset);
        Ok(Verdict::Commit(commit))
    }

    /// Whether a commit links to the chain's present head.
    #[must_use]
    pub fn is_continued_by(&self, commit: &CommitHeaders) -> bool {
        (commit.term, commit.writer) == (self.term, self.writer)
            && (commit.position, commit.previous) == (self.position.next(), self.head)
    }

    /// Takes up a commit that is known to count: the writer's own, acknowledged at the next offset.
    pub fn accept_commit(&mut self, commit: CommitHeaders, head: ChainHash, offset: Offset) {
        debug_assert!(self.is_continued_by(&commit));
        self.take(commit, head, offset);
    }

    fn take(&mut self, commit: CommitHeaders, head: ChainHash, offset: Offset) {
        self.head = head;
        self.position = commit.position;
        self.accepted_offset = Some(offset);
    }
}
