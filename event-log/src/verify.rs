//! Reads a log from its first record to its end, and compares it with checkpoints that others hold.

use std::collections::{BTreeMap, HashMap};

use kernel::Timestamp;
use kernel::registry::Registry;
use position::{ChainHash, LogId, Offset, Partition, Position, Term};
use serde::Serialize;

use crate::chain::{Chain, Orphan, Stop, Verdict};
use crate::checkpoint::Checkpoint;
use crate::claim::Claim;
use crate::commit::{Commit, Outcome};
use crate::log::{EventLog, LogError, Pieces};
use crate::record::Record;
use crate::verdict::{self, Content, StreamVersions};

/// How many orphans, and how many unreadable events, of a partition are listed with their places.
const LISTED_MAX: usize = 100;

/// What was found in a log.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The log's address.
    pub log: String,
    /// The log's identity.
    pub log_id: Option<LogId>,
    /// Each partition.
    pub partitions: Vec<PartitionReport>,
    /// The places where the log differs from what others have read.
    pub mismatches: Vec<Mismatch>,
}

/// What was found in one partition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PartitionReport {
    /// The partition.
    pub partition: Partition,
    /// Its first offset.
    pub first_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Records read, accepted or not.
    pub records: u64,
    /// Accepted records.
    pub position: Position,
    /// The hash of the last accepted record.
    pub head: ChainHash,
    /// The current term.
    pub term: Term,
    /// Accepted claims.
    pub claims: u64,
    /// Accepted commits of accepted commands.
    pub accepted: u64,
    /// Accepted commits of refused commands.
    pub rejected: u64,
    /// Events.
    pub events: u64,
    /// Streams.
    pub streams: u64,
    /// The idempotency window, in milliseconds.
    pub idempotency_window_ms: Option<u64>,
    /// `recorded_at` of the first and last commit.
    pub recorded: Option<(Timestamp, Timestamp)>,
    /// Orphans by reason.
    pub orphans: BTreeMap<Orphan, u64>,
    /// The places of the first orphans.
    pub orphan_places: Vec<(Offset, Orphan)>,
    /// Events that the aggregates of this program cannot read. The log is whole, but a program with
    /// these aggregates freezes the streams of these events.
    pub unreadable_events: u64,
    /// The places of the first unreadable events, with the error of each.
    pub unreadable_places: Vec<(Offset, String)>,
    /// What stopped the reading; absent if nothing did.
    pub damage: Option<String>,
    /// Where the reading stopped.
    pub damage_offset: Option<Offset>,
}

/// A checkpoint that a reader holds.
#[derive(Clone, Debug)]
pub struct HeldCheckpoint {
    /// Who holds the checkpoint.
    pub source: String,
    /// The partition.
    pub partition: Partition,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
}

/// A checkpoint that does not match the log.
#[derive(Clone, Debug, Serialize)]
pub struct Mismatch {
    /// Who holds the checkpoint.
    pub source: String,
    /// The partition.
    pub partition: Partition,
    /// The offset at which the log differs.
    pub offset: Offset,
    /// How the log differs.
    pub reason: String,
}

impl Report {
    /// Whether the log is whole and this program reads all of it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.is_whole() && self.unreadable_events() == 0
    }

    /// Whether no record is missing or altered.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.mismatches.is_empty() && self.partitions.iter().all(|part| part.damage.is_none())
    }

    /// How many events this program cannot read.
    #[must_use]
    pub fn unreadable_events(&self) -> u64 {
        let parts = self.partitions.iter();
        parts.map(|part| part.unreadable_events).sum()
    }
}

/// Reads every record of every partition. Reads every event with the aggregates of `registry`, as
/// owners and projections do. Calls `progress` after each piece, with the number of records read
/// and the number that there are.
///
/// # Errors
/// `Unavailable`. Damage is not an error here: the report contains it.
pub async fn verify(
    log: &dyn EventLog,
    registry: &Registry,
    known: &[HeldCheckpoint],
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, LogError> {
    let mut total = 0;
    let mut partitions = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        let pieces = Pieces::of(log, partition).await?;
        total += pieces.end.0 - pieces.next.0;
        partitions.push(pieces);
    }
    let mut report = Report {
        log: log.address().to_string(),
        log_id: None,
        partitions: Vec::new(),
        mismatches: Vec::new(),
    };
    let mut read = 0;
    for mut pieces in partitions {
        let held = known.iter().filter(|one| one.partition == pieces.partition);
        let mut auditor = Auditor {
            chain: Chain {
                acknowledged: log.acknowledged(),
                ..Chain::genesis(pieces.partition)
            },
            registry,
            streams: StreamVersions::complete(),
            report: PartitionReport {
                partition: pieces.partition,
                first_offset: pieces.next,
                end_offset: pieces.end,
                ..PartitionReport::default()
            },
            known: held.collect(),
            met: HashMap::new(),
        };
        while auditor.report.damage.is_none()
            && let Some(records) = pieces.next().await?
        {
            read += records.len() as u64;
            records.iter().for_each(|record| auditor.take(record));
            progress(read, total.max(read));
        }
        auditor.finish(&mut report);
    }
    Ok(report)
}

