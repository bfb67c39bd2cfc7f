//! Drives followers over a log: reads, proves, and hands out what may become durable.
//!
//! A task of its own reads, verifies and decodes on while what it handed out last is made durable.
//! Invariant: a proof that is needed is made behind everything that a batch holds was read.
//! Deliberately absent: the rule and the state of a follower (`follower`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use position::{Offset, Partition};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{Batch, Follower, ProofNeed};
use crate::chain::Stop;
use crate::checkpoint::Checkpoint;
use crate::damage::Damage;
use crate::log::{EventLog, LogError, LogReader};

/// The least time between two proofs that only foreign records ask for.
const FOREIGN_PROOF_EVERY: Duration = Duration::from_secs(1);

/// How many commits are read ahead at most, and how many bytes of them, give or take one reading. What is
/// read ahead becomes one transaction of whoever is behind, and a transaction's round trips take longer
/// than two thousand rows.
const AHEAD_COMMITS_MAX: usize = 8_000;
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// How long reading ahead waits for records before it looks whether somebody asks.
const AHEAD_WAIT: Duration = Duration::from_millis(20);
/// How long it waits for that, where nothing came, before it looks for more.
const AHEAD_PAUSE: Duration = Duration::from_millis(5);

/// Why a subscription ended or paused.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// One partition must not be read on. It is told once; the others go on, if asked again.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// The log did not answer; the same subscription may be asked again, and proves first.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<Damage> for SubscriptionError {
    fn from(damage: Damage) -> Self {
        Self::Stop(Stop::Damage(damage))
    }
}

/// A named follower of some partitions of a log.
pub struct Subscription {
    /// What is to be driven, until somebody asks for the first time.
    idle: Option<Drive>,
    asks: mpsc::Sender<Ask>,
    asked: Option<mpsc::Receiver<Ask>>,
    /// The one task that drives; it ends with this.
    task: JoinSet<()>,
}

/// The wish for what may become durable.
struct Ask {
    wait: Duration,
    reply: oneshot::Sender<Result<Vec<Batch>, SubscriptionError>>,
}

