//! The acceptance rule and the chain hashes, as protocol.md defines them.
//!
//! Invariant: whether a record counts follows from headers, key and hashes alone, never from the
//! contents of a value. Deliberately absent: proofs and checkpoints (a check reads everything from
//! the first offset), and stopping at damage: the caller gets the verdict and decides.

use sha2::{Digest as _, Sha256};

use crate::dump::RawRecord;

/// A SHA-256.
pub type Hash = [u8; 32];
/// Sixteen bytes that identify a writer or a log.
pub type Id = [u8; 16];

/// The newest known record format.
pub const RECORD_VERSION_MAX: u16 = 1;
/// How far a claim's term may be above the current one.
pub const TERM_STEP_MAX: u64 = 1_000;

/// The contents of a claim's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimHeaders {
    /// The number of the claim.
    pub term: u64,
    /// The writer that claims.
    pub writer: Id,
    /// The id of the log.
    pub log: Id,
    /// The record format of the term.
    pub version: u16,
}

/// The contents of a commit's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitHeaders {
    /// The term of its writer's claim.
    pub term: u64,
    /// The writer that appended it.
    pub writer: Id,
    /// The position that the record has if it counts.
    pub position: u64,
    /// The chain hash of the accepted record before it.
    pub previous: Hash,
}

/// A record that is a claim or a commit.
enum Ours<'a> {
    Claim(ClaimHeaders, &'a [u8]),
    Commit(CommitHeaders, &'a [u8], &'a [u8]),
}

/// Why a record does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Orphan {
    /// A commit of a lower term or of another writer.
    Late,
    /// A claim that does not count.
    Losing,
    /// A commit of the current writer at a position that is already used.
    Duplicate,
    /// A record that is neither a claim nor a commit.
    Foreign,
    /// A commit of the current writer that does not continue the chain: damage.
    Unlinked,
    /// A commit of a term that was never claimed: damage.
    Unclaimed,
}

impl Orphan {
    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Losing => "losing",
            Self::Duplicate => "duplicate",
            Self::Foreign => "foreign",
            Self::Unlinked => "unlinked",
            Self::Unclaimed => "unclaimed",
        }
    }

    /// Whether it is damage.
    #[must_use]
    pub fn is_damage(self) -> bool {
        match self {
            Self::Late | Self::Losing | Self::Duplicate | Self::Foreign => false,
            Self::Unlinked | Self::Unclaimed => true,
        }
    }
}

/// What the rule decides about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A claim that counts.
    Claim(ClaimHeaders),
    /// A commit that counts.
    Commit(CommitHeaders),
    /// A record that does not count.
    Orphan(Orphan),
    /// A claim that would count, in a record format that is not known here: nothing after it can
    /// be judged.
    NewerFormat(u16),
}

/// One partition, folded from its first offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The log's id, once a claim has fixed it.
    pub log: Option<Id>,
    /// The record format of the current term.
    pub version: u16,
    /// The current term; 0 before the first claim.
    pub term: u64,
    /// The current writer; absent before the first claim.
    pub writer: Option<Id>,
    /// The chain hash of the last accepted record.
    pub head: Hash,
    /// The position of the last accepted record; 0 before the first.
    pub position: u64,
}

impl Fold {
    /// The state before the first record of a partition.
    #[must_use]
    pub fn new(partition: u32) -> Self {
        Self {
            log: None,
            version: 0,
            term: 0,
            writer: None,
            head: genesis(partition),
            position: 0,
        }
    }

    /// Judges the next record; if it counts, advances the state.
    pub fn take(&mut self, record: &RawRecord) -> Verdict {
        self.take_at(record, false)
    }

    /// Like [`Fold::take`]. If an operator has acknowledged the place as damaged, an unlinked
    /// commit counts, and the chain continues from it.
    pub fn take_at(&mut self, record: &RawRecord, is_acknowledged: bool) -> Verdict {
        match ours(record) {
            None => Verdict::Orphan(Orphan::Foreign),
            Some(Ours::Claim(claim, value)) => self.claim(claim, value),
            Some(Ours::Commit(commit, key, value)) => {
                self.commit(commit, (key, value), is_acknowledged)
            }
        }
    }

