//! An independent reader of the protocol: finds which records count as they land, and keeps what
//! clients asked for.
//!
//! Invariant: this module never looks into the engine's owners or readers. It judges every record
//! when it lands, and checks every promise about the log's contents at that moment.

use std::collections::{BTreeMap, BTreeSet};

use event_log::commit::{Commit, Outcome};
use event_log::record::{self, CommitHeaders, Kind, Record};
use kernel::{CommandId, RecordedRejection, StreamName, Timestamp};
use position::{ChainHash, LogId, Partition, Position, Term, WriterId};

use super::book::{Account, Post, Posted};
use super::violation::Invariant;

/// The code of a rejection because of a stale expected version.
const VERSION_CONFLICT: &str = "version_conflict";

/// By how much earlier an id may expire than by the brokers' clock. The clock of the node that
/// recorded the id and that of the node that recorded the last commit may each be wrong by a
/// minute, or by two if it was wrong when its process started.
const CLOCKS_APART_MS: i64 = 260_000;
/// How far a recorded time may be ahead of the append time, if the log was not ahead before.
const CLOCK_AHEAD_MAX_MS: i64 = 125_000;

/// A command's stream and id.
pub type CommandKey = (String, String);

pub fn key_of(stream: &StreamName, id: &CommandId) -> CommandKey {
    (stream.as_str().to_owned(), id.as_str().to_owned())
}

/// Why a promise is broken.
pub type Broken = (Invariant, String);

/// A command that a client sent, kept under its key.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The intent that its data names.
    pub intent: u64,
    /// The business time that the client gave, if it gave one.
    pub occurred_at: Option<Timestamp>,
    /// The command of the same stream before it in its batch.
    pub after: Option<CommandKey>,
}

/// A commit that counts.
#[derive(Clone, Debug)]
pub struct Counted {
    pub position: Position,
    pub commit: Commit,
    /// The state of its stream after it.
    row: Row,
    /// When the broker appended it, in milliseconds.
    appended_at_ms: i64,
}

/// A stream after the accepted history so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub account: Account,
    /// How many commits it has, rejections included.
    pub commits: u64,
}

/// What counts in one partition.
pub struct PartitionHistory {
    pub partition: Partition,
    log: Option<LogId>,
    pub term: Term,
    writer: WriterId,
    /// The chain head after each position, from 0.
    heads: Vec<ChainHash>,
    /// The commits that count, in order.
    pub commits: Vec<Counted>,
    pub rows: BTreeMap<String, Row>,
    /// The commits of each command; more than one only if its id had expired.
    ids: BTreeMap<CommandKey, Vec<usize>>,
    window_ms: u64,
    intents: BTreeSet<u64>,
    last_recorded_at: Option<Timestamp>,
}

/// What clients asked for, over all partitions: each command as it was sent first.
pub type AskedFor = BTreeMap<CommandKey, Asked>;

impl PartitionHistory {
    pub fn new(partition: Partition, window_ms: u64) -> Self {
        Self {
            window_ms,
            partition,
            log: None,
            term: Term(0),
            writer: WriterId::default(),
            heads: vec![record::genesis(partition)],
            commits: Vec::new(),
            rows: BTreeMap::new(),
            ids: BTreeMap::new(),
            intents: BTreeSet::new(),
            last_recorded_at: None,
        }
    }

    fn head(&self) -> ChainHash {
        *self.heads.last().expect("there is always the genesis")
    }

    pub fn position(&self) -> Position {
        Position(self.heads.len() as u64 - 1)
    }

    /// The chain head after a position, if the chain is that long.
    pub fn head_at(&self, position: Position) -> Option<ChainHash> {
        let index = usize::try_from(position.0).ok()?;
        self.heads.get(index).copied()
    }

    /// The commits of a command: one, unless its id expired in between.
    pub fn of(&self, key: &CommandKey) -> impl Iterator<Item = &Counted> {
        let places = self.ids.get(key).into_iter().flatten();
        places.map(|&index| &self.commits[index])
    }

    pub fn has(&self, key: &CommandKey) -> bool {
        self.ids.contains_key(key)
    }

