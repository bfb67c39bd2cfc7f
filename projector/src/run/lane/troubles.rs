//! What a lane does about commits that a generation cannot take up: it parks their streams, or stops
//! the generation.
//!
//! Invariant: nothing is skipped in silence: a stream is parked in the transaction that passes its
//! commit, and a stop is stored for every process before the lane goes on without the generation.
//! Deliberately absent: how refused commits are found (`refused`) and parked ones taken up
//! (`retry`).

use std::time::Instant;

use event_log::chain::Stop;
use event_log::subscription::Placed;
use sqlx::Connection as _;

use super::{Lane, PARKED_STREAMS_MAX, Session, Told, Turn};
use crate::declare::projection::OnError;
use crate::error::{RuntimeError, StoppedProjection};
use crate::fold::batch::{Cause, Failure};
use crate::fold::parked::Park;
use crate::run::writing::Work;
use crate::run::{measure, refused, retry};
use crate::store::stops::Stopped;
use crate::store::{own_sql, parked, stops};

impl Lane {
    /// Parks the stream of a commit that a generation cannot take up, from the next fold on;
    /// `false` if the generation must stop instead.
    pub(super) fn park(&mut self, session: &mut Session, index: usize, park: &Park) -> bool {
        let generation = &self.generations[index];
        let progress = &mut session.progress[index];
        let count = progress.parked.len() + progress.parking.len();
        let is_commits = park.failure.cause == Cause::Commit;
        let stops = !is_commits || generation.projection.on_error() == OnError::Stop;
        if stops || count >= PARKED_STREAMS_MAX {
            return false;
        }
        let projection = generation.projection.name();
        tracing::error!(
            projection,
            partition = park.partition.0,
            offset = park.offset.0,
            stream = park.stream.stream,
            tenant = park.stream.tenant,
            reason = park.failure.reason,
            "the projection cannot take up a commit: its stream is parked"
        );
        measure::parked(projection);
        let stream = &park.stream;
        progress.parking.insert(stream.clone(), park.clone());
        let parking = self.parking.entry(generation.id()).or_default();
        parking.insert(stream.clone(), park.clone());
        true
    }

    /// Stops a generation at a commit that it cannot take up; gives the partition to a newer program
    /// if this one is too old for it.
    pub(super) async fn stop_at(
        &self,
        session: &mut Session,
        index: usize,
        park: Park,
    ) -> Result<(), RuntimeError> {
        let generation = &self.generations[index];
        if park.failure.cause == Cause::Program {
            let (generation, partition) = (generation.id(), park.partition);
            tracing::warn!(
                projection = generation.projection,
                partition = partition.0,
                offset = park.offset.0,
                reason = park.failure.reason,
                "this program is too old for an event; a newer one must take up the partition"
            );
            self.tell(Told::TooOld {
                pair: (generation, partition),
                reason: park.failure.reason,
            });
            return Ok(());
        }
        let progress = &session.progress[index];
        let is_full = progress.parked.len() + progress.parking.len() >= PARKED_STREAMS_MAX;
        let stopped = StoppedProjection {
            projection: generation.projection.name().to_owned(),
            partition: Some(park.partition),
            offset: Some(park.offset),
            reason: match is_full {
                true => format!(
                    "{PARKED_STREAMS_MAX} streams are parked already, and one more cannot be \
                     taken up: {}",
                    park.failure.reason
                ),
                false => park.failure.reason,
            },
        };
        self.stop(session, &[index], &stopped).await
    }

    /// Finds the commits whose rows Postgres refused, and parks their streams. A refusal in a row that
    /// several streams share stops the projection: it would meet each of them.
    pub(super) async fn find_refused(
        &mut self,
        session: &mut Session,
        work: &Work,
        reason: &str,
    ) -> Result<Turn, RuntimeError> {
        let progress = &session.progress[0];
        let commits = work.batches.iter().flat_map(|batch| &batch.commits);
        let commits: Vec<&Placed> = commits.filter(|placed| progress.lacks(placed)).collect();
        let Some(connection) = session.writing.idle() else {
            return Ok(Turn::Anew);
        };
        let generation = &self.generations[0];
        let limit = PARKED_STREAMS_MAX + 1;
        let found = refused::find(connection, generation, &commits, limit).await?;
        if found.is_empty() {
            // Nothing is refused any more; or something is, in a way that is not found.
            let reason = reason.to_owned();
            return Err(RuntimeError::Blocked { reason });
        }
        for refused in found {
            let failure = Failure {
                reason: refused.reason,
                cause: match refused.is_owned {
                    true => Cause::Commit,
                    false => Cause::Rule,
                },
            };
            let park = Park::at(refused.placed, failure);
            if !self.park(session, 0, &park) {
                self.stop_at(session, 0, park).await?;
                return Ok(Turn::Ended);
            }
        }
        Ok(Turn::Anew)
    }