struct Auditor<'a> {
    chain: Chain,
    registry: &'a Registry,
    streams: StreamVersions,
    report: PartitionReport,
    known: Vec<&'a HeldCheckpoint>,
    /// What this reader's own checkpoints are at the offsets of `known`, as far as it has come.
    met: HashMap<Offset, Checkpoint>,
}

impl Auditor<'_> {
    fn take(&mut self, record: &Record) {
        if self.report.damage.is_some() {
            return;
        }
        self.report.records += 1;
        if let Err(stop) = self.judge(record) {
            self.report.damage = Some(stop.to_string());
            self.report.damage_offset = Some(record.offset);
            return;
        }
        let mut known = self.known.iter();
        if known.any(|known| known.checkpoint.offset == record.offset) {
            let own = Checkpoint::new(&self.chain, record, None);
            self.met.insert(record.offset, own);
        }
    }

    fn judge(&mut self, record: &Record) -> Result<(), Stop> {
        let verdict = self.chain.judge(record)?;
        let content = verdict::content(&self.chain, &verdict, record, &mut self.streams)?;
        match (verdict, content) {
            (Verdict::Claim(..), _) => {
                self.report.claims += 1;
                let value = record.value.as_deref().and_then(Claim::read);
                let window = &mut self.report.idempotency_window_ms;
                *window = window.or(value.map(|claim| claim.idempotency_window_ms));
            }
            (Verdict::Commit(_), Content::Commit(commit)) => {
                self.read_events(record.offset, &commit);
                self.count(record, &commit);
            }
            (Verdict::Commit(_), Content::Frozen | Content::Nothing) => {
                self.note(record.offset, verdict::FROZEN);
            }
            (Verdict::Orphan(reason), _) => self.note(record.offset, reason),
        }
        Ok(())
    }

    fn note(&mut self, offset: Offset, reason: Orphan) {
        *self.report.orphans.entry(reason).or_default() += 1;
        if self.report.orphan_places.len() < LISTED_MAX {
            self.report.orphan_places.push((offset, reason));
        }
    }

    /// Reads the events with their aggregate. Without a registered aggregate they are not decoded.
    fn read_events(&mut self, offset: Offset, commit: &Commit) {
        let Some(aggregate) = self.registry.get(commit.stream.category()) else {
            return;
        };
        for event in &commit.events {
            let read = aggregate.decode_event(&event.type_name, event.schema, event.data.get());
            let Err(error) = read else { continue };
            self.report.unreadable_events += 1;
            if self.report.unreadable_places.len() < LISTED_MAX {
                let what = format!("{} of {}: {error}", event.type_name, commit.stream);
                self.report.unreadable_places.push((offset, what));
            }
        }
    }

    fn count(&mut self, record: &Record, commit: &Commit) {
        let key = record.key.as_deref().unwrap_or_default();
        self.streams.note(key, commit.version());
        match commit.outcome {
            Outcome::Accepted => self.report.accepted += 1,
            Outcome::Rejected => self.report.rejected += 1,
        }
        self.report.events += commit.events.len() as u64;
        let last = commit.recorded_at;
        let (first, _) = self.report.recorded.unwrap_or((last, last));
        self.report.recorded = Some((first, last));
    }

    fn finish(mut self, whole: &mut Report) {
        self.report.position = self.chain.position;
        self.report.head = self.chain.head;
        self.report.term = self.chain.term;
        self.report.streams = self.streams.versions.len() as u64;
        if let (Some(log), Some(own)) = (whole.log_id, self.chain.log)
            && log != own
            && self.report.damage.is_none()
        {
            let reason = format!("this partition belongs to log {own}, the others to {log}");
            self.report.damage = Some(reason);
            self.report.damage_offset = Some(self.report.first_offset);
        }
        whole.log_id = whole.log_id.or(self.chain.log);
        let known = self.known.iter();
        let mismatches = known.filter_map(|known| self.compare(known));
        whole.mismatches.extend(mismatches);
        whole.partitions.push(self.report);
    }

    fn compare(&self, known: &HeldCheckpoint) -> Option<Mismatch> {
        let checkpoint = &known.checkpoint;
        let reason = match self.met.get(&checkpoint.offset) {
            None if self.report.damage.is_some() => {
                "the log could not be read up to this checkpoint".to_owned()
            }
            None => format!(
                "the record that had been read here is gone; the log ends at offset {}",
                self.report.end_offset
            ),
            Some(own) if own.record_hash != checkpoint.record_hash => {
                "another record stands where one had been read".to_owned()
            }
            Some(own) if (own.head, own.position) != (checkpoint.head, checkpoint.position) => {
                format!(
                    "what precedes this record was changed: the chain's head is {} at position {}, \
                     and was {} at {}",
                    own.head, own.position, checkpoint.head, checkpoint.position
                )
            }
            Some(_) => return None,
        };
        Some(Mismatch {
            source: known.source.clone(),
            partition: known.partition,
            offset: checkpoint.offset,
            reason,
        })
    }
}