    fn claim(&mut self, claim: ClaimHeaders, value: &[u8]) -> Verdict {
        let highest = self.term.saturating_add(TERM_STEP_MAX);
        let is_next = self.term < claim.term && claim.term <= highest;
        if !is_next || self.log.is_some_and(|log| log != claim.log) {
            return Verdict::Orphan(Orphan::Losing);
        }
        if claim.version > RECORD_VERSION_MAX {
            return Verdict::NewerFormat(claim.version);
        }
        let position = self.position + 1;
        *self = Self {
            log: Some(claim.log),
            version: claim.version,
            term: claim.term,
            writer: Some(claim.writer),
            head: claim_hash(&self.head, &claim, position, value),
            position,
        };
        Verdict::Claim(claim)
    }

    fn commit(
        &mut self,
        commit: CommitHeaders,
        (key, value): (&[u8], &[u8]),
        is_acknowledged: bool,
    ) -> Verdict {
        if commit.term > self.term {
            return Verdict::Orphan(Orphan::Unclaimed);
        }
        if commit.term < self.term || self.writer != Some(commit.writer) {
            return Verdict::Orphan(Orphan::Late);
        }
        if commit.position <= self.position {
            return Verdict::Orphan(Orphan::Duplicate);
        }
        let is_linked = commit.position == self.position + 1 && commit.previous == self.head;
        if !is_linked && !is_acknowledged {
            return Verdict::Orphan(Orphan::Unlinked);
        }
        self.head = commit_hash(&commit, key, value);
        self.position = commit.position;
        Verdict::Commit(commit)
    }
}

/// Whether a record has the form of a commit, whether it counts or not.
pub(crate) fn is_commit(record: &RawRecord) -> bool {
    matches!(ours(record), Some(Ours::Commit(..)))
}

/// The head of an empty partition.
#[must_use]
pub fn genesis(partition: u32) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"annals.genesis.v1");
    hasher.update(partition.to_be_bytes());
    hasher.finalize().into()
}

/// The chain hash of a claim that counts; `previous` and `position` come from the reader's state.
#[must_use]
pub fn claim_hash(previous: &Hash, claim: &ClaimHeaders, position: u64, value: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"annals.claim.v1");
    hasher.update(previous);
    hasher.update(claim.term.to_be_bytes());
    hasher.update(claim.writer);
    hasher.update(claim.log);
    hasher.update(claim.version.to_be_bytes());
    hasher.update(position.to_be_bytes());
    sized(&mut hasher, value);
    hasher.finalize().into()
}

/// The chain hash of a commit.
#[must_use]
pub fn commit_hash(commit: &CommitHeaders, key: &[u8], value: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"annals.commit.v1");
    hasher.update(commit.previous);
    hasher.update(commit.term.to_be_bytes());
    hasher.update(commit.writer);
    hasher.update(commit.position.to_be_bytes());
    sized(&mut hasher, key);
    sized(&mut hasher, value);
    hasher.finalize().into()
}

fn sized(hasher: &mut Sha256, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("a line of a dump is shorter than 4 GiB");
    hasher.update(len.to_be_bytes());
    hasher.update(bytes);
}

/// Parses a record as a claim or a commit: exactly the headers of its kind, each once, in their
/// order; a value; and a key if and only if it is a commit.
fn ours(record: &RawRecord) -> Option<Ours<'_>> {
    let value = record.value.as_deref()?;
    let header = |index: usize, name: &str| {
        let (found, value) = record.headers.get(index)?;
        (found == name.as_bytes()).then_some(value.as_deref()?)
    };
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
    if record.headers.len() != 5 {
        return None;
    }
    let term = || number(header(1, "annals-term")?);
    let writer = || Id::try_from(header(2, "annals-writer")?).ok();
    match (header(0, "annals-kind")?, record.key.as_deref()) {
        (b"claim", None) => {
            let claim = ClaimHeaders {
                term: term()?,
                writer: writer()?,
                log: header(3, "annals-log")?.try_into().ok()?,
                version: u16::from_be_bytes(header(4, "annals-version")?.try_into().ok()?),
            };
            Some(Ours::Claim(claim, value))
        }
        (b"commit", Some(key)) => {
            let commit = CommitHeaders {
                term: term()?,
                writer: writer()?,
                position: number(header(3, "annals-position")?)?,
                previous: header(4, "annals-previous")?.try_into().ok()?,
            };
            Some(Ours::Commit(commit, key, value))
        }
        _ => None,
    }
}
