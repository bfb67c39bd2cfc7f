//! Reads the whole log at the end, and compares it with what claimants learned.
//!
//! Invariant: each fault counts against the one guarantee that it breaks; its consequences do not
//! count. Deliberately absent: repair, and texts for people (`rows`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use event_log::chain::{Chain, Stop, Verdict};
use event_log::log::{EventLog, LogError};
use event_log::record::{Kind, Record, record_hash};
use position::{Offset, Partition, Position, RecordHash, WriterId};

use super::claimant::retried;
use super::commits::Content;
use super::ledger::{Acknowledged, Key, Ledger};
use super::readers::{Followed, Seen};
use super::report::Places;

/// How long reading one piece of the log may take.
const READ_WITHIN: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Contents {
    /// The offsets of each key's record, in order.
    places: HashMap<Key, Vec<(Offset, Content)>>,
    /// Own commits in the log's order.
    order: Vec<(WriterId, Position, Offset)>,
    /// Commits that count.
    accepted: HashSet<Key>,
    /// What stopped the fold.
    stopped: Option<Stop>,
    /// Offsets at which nothing was read.
    gaps: Vec<Offset>,
    records: u64,
    /// The leader epochs under which records were appended.
    epochs: BTreeSet<i32>,
}

/// The faults found against each guarantee.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) records: u64,
    pub(super) acknowledged: u64,
    pub(super) accepted: u64,
    pub(super) order: Places,
    pub(super) durable: Places,
    pub(super) offsets: Places,
    pub(super) duplicates: Places,
    pub(super) readers: Places,
    pub(super) one_writer: Places,
    pub(super) resume: Places,
    /// How many times a partition's leader changed, or the same leader was elected again.
    pub(super) leader_changes: u64,
}

/// Reads the whole log and judges it.
///
/// # Errors
/// `Unavailable`.
pub(super) async fn judge(
    log: &dyn EventLog,
    ends: &BTreeMap<Partition, Offset>,
    ledger: &Ledger,
    seen: &Seen,
    followed: &Followed,
    mut progress: impl FnMut(u64, u64),
) -> Result<Judged, LogError> {
    let total = ends.values().map(|end| end.0).sum();
    let mut judged = Judged::default();
    let mut by_partition: BTreeMap<Partition, Vec<&Acknowledged>> = BTreeMap::new();
    for one in &ledger.acknowledged {
        by_partition.entry(one.partition).or_default().push(one);
    }
    judged.acknowledged = ledger.acknowledged.len() as u64;
    let answers: HashMap<Key, bool> = ledger.answers.iter().copied().collect();
    for (&partition, &end) in ends {
        let mut read = Vec::new();
        let contents = read_all(log, partition, end, |offset, record| {
            read.push((offset, record_hash(record)));
        })
        .await?;
        let acknowledged = by_partition.remove(&partition).unwrap_or_default();
        judged.take(partition, &contents, &acknowledged, &answers);
        judged.compare(partition, &read, seen.get(&partition), followed, &contents);
        progress(judged.records, total);
    }
    Ok(judged)
}

async fn read_all(
    log: &dyn EventLog,
    partition: Partition,
    end: Offset,
    mut see: impl FnMut(Offset, &Record),
) -> Result<Contents, LogError> {
    let mut contents = Contents::default();
    let mut chain = Chain::genesis(partition);
    let (mut from, mut expected) = (Offset(0), Offset(0));
    while from < end {
        let deadline = Instant::now() + READ_WITHIN;
        let chunk = retried(deadline, || log.read(partition, from)).await?;
        for record in &chunk.records {
            if record.offset >= end {
                break;
            }
            contents
                .gaps
                .extend((expected.0..record.offset.0).map(Offset));
            expected = record.offset.next();
            contents.take(&mut chain, record);
            see(record.offset, record);
        }
        if chunk.at_end || chunk.next <= from {
            break;
        }
        from = chunk.next;
    }
    contents.gaps.extend((expected.0..end.0).map(Offset));
    Ok(contents)
}

impl Contents {
    fn take(&mut self, chain: &mut Chain, record: &Record) {
        self.records += 1;
        self.epochs.extend(record.leader_epoch);
        let key = match Kind::of(record) {
            Kind::Claim(claim) => Some((claim.term, claim.writer, None)),
            Kind::Commit(commit) => {
                self.order
                    .push((commit.writer, commit.position, record.offset));
                Some((commit.term, commit.writer, Some(commit.position)))
            }
            Kind::Foreign => None,
        };
        if let Some(key) = key {
            let place = (record.offset, Content::of_read(record));
            self.places.entry(key).or_default().push(place);
        }
        if self.stopped.is_some() {
            return;
        }
        match chain.judge(record) {
            Ok(Verdict::Commit(commit)) => {
                let key = (commit.term, commit.writer, Some(commit.position));
                self.accepted.insert(key);
            }
            Ok(Verdict::Claim(..) | Verdict::Orphan(_)) => {}
            Err(stop) => self.stopped = Some(stop),
        }
    }
}