    /// Whether the last commit of a command is old enough for its id to expire. The earlier of its
    /// append time and its recorded time counts: a record that was in transit while all machines
    /// slept was recorded before its append.
    fn has_expired(&self, places: &[usize], now_ms: i64) -> bool {
        let counted = &self.commits[*places.last().expect("a command has a commit")];
        let recorded_at_ms = counted.commit.recorded_at.micros() / 1_000;
        let last_ms = counted.appended_at_ms.min(recorded_at_ms);
        now_ms - last_ms + CLOCKS_APART_MS >= i64::try_from(self.window_ms).unwrap_or(i64::MAX)
    }

    /// Whether a commit would count now.
    pub fn is_continued_by(&self, commit: &CommitHeaders) -> bool {
        (commit.term, commit.writer) == (self.term, self.writer)
            && (commit.position, commit.previous) == (self.position().next(), self.head())
    }

    /// Judges a record that landed: what it is to every reader, or the promise that it breaks.
    pub fn land(&mut self, record: &Record, asked: &AskedFor) -> Result<&'static str, Broken> {
        let next = self.position().next();
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        match Kind::of(record) {
            Kind::Foreign => {}
            Kind::Claim(claim) => {
                let follows = claim.term > self.term && claim.term.0 <= self.term.0 + 1_000;
                if follows && self.log.is_none_or(|log| log == claim.log) {
                    let head = record::chain_claim(&claim, self.head(), next, value);
                    self.heads.push(head);
                    self.log = Some(claim.log);
                    (self.term, self.writer) = (claim.term, claim.writer);
                    return Ok("claim");
                }
            }
            Kind::Commit(commit) if self.is_continued_by(&commit) => {
                self.heads.push(record::chain_commit(&commit, key, value));
                let commit = Commit::read(key, value).map_err(|error| {
                    let what = format!("offset {}: {error}", record.offset);
                    (Invariant::Readable, what)
                })?;
                self.count(commit, record, asked)?;
                return Ok("commit");
            }
            Kind::Commit(commit) => {
                let current = (commit.term, commit.writer) == (self.term, self.writer);
                if commit.term > self.term || (current && commit.position >= next) {
                    let what = format!("offset {} is linked to nothing", record.offset);
                    return Err((Invariant::DecidedOnHistory, what));
                }
            }
        }
        Ok("orphan")
    }

    fn count(&mut self, commit: Commit, record: &Record, asked: &AskedFor) -> Result<(), Broken> {
        let appended_at_ms = record.appended_at_ms.unwrap_or_default();
        let offset = record.offset;
        let key = key_of(&commit.stream, &commit.command.id);
        let (stream, id) = (&key.0, &key.1);
        let post: Post = serde_json::from_str(commit.command.data.get())
            .map_err(|error| (Invariant::Asked, format!("{id}: {error}")))?;
        let is_again = match self.ids.get(&key) {
            Some(places) => !self.has_expired(places, appended_at_ms),
            None => !self.intents.insert(post.intent),
        };
        if is_again {
            let what = format!("{id} of {stream} counts again at offset {offset}");
            return Err((Invariant::AtMostOnce, what));
        }
        let asked = asked.get(&key).filter(|asked| {
            asked.intent == post.intent && asked.occurred_at == commit.command.occurred_at
        });
        let before = asked.and_then(|asked| asked.after.as_ref());
        let missing = before.filter(|before| !self.ids.contains_key(before));
        // After a cut, each of these may happen without a fault; so the commit is counted all the
        // same.
        let broken = match (asked, missing) {
            (None, _) => Some((Invariant::Asked, format!("at offset {offset}"))),
            (_, Some((_, before))) => {
                Some((Invariant::BatchOrder, format!("counts before {before}")))
            }
            (Some(_), None) => None,
        };
        let broken =
            broken.map(|(invariant, what)| (invariant, format!("{id} of {stream} {what}")));
        if let Some(last) = self.last_recorded_at {
            let latest_us = (appended_at_ms + CLOCK_AHEAD_MAX_MS) * 1_000;
            let what = || format!("at offset {offset}, {}", commit.recorded_at);
            if last >= commit.recorded_at {
                return Err((Invariant::RecordedTime, what()));
            }
            if commit.recorded_at.micros() > latest_us.max(last.micros() + 1) {
                return Err((Invariant::TimesAreTrue, what()));
            }
        }
        self.last_recorded_at = Some(commit.recorded_at);
        let row = self.rows.entry(key.0.clone()).or_default();
        fold(row, &commit, &post).map_err(|(invariant, what)| {
            let what = format!("{id} of {stream} at offset {offset}: {what}");
            (invariant, what)
        })?;
        let row = *row;
        self.ids.entry(key).or_default().push(self.commits.len());
        self.commits.push(Counted {
            position: self.position(),
            commit,
            row,
            appended_at_ms,
        });
        broken.map_or(Ok(()), Err)
    }

    /// Each stream as it was after a position: an independent fold.
    pub fn rows_at(&self, position: Position) -> BTreeMap<String, Row> {
        let commits = &self.commits;
        let count = commits.partition_point(|counted| counted.position <= position);
        let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
        for counted in commits[..count].iter().rev() {
            let stream = counted.commit.stream.as_str();
            rows.entry(stream).or_insert(counted.row);
            if rows.len() == self.rows.len() {
                break;
            }
        }
        let rows = rows.into_iter();
        rows.map(|(stream, row)| (stream.to_owned(), row)).collect()
    }

    /// The history that a reader of these records finds now, up to the first record that breaks a
    /// promise.
    pub fn read_again(&self, records: &[Record], asked: &AskedFor) -> Self {
        let mut history = Self::new(self.partition, self.window_ms);
        for record in records {
            if history.land(record, asked).is_err() {
                break;
            }
        }
        history
    }
}

