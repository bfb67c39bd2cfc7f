//! Reads how far a read model has come, and waits until it has come far enough.
//!
//! Invariants: the position is read before the rows, so that the rows have reached at least this
//! position. Requests that wait for one projection share one reader of its position ([`Watcher`]).

use std::collections::HashMap;
use std::sync::Arc;

use door::Problem;
use position::{Partition, Position, PositionToken};
use sqlx::PgPool;

use super::parameters::Wait;
use super::watcher::Watcher;
use super::{Inner, RETRY_AFTER, code, failed};

/// What was read: the position, absent if nothing was projected yet; or why it could not be read.
type Seen = Result<Option<PositionToken>, Problem>;

/// The watcher of each projection.
pub(super) type Watchers = HashMap<&'static str, Arc<Watcher<Seen>>>;

async fn position_of(pool: &PgPool, projection: &str) -> Seen {
    let reached = projector::reached(pool, projection).await;
    reached.map_err(|error| failed(&error))
}

impl Inner {
    /// The position of the read model of `projection`, once it has reached what the query asks for;
    /// absent if it has read nothing yet.
    pub(super) async fn reach(
        &self,
        projection: &'static str,
        wait: &Wait,
    ) -> Result<Option<PositionToken>, Problem> {
        let reached = position_of(&self.pool, projection).await?;
        let Some(wanted) = &wait.min_position else {
            return Ok(reached);
        };
        let is_there = |reached: &Option<PositionToken>| {
            is_reached(wanted, reached.as_ref(), self.log.partition_count())
        };
        if is_there(&reached)? {
            return Ok(reached);
        }
        let Some(watcher) = self.watchers.get(projection) else {
            return Err(Problem::internal(format_args!(
                "no watcher of {projection}"
            )));
        };
        let pool = self.pool.clone();
        let read = move || {
            let pool = pool.clone();
            async move { position_of(&pool, projection).await }
        };
        let mut seen = watcher.watch(read);
        while let Some(Ok(())) = wait.deadline.limit(seen.changed()).await {
            if let Some(seen) = &*seen.borrow_and_update()
                && is_there(seen.as_ref().map_err(Problem::clone)?)?
            {
                return seen.clone();
            }
        }
        let detail = format!("{projection} has not reached the position in time");
        let problem = Problem::new(code::READ_MODEL_BEHIND, detail);
        Err(problem.retry_after(RETRY_AFTER))
    }
}

fn is_reached(
    wanted: &PositionToken,
    reached: Option<&PositionToken>,
    partition_count: u32,
) -> Result<bool, Problem> {
    let Some(reached) = reached else {
        return Ok(false);
    };
    if reached.log != wanted.log {
        let detail = "the position token belongs to another log than this read model's";
        return Err(Problem::new(code::POSITION_OF_OTHER_LOG, detail));
    }
    if wanted.positions.keys().any(|p| p.0 >= partition_count) {
        let detail = "the position token names a partition that the log does not have";
        return Err(Problem::new(code::POSITION_INVALID, detail));
    }
    let is_there = |(partition, position): (&Partition, &Position)| {
        *position == Position(0) || reached.positions.get(partition) >= Some(position)
    };
    Ok(wanted.positions.iter().all(is_there))
}