impl Judged {
    fn take(
        &mut self,
        partition: Partition,
        contents: &Contents,
        acknowledged: &[&Acknowledged],
        answers: &HashMap<Key, bool>,
    ) {
        self.records += contents.records;
        self.accepted += contents.accepted.len() as u64;
        self.leader_changes += (contents.epochs.len() as u64).saturating_sub(1);
        let told: HashSet<Offset> = acknowledged.iter().filter_map(|one| one.offset).collect();
        for offset in contents.gaps.iter().filter(|offset| !told.contains(offset)) {
            let place = format!("partition {partition} has no record at offset {offset}");
            self.offsets.add(place);
        }
        let is_explained = [
            self.acknowledged_is_there(partition, contents, acknowledged),
            self.nothing_is_there_twice(partition, contents),
            self.order_is_kept(partition, contents, acknowledged),
        ]
        .contains(&true);
        if is_explained {
            // What the reading rule makes of such a log is only a consequence of the fault.
            return;
        }
        if let Some(stop) = &contents.stopped {
            self.one_writer.add(stop.to_string());
            return;
        }
        for key in contents.places.keys() {
            let counts = contents.accepted.contains(key);
            if answers.get(key).is_some_and(|said| *said != counts) {
                let (said, is) = match counts {
                    true => ("not to count", "counts"),
                    false => ("to count", "does not"),
                };
                let (term, writer, _) = key;
                self.one_writer.add(format!(
                    "partition {partition}: a commit of term {term} (writer {writer}) was said \
                     {said} and {is}"
                ));
            }
        }
    }

    /// Returns whether a fault was found; so do the next two functions.
    fn acknowledged_is_there(
        &mut self,
        partition: Partition,
        contents: &Contents,
        acknowledged: &[&Acknowledged],
    ) -> bool {
        let mut is_fault = false;
        for one in acknowledged {
            let at = one
                .offset
                .map_or_else(String::new, |offset| format!(" at offset {offset}"));
            let Some(places) = contents.places.get(&one.key) else {
                is_fault = true;
                self.durable.add(format!(
                    "partition {partition}: the record that was acknowledged{at} is gone"
                ));
                continue;
            };
            if places.iter().all(|(_, content)| *content != one.content) {
                is_fault = true;
                self.durable.add(format!(
                    "partition {partition}: the record that was acknowledged{at} was changed"
                ));
            } else if let Some(offset) = one.offset
                && places.iter().all(|(place, _)| *place != offset)
            {
                is_fault = true;
                let place = places[0].0;
                self.order.add(format!(
                    "partition {partition}: the record that was acknowledged{at} is at {place}"
                ));
            }
        }
        is_fault
    }

    fn nothing_is_there_twice(&mut self, partition: Partition, contents: &Contents) -> bool {
        let mut twice: Vec<_> = contents
            .places
            .values()
            .filter(|places| places.len() > 1)
            .map(|places| (places[0].0, places[1].0))
            .collect();
        twice.sort_unstable();
        for (first, second) in &twice {
            self.duplicates.add(format!(
                "partition {partition}: the record at offset {first} is at offset {second} a \
                 second time"
            ));
        }
        // For every reader, the second copy is an orphan without consequences.
        false
    }

    fn order_is_kept(
        &mut self,
        partition: Partition,
        contents: &Contents,
        acknowledged: &[&Acknowledged],
    ) -> bool {
        let told: HashSet<(WriterId, Position)> = acknowledged
            .iter()
            .filter_map(|one| Some((one.key.1, one.key.2?)))
            .collect();
        let mut last: HashMap<WriterId, (Position, Offset)> = HashMap::new();
        let mut met: HashSet<(WriterId, Position)> = HashSet::new();
        let mut is_fault = false;
        for &(writer, position, offset) in &contents.order {
            if !met.insert((writer, position)) {
                continue;
            }
            if let Some(&(before, at)) = last.get(&writer) {
                if position < before {
                    is_fault = true;
                    self.order.add(format!(
                        "partition {partition}: position {position} at offset {offset} comes \
                         after position {before} at offset {at}"
                    ));
                    continue;
                }
                let missing = Position(before.0 + 1);
                let is_late = contents
                    .places
                    .iter()
                    .any(|(key, _)| key.1 == writer && key.2 == Some(missing));
                if missing < position && !told.contains(&(writer, missing)) && !is_late {
                    is_fault = true;
                    self.order.add(format!(
                        "partition {partition}: position {position} at offset {offset} was \
                         written, but position {missing} was not"
                    ));
                }
            }
            last.insert(writer, (position, offset));
        }
        is_fault
    }

    /// Compares what three readers saw.
    fn compare(
        &mut self,
        partition: Partition,
        read: &[(Offset, RecordHash)],
        seen: Option<&Vec<(Offset, RecordHash)>>,
        followed: &Followed,
        contents: &Contents,
    ) {
        let seen = seen.map_or(&[][..], Vec::as_slice);
        let seen =
            &seen[..seen.len().min(seen.partition_point(|(offset, _)| {
                read.last().is_some_and(|(last, _)| offset <= last)
            }))];
        if read != seen {
            let pairs = read.iter().zip(seen);
            let same = pairs.take_while(|(one, other)| one == other).count();
            let place = match read.get(same).or(seen.get(same)) {
                Some((offset, _)) => format!("from offset {offset} on"),
                None => "at the end".to_owned(),
            };
            self.readers.add(format!(
                "partition {partition}: two readers saw different records {place} ({} and {})",
                read.len(),
                seen.len()
            ));
            return;
        }
        if contents.stopped.is_some() {
            return;
        }
        if let Some(stop) = &followed.stopped {
            if partition_of(stop) == partition {
                self.resume.add(stop.to_string());
            }
            // The follower ended there, in all partitions.
            return;
        }
        let count = followed.commits.get(&partition).copied().unwrap_or(0);
        if count != contents.accepted.len() as u64 {
            self.resume.add(format!(
                "partition {partition}: the follower took {count} commits, and {} count",
                contents.accepted.len()
            ));
        }
    }
}

fn partition_of(stop: &Stop) -> Partition {
    match stop {
        Stop::Damage(damage) => damage.partition,
        Stop::NewerFormat { partition, .. } | Stop::NewerEvent { partition, .. } => *partition,
        Stop::Gone(_) => Partition(0),
    }
}
