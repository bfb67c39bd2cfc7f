//! The end of the log, read once for all who follow it.
//!
//! Invariants: the newest commits are kept in a ring of bounded size, proven and in each partition's
//! order; whoever has everything before the ring takes up from there, and whoever falls behind it reads
//! the log by itself. Reading begins with the first follower and ends a while after the last one.
//! Deliberately absent: which commits a follower takes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use event_log::bookmark::mark_of;
use event_log::chain::Stop;
use event_log::checkpoint::Checkpoint;
use event_log::commit::Commit;
use event_log::log::EventLog;
use event_log::subscription::{Placed, Subscription, SubscriptionError};
use kernel::Timestamp;
use kernel::registry::Registry;
use position::{Mark, Offset, Partition};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::items::{Item, items_of};
use crate::parameters::Shape;

/// The most commits, and the most bytes of their records, in the ring. With what is made of them it has
/// some three times as much.
const RING_COMMITS_MAX: usize = 8_192;
const RING_BYTES_MAX: usize = 8 << 20;
/// How long one request to the subscription waits for records.
const WAIT: Duration = Duration::from_millis(500);
/// How long to wait before a log that did not answer is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// For how long the end is read on when nobody follows it.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A commit that counts, with what a follower needs of it.
pub(super) struct TailCommit {
    pub(super) partition: Partition,
    pub(super) mark: Mark,
    pub(super) latest_recorded_at: Timestamp,
    pub(super) commit: Commit,
    /// Its items in the recorded shape, made once for all followers.
    items: OnceLock<Vec<Item>>,
    bytes: usize,
}

impl TailCommit {
    /// Absent if the record is no commit, which an accepted commit always is.
    pub(super) fn of(placed: Placed) -> Option<Self> {
        Some(Self {
            partition: placed.partition,
            mark: mark_of(&placed.record)?,
            latest_recorded_at: placed.at,
            bytes: placed.record.size(),
            commit: placed.commit,
            items: OnceLock::new(),
        })
    }

    /// Its items in the recorded shape.
    pub(super) fn items(&self, registry: &Registry) -> &[Item] {
        self.items.get_or_init(|| {
            let (partition, shape) = (self.partition, Shape::Recorded);
            // Only another shape can fail.
            items_of(&self.commit, partition, self.mark, shape, registry).unwrap_or_default()
        })
    }
}

/// Reads the end of the log as long as somebody follows it.
pub(super) struct Tail {
    log: Arc<dyn EventLog>,
    run: Mutex<Option<Arc<Run>>>,
}

/// The reading of the end, from its start until nobody follows it any more or the log stops it.
struct Run {
    ring: Mutex<Ring>,
    /// Changes with each batch.
    changed: watch::Sender<u64>,
}

struct Ring {
    /// The number of the first commit in the ring, counted from the start of the reading.
    first: u64,
    commits: VecDeque<Arc<TailCommit>>,
    bytes: usize,
    /// The offset from which on the ring has all commits, by partition.
    from: BTreeMap<Partition, Offset>,
    ended: Option<Ended>,
}

/// Why the end is not read any further.
enum Ended {
    /// Nobody followed it.
    Idle,
    /// No reader goes on.
    Stop(Stop),
}

/// A follower's place at the end of the log.
pub(super) struct Seat {
    run: Arc<Run>,
    next: u64,
    changed: watch::Receiver<u64>,
    /// What the follower has beyond the beginning of the ring.
    has: BTreeMap<Partition, Offset>,
}

/// What a follower at the end gets.
pub(super) enum Taken {
    /// Commits, in each partition's order.
    Commits(Vec<Arc<TailCommit>>),
    /// Nothing yet.
    Nothing,
    /// The ring has gone on without it: it must read the log.
    Behind,
    /// No reader goes on.
    Stopped(Stop),
}

impl Tail {
    pub(super) fn new(log: &Arc<dyn EventLog>) -> Self {
        Self {
            log: Arc::clone(log),
            run: Mutex::default(),
        }
    }

