//! Drives followers over a log: reads, proves, and hands out what may become durable.
//!
//! Deliberately absent: the rule and the state of a follower (`follower`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Batch, Follower, ProofNeed};
use crate::chain::Stop;
use crate::checkpoint::Checkpoint;
use crate::damage::Damage;
use crate::ids::{Offset, Partition};
use crate::log::{EventLog, LogError, LogReader};

/// The least time between two proofs that only foreign records ask for.
const FOREIGN_PROOF_EVERY: Duration = Duration::from_secs(1);

/// Why a subscription ended or paused.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// The reader must not go on.
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
    log: Arc<dyn EventLog>,
    reader: Option<Box<dyn LogReader>>,
    followers: BTreeMap<Partition, Follower>,
    last_proof: BTreeMap<Partition, Instant>,
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
        Self {
            log,
            reader: None,
            followers,
            last_proof: BTreeMap::new(),
        }
    }

    /// Waits up to `wait` for records and returns what may become durable, at most one batch a
    /// partition. Every batch must be made durable and confirmed with [`Self::made_durable`]
    /// before the next call.
    ///
    /// # Errors
    /// [`SubscriptionError::Log`] may pass: ask again. [`SubscriptionError::Stop`] does not.
    pub async fn next(&mut self, wait: Duration) -> Result<Vec<Batch>, SubscriptionError> {
        if let Err(error) = self.read(wait).await {
            self.reader = None;
            self.followers.values_mut().for_each(Follower::interrupted);
            return Err(error);
        }
        self.prove_where_due().await?;
        Ok(self
            .followers
            .values_mut()
            .filter_map(Follower::batch)
            .collect())
    }

    /// Notes that a batch of `partition` became durable up to `checkpoint`.
    pub fn made_durable(&mut self, partition: Partition, checkpoint: Checkpoint) {
        if let Some(follower) = self.followers.get_mut(&partition) {
            follower.made_durable(checkpoint);
        }
    }

    /// The followers, by partition.
    pub fn followers(&self) -> impl Iterator<Item = (&Partition, &Follower)> {
        self.followers.iter()
    }

    async fn read(&mut self, wait: Duration) -> Result<(), SubscriptionError> {
        if self.reader.is_none() {
            // A checkpoint that cannot be proven must not be read on from.
            self.prove_where_due().await?;
            self.reader = Some(open(&*self.log, &self.followers).await?);
        }
        let wait = wait.min(self.until_next_proof());
        let reader = self.reader.as_mut().expect("it was opened above");
        for chunk in reader.next(wait).await? {
            let Some(follower) = self.followers.get_mut(&chunk.partition) else {
                continue;
            };
            for record in chunk.records {
                follower.take(record)?;
            }
            follower.set_at_end(chunk.at_end);
        }
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
        for (&partition, follower) in &mut self.followers {
            let recently = self.last_proof.get(&partition);
            let due = match follower.proof_need() {
                ProofNeed::None => false,
                ProofNeed::Due => true,
                ProofNeed::Foreign => recently.is_none_or(|at| at.elapsed() >= FOREIGN_PROOF_EVERY),
            };
            if due {
                prove(&*self.log, partition, follower).await?;
                self.last_proof.insert(partition, Instant::now());
            }
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
