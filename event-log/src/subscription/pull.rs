//! A reader of one partition that reads only when it is asked, one piece of the log at a time.
//!
//! Invariant: as in a [`Subscription`](super::Subscription), nothing is handed out before the proofs
//! that it needs. It keeps no client and no piece of the log between two calls, so that many readers
//! cost little. Deliberately absent: waiting for new records (`driver`).

use std::sync::Arc;

use position::{Offset, Partition};

use super::driver::prove;
use super::{Batch, Follower, ProofNeed, SubscriptionError};
use crate::chain::Stop;
use crate::checkpoint::Checkpoint;
use crate::log::{EventLog, LogError};

/// A reader of one partition that reads only when it is asked.
pub struct Pull {
    log: Arc<dyn EventLog>,
    partition: Partition,
    follower: Follower,
    /// Whether the streams that earlier acknowledged places froze were looked up.
    is_recalled: bool,
}

/// What one piece of the log gave.
#[derive(Debug)]
pub struct Pulled {
    /// What may become durable; absent if there is nothing.
    pub batch: Option<Batch>,
    /// Whether the piece came to the log's end.
    pub at_end: bool,
}

impl Pull {
    /// Reads a partition on from a checkpoint, or from its first record.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, partition: Partition, from: Option<Checkpoint>) -> Self {
        let follower = Follower::new(partition, from).passing(log.acknowledged());
        Self {
            log,
            partition,
            follower,
            is_recalled: false,
        }
    }

    /// The offset of the first record that was not read.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.follower.next_offset()
    }

    /// The checkpoint of the last batch, or the one that the reader started from.
    #[must_use]
    pub fn handed_out(&self) -> Option<&Checkpoint> {
        self.follower.handed_out()
    }

    /// Reads one piece of the log and proves what needs a proof.
    ///
    /// # Errors
    /// As [`Subscription::next`](super::Subscription::next). After a cancelled call, discard the
    /// reader.
    pub async fn next(&mut self) -> Result<Pulled, SubscriptionError> {
        let (log, partition) = (Arc::clone(&self.log), self.partition);
        if !self.is_recalled {
            let places = self.follower.places_to_recall();
            if !places.is_empty() {
                let records = log.read_at(partition, &places).await?;
                records
                    .iter()
                    .flatten()
                    .for_each(|record| self.follower.recall(record));
            }
            self.is_recalled = true;
        }
        // Do not read on from a checkpoint that cannot be proven.
        self.prove().await?;
        let from = match self.follower.next_offset() {
            // The first offset need not be 0: records that the topic held before may be deleted.
            Offset(0) => log.bounds(partition).await?.first,
            next => next,
        };
        let chunk = match log.read(partition, from).await {
            Ok(chunk) => chunk,
            Err(error) => {
                self.follower.interrupted();
                if matches!(error, LogError::OffsetGone { .. }) {
                    // Then the proof tells what is gone.
                    self.prove().await?;
                }
                return Err(error.into());
            }
        };
        let at_end = chunk.at_end;
        for record in chunk.records {
            self.follower
                .take(record)
                .map_err(SubscriptionError::from)?;
        }
        self.prove().await?;
        let batch = self.follower.batch();
        Ok(Pulled { batch, at_end })
    }

    async fn prove(&mut self) -> Result<(), SubscriptionError> {
        match self.follower.proof_need() {
            ProofNeed::None => Ok(()),
            ProofNeed::Due | ProofNeed::Foreign => {
                prove(&*self.log, self.partition, &mut self.follower).await
            }
        }
    }
}

/// Whether a reader stopped because the log is another one than the one that was read before.
#[must_use]
pub fn is_other_log(stop: &Stop) -> bool {
    use crate::damage::DamageKind;
    match stop {
        Stop::Damage(damage) => matches!(damage.kind, DamageKind::ProofFailed(_)),
        Stop::Gone(_) => true,
        Stop::NewerFormat { .. } | Stop::NewerEvent { .. } => false,
    }
}