    /// A place for a follower that has read up to `next` in each partition, and these checkpoints;
    /// absent if it must read more of the log first. If nobody reads the end, it is read from these
    /// checkpoints on.
    pub(super) fn join(
        &self,
        next: &BTreeMap<Partition, Offset>,
        checkpoints: &BTreeMap<Partition, Checkpoint>,
    ) -> Option<Seat> {
        let mut running = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |run: &Arc<Run>| run.ring().ended.is_some();
        let run = match running.as_ref().filter(|run| !is_over(run)) {
            Some(run) => Arc::clone(run),
            None => {
                let from = next.iter().map(|(&partition, _)| {
                    let checkpoint = checkpoints.get(&partition);
                    let from = checkpoint.map_or(Offset(0), |checkpoint| checkpoint.offset.next());
                    (partition, from)
                });
                let run = Arc::new(Run {
                    ring: Mutex::new(Ring {
                        first: 0,
                        commits: VecDeque::new(),
                        bytes: 0,
                        from: from.collect(),
                        ended: None,
                    }),
                    changed: watch::Sender::new(0),
                });
                let partitions = next.keys();
                let partitions = partitions
                    .map(|p| (*p, checkpoints.get(p).cloned()))
                    .collect();
                let commits = Subscription::new(Arc::clone(&self.log), partitions);
                tokio::spawn(Arc::clone(&run).read(commits));
                *running = Some(Arc::clone(&run));
                run
            }
        };
        drop(running);
        let ring = run.ring();
        let has_all = ring
            .from
            .iter()
            .all(|(partition, from)| next.get(partition).copied().unwrap_or_default() >= *from);
        if !has_all {
            return None;
        }
        let first = ring.first;
        drop(ring);
        Some(Seat {
            changed: run.changed.subscribe(),
            next: first,
            has: next.clone(),
            run,
        })
    }
}

impl Run {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self: Arc<Self>, mut commits: Subscription) {
        let mut followed_at = Instant::now();
        loop {
            if self.changed.receiver_count() > 0 {
                followed_at = Instant::now();
            } else if followed_at.elapsed() >= IDLE_MAX {
                // Somebody may join just now: then it finds the end, and begins anew.
                self.ring().ended = Some(Ended::Idle);
                self.changed.send_modify(|count| *count += 1);
                return;
            }
            match commits.next(WAIT).await {
                Ok(batches) => {
                    let placed = batches.into_iter().flat_map(|batch| batch.commits);
                    self.put(placed.filter_map(TailCommit::of));
                }
                Err(SubscriptionError::Log(error)) if error.is_final() => {
                    return self.end(Stop::Gone(error.to_string()));
                }
                Err(SubscriptionError::Log(error)) => {
                    tracing::debug!(%error, "the end of the log cannot be read; trying again");
                    sleep(RETRY_AFTER).await;
                }
                Err(SubscriptionError::Stop(stop)) => return self.end(stop),
            }
        }
    }

    fn end(&self, stop: Stop) {
        self.ring().ended = Some(Ended::Stop(stop));
        self.changed.send_modify(|count| *count += 1);
    }

    fn put(&self, commits: impl Iterator<Item = TailCommit>) {
        let mut ring = self.ring();
        let mut has_come = false;
        for commit in commits {
            has_come = true;
            ring.bytes += commit.bytes;
            ring.commits.push_back(Arc::new(commit));
        }
        while ring.commits.len() > RING_COMMITS_MAX || ring.bytes > RING_BYTES_MAX {
            let Some(oldest) = ring.commits.pop_front() else {
                break;
            };
            ring.first += 1;
            ring.bytes -= oldest.bytes;
            ring.from
                .insert(oldest.partition, oldest.mark.offset.next());
        }
        drop(ring);
        if has_come {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

impl Seat {
    /// The next commits, at most `max`.
    pub(super) fn take(&mut self, max: usize) -> Taken {
        self.changed.mark_unchanged();
        let ring = self.run.ring();
        let Some(from) = self.next.checked_sub(ring.first) else {
            return Taken::Behind;
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let from = from.min(ring.commits.len());
        let commits: Vec<_> = ring.commits.range(from..).take(max).cloned().collect();
        if commits.is_empty() {
            return match &ring.ended {
                Some(Ended::Stop(stop)) => Taken::Stopped(stop.clone()),
                Some(Ended::Idle) => Taken::Behind,
                None => Taken::Nothing,
            };
        }
        drop(ring);
        self.next += commits.len() as u64;
        let has = &self.has;
        let is_new = |commit: &Arc<TailCommit>| {
            has.get(&commit.partition)
                .is_none_or(|next| commit.mark.offset >= *next)
        };
        Taken::Commits(commits.into_iter().filter(is_new).collect())
    }

    /// Waits until there may be more.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as this seat.
        let _ = self.changed.changed().await;
    }

    /// How many commits of the ring were not taken.
    pub(super) fn behind(&self) -> u64 {
        let ring = self.run.ring();
        (ring.first + ring.commits.len() as u64).saturating_sub(self.next)
    }
}
