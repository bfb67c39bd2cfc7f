//! Readers that follow the log during the trial: one notes every record's offset and hash; the
//! other folds, is stopped, and continues from its checkpoint.
//!
//! Invariant: each reader has its own clients. Deliberately absent: the reader at the end
//! (`judge`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::chain::Stop;
use event_log::checkpoint::Checkpoint;
use event_log::log::{EventLog, LogError};
use event_log::record::record_hash;
use event_log::subscription::{Subscription, SubscriptionError};
use position::{Offset, Partition, RecordHash};
use tokio::sync::watch;

use super::claimant::explained;
use super::trial::{Phase, Trial};

/// How long a reader waits for records before it checks whether it has seen all.
const WAIT: Duration = Duration::from_millis(100);
/// How long readers may take to reach the end once nobody writes.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
/// How many times the follower is stopped and continues.
const RESUMES: u64 = 6;

/// The offsets up to which all readers read, once nobody writes.
pub(super) type Ends = watch::Receiver<Option<BTreeMap<Partition, Offset>>>;

/// The records that a reader saw, by partition, in order of offset.
pub(super) type Seen = BTreeMap<Partition, Vec<(Offset, RecordHash)>>;

/// How long a reader goes on: without end, or until it has seen everything.
struct Goal {
    ends: Ends,
    deadline: Option<Instant>,
}

impl Goal {
    fn new(ends: Ends) -> Self {
        Self {
            ends,
            deadline: None,
        }
    }

    fn is_reached(&mut self, next: impl Fn(Partition) -> Offset) -> bool {
        if self.ends.has_changed().is_err() {
            // The trial was given up.
            return true;
        }
        let ends = self.ends.borrow();
        let Some(ends) = ends.as_ref() else {
            return false;
        };
        let deadline = self
            .deadline
            .get_or_insert_with(|| Instant::now() + CATCH_UP_WITHIN);
        Instant::now() >= *deadline || ends.iter().all(|(&partition, &end)| next(partition) >= end)
    }
}

fn behind(seen: &Seen, partition: Partition, first: Offset) -> Offset {
    let last = seen.get(&partition).and_then(|seen| seen.last());
    last.map_or(first, |(offset, _)| offset.next())
}

/// Notes the offset and hash of every record.
pub(super) async fn watch_all(
    trial: Arc<Trial>,
    first: BTreeMap<Partition, Offset>,
    ends: Ends,
) -> Seen {
    let mut goal = Goal::new(ends);
    let mut seen = Seen::new();
    let mut reader = None;
    let next = |seen: &Seen, partition| {
        let first = first.get(&partition).copied().unwrap_or(Offset(0));
        behind(seen, partition, first)
    };
    while !goal.is_reached(|partition| next(&seen, partition)) {
        let opened = match reader.take() {
            Some(reader) => Ok(reader),
            None => {
                let from: Vec<_> = first.keys().map(|&p| (p, next(&seen, p))).collect();
                trial.log.follow(&from)
            }
        };
        let read = match opened {
            Ok(mut opened) => {
                let read = opened.next(WAIT).await;
                reader = read.is_ok().then_some(opened);
                read
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(chunks) => {
                for chunk in chunks {
                    let seen = seen.entry(chunk.partition).or_default();
                    let records = chunk.records.iter();
                    seen.extend(records.map(|record| (record.offset, record_hash(record))));
                }
            }
            Err(_) => trial.back_off().await,
        }
    }
    seen
}

/// The result of the follower.
#[derive(Default)]
pub(super) struct Followed {
    /// How many times it was stopped and continued.
    pub(super) resumes: u64,
    /// How many times the log did not answer it.
    pub(super) interruptions: u64,
    /// Accepted commits by partition.
    pub(super) commits: BTreeMap<Partition, u64>,
    /// The last checkpoints.
    pub(super) checkpoints: BTreeMap<Partition, Checkpoint>,
    /// Why the follower went no further.
    pub(super) stopped: Option<Stop>,
}

/// Follows as a projection does: folds, proves, keeps a checkpoint, and is stopped from time to
/// time.
pub(super) async fn follow(
    trial: Arc<Trial>,
    partitions: Vec<Partition>,
    records: u64,
    ends: Ends,
) -> Followed {
    let mut goal = Goal::new(ends);
    let mut followed = Followed::default();
    let mut subscription = subscribe(&trial, &partitions, &followed);
    let mut stop_at = records / (RESUMES + 1);
    loop {
        let is_reached = goal.is_reached(|partition| {
            let checkpoint = followed.checkpoints.get(&partition);
            checkpoint.map_or(Offset(0), |checkpoint| checkpoint.offset.next())
        });
        if is_reached {
            return followed;
        }
        match subscription.next(WAIT).await {
            Ok(batches) => {
                for batch in batches {
                    let count = followed.commits.entry(batch.partition).or_default();
                    *count += batch.commits.len() as u64;
                    followed.checkpoints.insert(batch.partition, batch.after);
                }
            }
            Err(SubscriptionError::Log(error)) => {
                followed.interruptions += 1;
                tracing::debug!(error = explained(&error), "the follower was interrupted");
                trial.back_off().await;
            }
            Err(SubscriptionError::Stop(stop)) => {
                followed.stopped = Some(stop);
                return followed;
            }
        }
        let is_due = trial.acknowledged() >= stop_at && trial.phase() == Phase::Working;
        if is_due && followed.checkpoints.len() == partitions.len() {
            stop_at += records / (RESUMES + 1);
            followed.resumes += 1;
            subscription = subscribe(&trial, &partitions, &followed);
        }
    }
}

fn subscribe(trial: &Trial, partitions: &[Partition], followed: &Followed) -> Subscription {
    let from = partitions.iter();
    let from = from.map(|partition| (*partition, followed.checkpoints.get(partition).cloned()));
    Subscription::new(Arc::clone(&trial.log), from.collect())
}

/// The first offsets and the ends of all partitions.
pub(super) async fn bounds(
    log: &dyn EventLog,
) -> Result<(BTreeMap<Partition, Offset>, BTreeMap<Partition, Offset>), LogError> {
    let (mut first, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for partition in (0..log.partition_count()).map(Partition) {
        let deadline = Instant::now() + CATCH_UP_WITHIN;
        let bounds = super::claimant::retried(deadline, || log.bounds(partition)).await?;
        first.insert(partition, bounds.first);
        ends.insert(partition, bounds.end);
    }
    Ok((first, ends))
}