/// Applies a commit without any checks, as a reader does.
pub fn take(row: &mut Row, commit: &Commit) {
    row.commits += 1;
    for event in &commit.events {
        if let Ok(posted) = serde_json::from_str::<Posted>(event.data.get()) {
            row.account.take(&posted, commit.occurred_at(event));
        }
    }
}

fn fact(rejection: &RecordedRejection, name: &str) -> Option<u64> {
    rejection.facts.get(name)?.as_u64()
}

/// Applies a commit, and checks its contents against the state before it.
fn fold(row: &mut Row, commit: &Commit, post: &Post) -> Result<(), Broken> {
    let (seen, digest) = (row.account.count, row.account.digest);
    let from = commit.from_version;
    if from != seen {
        let what = format!("decided on version {from}, which is {seen}");
        return Err((Invariant::Versions, what));
    }
    if commit.outcome == Outcome::Accepted && commit.events.len() != post.amounts.len() {
        let what = format!("{} of {} events", commit.events.len(), post.amounts.len());
        return Err((Invariant::Versions, what));
    }
    if let Some(rejection) = &commit.rejection
        && rejection.code == "overdrawn"
        && (fact(rejection, "seen"), fact(rejection, "digest")) != (Some(seen), Some(digest))
    {
        let what = format!("refused on another history than the {seen} events before it");
        return Err((Invariant::DecidedOnHistory, what));
    }
    let stale = commit.command.expected_version.is_some_and(|e| e != seen);
    let overdraws = row.account.balance + post.amounts.iter().sum::<i64>() < 0;
    let rejection = commit.rejection.as_ref();
    let judged = rejection.map(|rejection| rejection.code.as_str());
    let right = match (stale, overdraws) {
        (true, _) => Some(VERSION_CONFLICT),
        (false, true) => Some("overdrawn"),
        (false, false) => None,
    };
    if judged != right {
        let what = format!("{judged:?} at version {seen}, where {right:?} is right");
        return Err((Invariant::DecidedOnHistory, what));
    }
    row.commits += 1;
    for event in &commit.events {
        let posted: Posted = serde_json::from_str(event.data.get())
            .map_err(|error| (Invariant::Readable, error.to_string()))?;
        if (posted.seen, posted.digest) != (row.account.count, row.account.digest) {
            let what = format!("an event saw {} events, and there are others", posted.seen);
            return Err((Invariant::DecidedOnHistory, what));
        }
        let occurred_at = commit.occurred_at(event);
        let given = commit.command.occurred_at;
        let is_right = match given {
            Some(given) => occurred_at == given,
            None => occurred_at <= commit.recorded_at,
        };
        if !is_right || posted.is_time_given != given.is_some() {
            let what = format!("an event at {occurred_at}, where {given:?} was given");
            return Err((Invariant::BusinessTime, what));
        }
        row.account.take(&posted, occurred_at);
    }
    Ok(())
}