impl Subscription {
    /// Follows `partitions`, each from its durable checkpoint or from its first record.
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
            stopped: VecDeque::new(),
            last_stop: None,
            failed: None,
        };
        let (asks, asked) = mpsc::channel(1);
        Self {
            idle: Some(drive),
            asks,
            asked: Some(asked),
            task: JoinSet::new(),
        }
    }

    /// Waits up to `wait` for records and returns what may become durable, at most one batch a
    /// partition, each going on where the one before it ended. Whoever cannot make one durable, or
    /// gives a call up, is to throw the subscription away and go on from the checkpoints that are.
    ///
    /// # Errors
    /// [`SubscriptionError::Log`] may pass: ask again. [`SubscriptionError::Stop`] does not.
    ///
    /// # Panics
    /// If the task that drives did.
    pub async fn next(&mut self, wait: Duration) -> Result<Vec<Batch>, SubscriptionError> {
        if let (Some(drive), Some(asked)) = (self.idle.take(), self.asked.take()) {
            self.task.spawn(drive.run(asked));
        }
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

/// The log, whoever reads it, and the followers that it is read for.
struct Drive {
    log: Arc<dyn EventLog>,
    reader: Option<Box<dyn LogReader>>,
    followers: BTreeMap<Partition, Follower>,
    last_proof: BTreeMap<Partition, Instant>,
    /// Whether it was looked which streams acknowledged places froze before.
    are_recalled: bool,
    /// Why partitions are not read on, until somebody asks.
    stopped: VecDeque<Stop>,
    /// Why the last partition was stopped: told again and again once none is read on.
    last_stop: Option<Stop>,
    /// What reading ahead met, until somebody asks.
    failed: Option<SubscriptionError>,
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
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !self.is_far_ahead() && self.stopped.is_empty() {
            let wait = match self.has_some() {
                true => Duration::ZERO,
                false => wait,
            };
            self.read(wait).await?;
        }
        self.prove_where_due().await?;
        if let Some(stop) = self.stopped.pop_front() {
            return Err(stop.into());
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

    /// Reads on until somebody asks, as far as it may; nothing once nobody can ask any more.
    async fn read_ahead(&mut self, asks: &mut mpsc::Receiver<Ask>) -> Option<Ask> {
        while self.failed.is_none() && self.stopped.is_empty() && !self.is_far_ahead() {
            let wait = match self.followers.values().any(|one| one.waiting() > 0) {
                true => Duration::ZERO,
                false => AHEAD_WAIT,
            };
            let pause = match self.read(wait).await {
                Ok(0) => AHEAD_PAUSE,
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            };
            if let Ok(ask) = tokio::time::timeout(pause, asks.recv()).await {
                return ask;
            }
        }
        asks.recv().await
    }

    /// Whether something was read that may be handed out, perhaps after a proof.
    fn has_some(&self) -> bool {
        let has_some = |follower: &Follower| {
            follower.has_read() && follower.proof_need() != ProofNeed::Foreign
        };
        self.followers.values().any(has_some)
    }

    fn is_far_ahead(&self) -> bool {
        let followers = || self.followers.values();
        followers().map(Follower::waiting).sum::<usize>() >= AHEAD_COMMITS_MAX
            || followers().map(Follower::waiting_bytes).sum::<usize>() >= AHEAD_BYTES_MAX
    }

    /// Reads once, and says how many records came. After an error the reader is opened anew.
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
            // A checkpoint that cannot be proven must not be read on from.
            self.prove_where_due().await?;
            if self.followers.is_empty() {
                // Everything was stopped.
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
            follower.set_at_end(chunk.at_end);
            let stop = chunk
                .records
                .into_iter()
                .find_map(|record| follower.take(record).err());
            if let Some(stop) = stop {
                self.stop(chunk.partition, stop);
            }
        }
        Ok(count)
    }

    /// Reads one partition on no more, and all others.
    fn stop(&mut self, partition: Partition, stop: Stop) {
        self.followers.remove(&partition);
        self.last_stop = Some(stop.clone());
        self.stopped.push_back(stop);
        self.reader = None;
    }

    /// Looks once at the acknowledged places before those that are gone on from: the streams that they
    /// froze are left out behind them, too.
    async fn recall(&mut self) -> Result<(), SubscriptionError> {
        if self.are_recalled {
            return Ok(());
        }
        for (&partition, follower) in &mut self.followers {
            let places = follower.places_to_recall();
            if places.is_empty() {
                continue;
            }
            let found = self.log.read_at(partition, &places).await?;
            found
                .iter()
                .flatten()
                .for_each(|record| follower.recall(record));
        }
        self.are_recalled = true;
        Ok(())
    }

    /// How long what is held back by foreign records alone still has to wait.
    fn until_next_proof(&self) -> Duration {
        let held_back = self
            .followers
            .iter()
            .filter(|(_, follower)| follower.proof_need() == ProofNeed::Foreign);
        let waits = held_back.map(|(partition, _)| {
            let last = self.last_proof.get(partition);
            last.map_or(Duration::ZERO, |at| {
                FOREIGN_PROOF_EVERY.saturating_sub(at.elapsed())
            })
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
        let next = follower.next_offset();
        // The first offset need not be 0 in a topic that had another life.
        let next = if next == Offset(0) {
            log.bounds(partition).await?.first
        } else {
            next
        };
        from.push((partition, next));
    }
    log.follow(&from)
}

async fn prove(
    log: &dyn EventLog,
    partition: Partition,
    follower: &mut Follower,
) -> Result<(), SubscriptionError> {
    while let Some(offset) = follower.places_to_prove().first().copied() {
        let (end, found) = log.look(partition, offset).await?;
        follower.prove(end, found.as_ref())?;
    }
    Ok(())
}
