//! Drives followers over a log: reads, proves, and hands out what may become durable.
//!
//! A separate task reads, verifies and decodes ahead while the caller makes the last batches
//! durable. Invariant: a needed proof is made after all records of its batch were read.
//! Deliberately absent: the acceptance rule and the state of a follower (`follower`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use position::{Offset, Partition};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{Batch, Follower, ProofNeed};
use crate::chain::Stop;
use crate::checkpoint::Checkpoint;
use crate::log::{EventLog, LogError, LogReader};

/// The least time between two proofs if only foreign records ask for them.
const FOREIGN_PROOF_EVERY: Duration = Duration::from_secs(1);

/// How many commits, and how many bytes of commits, are read ahead at most; one read may exceed
/// these limits. What is read ahead becomes one transaction of a consumer that is behind. The round
/// trips of a transaction take longer than two thousand rows.
const AHEAD_COMMITS_MAX: usize = 8_000;
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// How long a read ahead waits for records before the task checks for a request.
const AHEAD_WAIT: Duration = Duration::from_millis(20);
/// How long the task waits for a request after a read without records, before it reads again.
const AHEAD_PAUSE: Duration = Duration::from_millis(5);

/// Why a subscription ended or paused.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// One partition is read no further. This is reported once; the others go on with the next call.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// The log did not answer. The same subscription can be asked again; it proves first.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A named follower of some partitions of a log.
pub struct Subscription {
    asks: mpsc::Sender<Ask>,
    /// The one task that drives. It ends when the subscription is dropped.
    task: JoinSet<()>,
}

/// A request for batches that may become durable.
struct Ask {
    wait: Duration,
    reply: oneshot::Sender<Result<Vec<Batch>, SubscriptionError>>,
}

impl Subscription {
    /// Follows `partitions`, each from its durable checkpoint or from its first record. The first
    /// request starts the reading.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, partitions: Vec<(Partition, Option<Checkpoint>)>) -> Self {
        let followers = partitions
            .into_iter()
            .map(|(partition, checkpoint)| {
                let follower = Follower::new(partition, checkpoint);
                (partition, follower.passing(log.acknowledged()))
            })
            .collect();
        let drive = Drive {
            log,
            reader: None,
            followers,
            last_proof: BTreeMap::new(),
            are_recalled: false,
            unreported: VecDeque::new(),
            last_stop: None,
        };
        let (asks, asked) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(drive.run(asked));
        Self { asks, task }
    }

    /// Waits up to `wait` for records and returns what may become durable: at most one batch for
    /// each partition. Each batch continues the batch before it. If you cannot make a batch
    /// durable, or if you cancel a call, discard the subscription and start a new one from the
    /// durable checkpoints.
    ///
    /// # Errors
    /// [`SubscriptionError::Log`] may pass: call again. [`SubscriptionError::Stop`] does not pass.
    ///
    /// # Panics
    /// If the driving task panicked.
    pub async fn next(&mut self, wait: Duration) -> Result<Vec<Batch>, SubscriptionError> {
        let (reply, answer) = oneshot::channel();
        if self.asks.send(Ask { wait, reply }).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        match self.task.join_next().await {
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => Err(LogError::Closed.into()),
        }
    }
}

struct Drive {
    log: Arc<dyn EventLog>,
    reader: Option<Box<dyn LogReader>>,
    followers: BTreeMap<Partition, Follower>,
    last_proof: BTreeMap<Partition, Instant>,
    /// Whether the streams that earlier acknowledged places froze were looked up.
    are_recalled: bool,
    /// Why partitions were stopped, and an error of reading ahead; not yet reported.
    unreported: VecDeque<SubscriptionError>,
    /// Why the last partition was stopped. Once no partition is left, every call reports this.
    last_stop: Option<Stop>,
}

