//! A second implementation of the acceptance rule, written only from protocol.md ("The acceptance
//! rule"): the engine's own rule is compared with it.
//!
//! Invariant: uses no verdict, no header parser and no hash of the engine. Deliberately absent:
//! speed, and acknowledged damage.

use event_log::record::{Headers, Record};
use sha2::{Digest, Sha256};

/// How far a claim's term may be above the current term.
const TERM_STEP_MAX: u64 = 1_000;

/// The state of a reader of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The log's identity, once a claim fixed it.
    pub log: Option<[u8; 16]>,
    /// The current term.
    pub term: u64,
    /// The current writer.
    pub writer: [u8; 16],
    /// The hash of the last accepted record.
    pub head: [u8; 32],
    /// The number of accepted records.
    pub position: u64,
}

/// The verdict on one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A claim that counts.
    Claim,
    /// A commit that counts.
    Commit,
    /// A record that no reader accepts.
    Orphan,
    /// A record at which every reader stops.
    Damage,
}

struct Sum(Sha256);

impl Sum {
    fn of(name: &str) -> Self {
        Self(Sha256::new_with_prefix(name))
    }

    fn with(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    fn with_len(self, bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("no record has 4 GiB");
        self.with(&len.to_be_bytes()).with(bytes)
    }

    fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The values, if the headers are exactly these: each once, in this order, and no others.
fn values<'a, const N: usize>(headers: &'a Headers, names: [&str; N]) -> Option<[&'a [u8]; N]> {
    let given: Vec<_> = headers.iter().collect();
    let found: Vec<&[u8]> = given.iter().map(|(name, _)| *name).collect();
    let values: Option<Vec<&[u8]>> = given.iter().map(|(_, value)| *value).collect();
    (found == names.map(str::as_bytes)).then_some(())?;
    values?.try_into().ok()
}

struct Claim {
    term: u64,
    writer: [u8; 16],
    log: [u8; 16],
    version: [u8; 2],
}

struct Commit {
    term: u64,
    writer: [u8; 16],
    position: u64,
    previous: [u8; 32],
}

fn claim(record: &Record) -> Option<Claim> {
    let names = [
        "annals-kind",
        "annals-term",
        "annals-writer",
        "annals-log",
        "annals-version",
    ];
    let [kind, term, writer, log, version] = values(&record.headers, names)?;
    let ours = kind == b"claim" && record.key.is_none() && record.value.is_some();
    ours.then_some(())?;
    Some(Claim {
        term: u64::from_be_bytes(term.try_into().ok()?),
        writer: writer.try_into().ok()?,
        log: log.try_into().ok()?,
        version: version.try_into().ok()?,
    })
}

fn commit(record: &Record) -> Option<Commit> {
    let names = [
        "annals-kind",
        "annals-term",
        "annals-writer",
        "annals-position",
        "annals-previous",
    ];
    let [kind, term, writer, position, previous] = values(&record.headers, names)?;
    let ours = kind == b"commit" && record.key.is_some() && record.value.is_some();
    ours.then_some(())?;
    Some(Commit {
        term: u64::from_be_bytes(term.try_into().ok()?),
        writer: writer.try_into().ok()?,
        position: u64::from_be_bytes(position.try_into().ok()?),
        previous: previous.try_into().ok()?,
    })
}

impl Reading {
    /// An empty partition.
    #[must_use]
    pub fn genesis(partition: u32) -> Self {
        Self {
            log: None,
            term: 0,
            writer: [0; 16],
            head: Sum::of("annals.genesis.v1")
                .with(&partition.to_be_bytes())
                .end(),
            position: 0,
        }
    }

    /// Reads the next record.
    pub fn take(&mut self, record: &Record) -> Verdict {
        let value = record.value.as_deref().unwrap_or_default();
        if let Some(claim) = claim(record) {
            return self.take_claim(&claim, value);
        }
        match commit(record) {
            Some(commit) => {
                let key = record.key.as_deref().unwrap_or_default();
                self.take_commit(&commit, key, value)
            }
            None => Verdict::Orphan,
        }
    }

    fn take_claim(&mut self, claim: &Claim, value: &[u8]) -> Verdict {
        let in_reach = self.term < claim.term && claim.term <= self.term + TERM_STEP_MAX;
        if !in_reach || self.log.is_some_and(|log| log != claim.log) {
            return Verdict::Orphan;
        }
        self.position += 1;
        self.head = Sum::of("annals.claim.v1")
            .with(&self.head)
            .with(&claim.term.to_be_bytes())
            .with(&claim.writer)
            .with(&claim.log)
            .with(&claim.version)
            .with(&self.position.to_be_bytes())
            .with_len(value)
            .end();
        self.log = Some(claim.log);
        self.term = claim.term;
        self.writer = claim.writer;
        Verdict::Claim
    }

    fn take_commit(&mut self, commit: &Commit, key: &[u8], value: &[u8]) -> Verdict {
        if commit.term > self.term {
            return Verdict::Damage;
        }
        let next = self.position + 1;
        if (commit.term, commit.writer) != (self.term, self.writer) || commit.position < next {
            return Verdict::Orphan;
        }
        if commit.position != next || commit.previous != self.head {
            return Verdict::Damage;
        }
        self.position = next;
        self.head = Sum::of("annals.commit.v1")
            .with(&commit.previous)
            .with(&commit.term.to_be_bytes())
            .with(&commit.writer)
            .with(&commit.position.to_be_bytes())
            .with_len(key)
            .with_len(value)
            .end();
        Verdict::Commit
    }
}
