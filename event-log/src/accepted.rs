//! Reads the accepted commits of a partition once, from its first record or a checkpoint to an end
//! that is fixed before.
//!
//! Invariant: hands out exactly the commits that `verify` counts, in order, up to the first damage.
//! Deliberately absent: reading on after the end (`subscription`), and reports (`verify`).

use std::sync::Arc;

use position::{Offset, Partition, Position};

use crate::chain::{Chain, Stop, Verdict};
use crate::checkpoint::Checkpoint;
use crate::log::{EventLog, LogError, Pieces};
use crate::record::Record;
use crate::subscription::{Batch, Follower, ProofNeed, SubscriptionError};
use crate::verdict::{self, Content, StreamVersions};

/// Reads the accepted commits of one partition in batches, from a checkpoint on, up to an end that
/// was fixed before. Unlike a subscription it ends, and two runs give the same commits.
pub struct Accepted {
    log: Arc<dyn EventLog>,
    partition: Partition,
    follower: Follower,
    next: Offset,
    end: Offset,
}

impl Accepted {
    /// A reader of the records of `partition` after `from`, or from the first one, and before `end`.
    ///
    /// # Errors
    /// `Unavailable`; [`Stop`] if the log is not the one that the checkpoint was made from.
    pub async fn open(
        log: Arc<dyn EventLog>,
        partition: Partition,
        from: Option<Checkpoint>,
        end: Offset,
    ) -> Result<Self, SubscriptionError> {
        let first = log.bounds(partition).await?.first;
        let mut follower = Follower::new(partition, from).passing(log.acknowledged());
        let places = follower.places_to_recall();
        if !places.is_empty() {
            for record in log.read_at(partition, &places).await?.iter().flatten() {
                follower.recall(record);
            }
        }
        let next = follower.next_offset().max(first);
        let mut reader = Self {
            log,
            partition,
            follower,
            next,
            end,
        };
        // Nothing is read on from a checkpoint that cannot be proven.
        reader.prove().await?;
        Ok(reader)
    }

    /// The next commits that count, with the checkpoint behind them; `None` at the end.
    ///
    /// # Errors
    /// `Unavailable`; [`Stop`] at damage: what was handed out before stands before it.
    pub async fn next(&mut self) -> Result<Option<Batch>, SubscriptionError> {
        while self.next < self.end {
            let chunk = self.log.read(self.partition, self.next).await?;
            self.next = match chunk.at_end {
                true => self.end,
                false => chunk.next,
            };
            let records = chunk.records.into_iter();
            for record in records.take_while(|record| record.offset < self.end) {
                self.follower.take(record)?;
            }
            self.prove().await?;
            if let Some(batch) = self.follower.batch() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Compares the log with what was read of it, where the protocol asks for it.
    async fn prove(&mut self) -> Result<(), SubscriptionError> {
        while self.follower.proof_need() != ProofNeed::None {
            let Some(offset) = self.follower.places_to_prove().first().copied() else {
                break;
            };
            let (end, found) = self.log.look(self.partition, offset).await?;
            let proven = self.follower.prove(end, found.as_ref());
            proven.map_err(Stop::from)?;
        }
        Ok(())
    }
}

/// Calls `take` for each accepted commit, with its record and its position. Returns what stopped
/// the reading before the end, if anything did.
///
/// # Errors
/// `Unavailable`, and every error of `take`.
pub async fn read_accepted<E: From<LogError>>(
    log: &dyn EventLog,
    partition: Partition,
    mut take: impl FnMut(&Record, Position) -> Result<(), E>,
) -> Result<Option<Stop>, E> {
    let mut chain = Chain {
        acknowledged: log.acknowledged(),
        ..Chain::genesis(partition)
    };
    let mut streams = StreamVersions::complete();
    let mut pieces = Pieces::of(log, partition).await?;
    while let Some(records) = pieces.next().await? {
        for record in &records {
            match judge(&mut chain, &mut streams, record) {
                Ok(Some(position)) => take(record, position)?,
                Ok(None) => {}
                Err(stop) => return Ok(Some(stop)),
            }
        }
    }
    Ok(None)
}

/// The position of the record if it is a commit that counts and is to be applied.
fn judge(
    chain: &mut Chain,
    streams: &mut StreamVersions,
    record: &Record,
) -> Result<Option<Position>, Stop> {
    let verdict = chain.judge(record)?;
    let content = verdict::content(chain, &verdict, record, streams)?;
    let (Verdict::Commit(headers), Content::Commit(commit)) = (verdict, content) else {
        return Ok(None);
    };
    let key = record.key.as_deref().unwrap_or_default();
    streams.note(key, commit.version());
    Ok(Some(headers.position))
}