impl Drive {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut next = asks.recv().await;
        while let Some(ask) = next {
            if ask.reply.send(self.hand_out(ask.wait).await).is_err() {
                return;
            }
            next = self.read_ahead(&mut asks).await;
        }
    }

    async fn hand_out(&mut self, wait: Duration) -> Result<Vec<Batch>, SubscriptionError> {
        if let Some(error) = self.unreported.pop_front() {
            return Err(error);
        }
        if !self.is_far_ahead() {
            let wait = match self.has_some() {
                true => Duration::ZERO,
                false => wait,
            };
            self.read(wait).await?;
        }
        self.prove_where_due().await?;
        if let Some(error) = self.unreported.pop_front() {
            return Err(error);
        }
        if let (true, Some(stop)) = (self.followers.is_empty(), &self.last_stop) {
            return Err(stop.clone().into());
        }
        Ok(self
            .followers
            .values_mut()
            .filter_map(Follower::batch)
            .collect())
    }

    /// Reads ahead, up to the limits, until the next request. `None` if no more requests can come.
    async fn read_ahead(&mut self, asks: &mut mpsc::Receiver<Ask>) -> Option<Ask> {
        while self.unreported.is_empty() && !self.is_far_ahead() {
            let wait = match self.followers.values().any(|one| one.waiting() > 0) {
                true => Duration::ZERO,
                false => AHEAD_WAIT,
            };
            let pause = match self.read(wait).await {
                Ok(0) => AHEAD_PAUSE,
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    self.unreported.push_back(error);
                    break;
                }
            };
            if let Ok(ask) = tokio::time::timeout(pause, asks.recv()).await {
                return ask;
            }
        }
        asks.recv().await
    }

    /// Whether there are records that may be handed out, possibly after a proof.
    fn has_some(&self) -> bool {
        let mut followers = self.followers.values();
        followers.any(|one| one.has_read() && one.proof_need() != ProofNeed::Foreign)
    }

    fn is_far_ahead(&self) -> bool {
        let followers = || self.followers.values();
        followers().map(Follower::waiting).sum::<usize>() >= AHEAD_COMMITS_MAX
            || followers().map(Follower::waiting_bytes).sum::<usize>() >= AHEAD_BYTES_MAX
    }

    /// Reads once and counts the records. After an error, the next call opens a new reader.
    async fn read(&mut self, wait: Duration) -> Result<usize, SubscriptionError> {
        let read = self.try_read(wait).await;
        if read.is_err() {
            self.reader = None;
            self.followers.values_mut().for_each(Follower::interrupted);
        }
        read
    }

    async fn try_read(&mut self, wait: Duration) -> Result<usize, SubscriptionError> {
        if self.reader.is_none() {
            self.recall().await?;
            // Do not read on from a checkpoint that cannot be proven.
            self.prove_where_due().await?;
            if self.followers.is_empty() {
                // Every partition is stopped.
                tokio::time::sleep(wait).await;
                return Ok(0);
            }
            self.reader = Some(open(&*self.log, &self.followers).await?);
        }
        let wait = wait.min(self.until_next_proof());
        let reader = self.reader.as_mut().expect("it was opened above");
        let mut count = 0;
        for chunk in reader.next(wait).await? {
            let Some(follower) = self.followers.get_mut(&chunk.partition) else {
                continue;
            };
            count += chunk.records.len();
            let mut records = chunk.records.into_iter();
            if let Some(stop) = records.find_map(|record| follower.take(record).err()) {
                self.stop(chunk.partition, stop);
            }
        }
        Ok(count)
    }

    /// Stops reading one partition. The others are read on with a new reader.
    fn stop(&mut self, partition: Partition, stop: Stop) {
        self.followers.remove(&partition);
        self.last_stop = Some(stop.clone());
        self.unreported.push_back(stop.into());
        self.reader = None;
    }

    /// Looks once at the acknowledged places before the checkpoints. The streams that these places
    /// froze stay frozen after the checkpoints, too.
    async fn recall(&mut self) -> Result<(), SubscriptionError> {
        if self.are_recalled {
            return Ok(());
        }
        for (&partition, follower) in &mut self.followers {
            let places = follower.places_to_recall();
            if places.is_empty() {
                continue;
            }
            for record in self.log.read_at(partition, &places).await?.iter().flatten() {
                follower.recall(record);
            }
        }
        self.are_recalled = true;
        Ok(())
    }

    /// How long batches that only foreign records hold back still have to wait.
    fn until_next_proof(&self) -> Duration {
        let followers = self.followers.iter();
        let held_back = followers.filter(|(_, one)| one.proof_need() == ProofNeed::Foreign);
        let waits = held_back.map(|(partition, _)| {
            let last = self.last_proof.get(partition);
            let since = last.map_or(Duration::MAX, Instant::elapsed);
            FOREIGN_PROOF_EVERY.saturating_sub(since)
        });
        waits.min().unwrap_or(Duration::MAX)
    }

    async fn prove_where_due(&mut self) -> Result<(), SubscriptionError> {
        let mut stops = Vec::new();
        for (&partition, follower) in &mut self.followers {
            let recently = self.last_proof.get(&partition);
            let due = match follower.proof_need() {
                ProofNeed::None => false,
                ProofNeed::Due => true,
                ProofNeed::Foreign => recently.is_none_or(|at| at.elapsed() >= FOREIGN_PROOF_EVERY),
            };
            if due {
                match prove(&*self.log, partition, follower).await {
                    Err(SubscriptionError::Stop(stop)) => stops.push((partition, stop)),
                    proven => proven?,
                }
                self.last_proof.insert(partition, Instant::now());
            }
        }
        for (partition, stop) in stops {
            self.stop(partition, stop);
        }
        Ok(())
    }
}

async fn open(
    log: &dyn EventLog,
    followers: &BTreeMap<Partition, Follower>,
) -> Result<Box<dyn LogReader>, LogError> {
    let mut from = Vec::with_capacity(followers.len());
    for (&partition, follower) in followers {
        let next = match follower.next_offset() {
            // The first offset need not be 0: records that the topic held before may be deleted.
            Offset(0) => log.bounds(partition).await?.first,
            next => next,
        };
        from.push((partition, next));
    }
    log.follow(&from)
}

pub(super) async fn prove(
    log: &dyn EventLog,
    partition: Partition,
    follower: &mut Follower,
) -> Result<(), SubscriptionError> {
    while let Some(offset) = follower.places_to_prove().first().copied() {
        let (end, found) = log.look(partition, offset).await?;
        follower.prove(end, found.as_ref()).map_err(Stop::from)?;
    }
    Ok(())
}