    /// Finds the commit that the projection's own SQL cannot take up, and stops it there. A
    /// projection with SQL of its own is always alone in its lane.
    pub(super) async fn find_failed(
        &mut self,
        session: &mut Session,
        work: &Work,
        failure: Failure,
    ) -> Result<Turn, RuntimeError> {
        let Some(connection) = session.writing.idle() else {
            return Ok(Turn::Anew);
        };
        let Some(chosen) = work.folds.first().and_then(|fold| fold.own.as_ref()) else {
            return Ok(Turn::Anew);
        };
        let batches = &work.batches;
        let commit = |(batch, commit): &(usize, usize)| &batches[*batch].commits[*commit];
        let commits: Vec<&Placed> = chosen.iter().map(commit).collect();
        let found = own_sql::find_failing(connection, &self.generations[0], &commits).await?;
        // If each can be taken up alone, what fails is how they are taken up together.
        let first = commits.first().copied();
        let Some((placed, failure)) = found.or(first.map(|first| (first, failure))) else {
            return Ok(Turn::Anew);
        };
        self.stop_at(session, 0, Park::at(placed, failure)).await?;
        Ok(Turn::Ended)
    }

    /// Checks whether the connection works, and does what operators asked for with parked streams.
    /// Returns whether anything was done.
    pub(super) async fn look_around(
        &mut self,
        session: &mut Session,
    ) -> Result<bool, RuntimeError> {
        session.looked_around = Instant::now();
        let Some(connection) = session.writing.idle() else {
            return Ok(false);
        };
        let ping = RuntimeError::postgres("reach Postgres");
        connection.ping().await.map_err(ping)?;
        let mut is_done = false;
        for (generation, progress) in self.generations.iter().zip(&session.progress) {
            if progress.parked.is_empty() {
                continue;
            }
            let wishes = parked::wishes(connection, &generation.id(), &self.partitions).await?;
            for wished in &wishes {
                retry::fulfil(&*self.log, connection, generation, wished).await?;
            }
            is_done |= !wishes.is_empty();
        }
        Ok(is_done)
    }

    /// Stores that some of the generations stopped.
    pub(super) async fn stop(
        &self,
        session: &mut Session,
        indices: &[usize],
        stopped: &StoppedProjection,
    ) -> Result<(), RuntimeError> {
        let partitions = match stopped.partition {
            Some(partition) => vec![partition],
            None => self.partitions.clone(),
        };
        let Some(connection) = session.writing.idle() else {
            return Ok(());
        };
        for &index in indices {
            let id = self.generations[index].id();
            for &partition in &partitions {
                let stop = Stopped {
                    projection: id.projection.clone(),
                    generation: id.number,
                    partition,
                    offset: stopped.offset,
                    reason: stopped.reason.clone(),
                };
                stops::record(connection, &stop).await?;
            }
            tracing::error!(
                projection = id.projection,
                partition = stopped.partition.map(|p| p.0),
                offset = stopped.offset.map(|o| o.0),
                reason = stopped.reason,
                "the projection stopped; the other projections go on"
            );
            measure::stopped(self.generations[index].projection.name());
            self.tell(Told::Stopped { generation: id });
        }
        Ok(())
    }

    /// Stops all generations in one partition; the other partitions go on.
    pub(super) async fn stop_partition(
        &self,
        session: &mut Session,
        stop: Stop,
    ) -> Result<(), RuntimeError> {
        let Some((partition, offset)) = stop.place() else {
            return Err(stop.into());
        };
        let all: Vec<usize> = (0..self.generations.len()).collect();
        let stopped = StoppedProjection {
            projection: self.generations[0].projection.name().to_owned(),
            partition: Some(partition),
            offset: Some(offset),
            reason: stop.to_string(),
        };
        self.stop(session, &all, &stopped).await
    }
}
