//! The advisory locks that keep a second projector waiting.
//!
//! Deliberately absent: what protects the rows if a second projector gets past the locks
//! (`checkpoint`).

use std::time::Duration;

use position::Partition;
use sqlx::PgConnection;

use super::{Ended, Goal, Target, Task};
use crate::error::RuntimeError;
use crate::run::status::TaskState;

/// How often a waiting task tries to take the locks.
const LOCK_EVERY: Duration = Duration::from_millis(200);

impl Task {
    /// Waits until no other projector writes the same read models. Ends early if the other
    /// projector reaches this task's goal.
    pub(super) async fn take_locks(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Option<Ended>, RuntimeError> {
        let names: Vec<String> = match &self.target {
            Target::Live(projections) => projections
                .iter()
                .flat_map(|projection| {
                    let name = projection.name();
                    let key = move |p: &Partition| format!("annals.projector/{name}/{p}");
                    self.partitions.iter().map(key)
                })
                .collect(),
            // A rebuild holds another lock (`rebuild`).
            Target::Building(_) => return Ok(None),
        };
        loop {
            if try_locks(connection, &names).await? {
                return Ok(None);
            }
            self.board.set(TaskState::Waiting);
            if self.stopped_within(LOCK_EVERY).await {
                return Ok(Some(Ended::Asked));
            }
            if matches!(self.goal, Goal::Reach(_)) {
                let (_, progress) = self.load_progress(connection).await?;
                let durable = progress.iter().map(|progress| &progress.durable);
                if self.reached(durable).await? {
                    return Ok(Some(Ended::Reached));
                }
            }
        }
    }
}

async fn try_locks(connection: &mut PgConnection, names: &[String]) -> Result<bool, RuntimeError> {
    let failed = || RuntimeError::postgres("take the projector's locks");
    let take = "SELECT coalesce(bool_and(pg_try_advisory_lock(hashtextextended(n, 0))), true) \
                FROM UNNEST($1::text[]) AS n";
    let taken: bool = sqlx::query_scalar(take)
        .bind(names)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    if !taken {
        sqlx::query("SELECT pg_advisory_unlock_all()")
            .execute(connection)
            .await
            .map_err(failed())?;
    }
    Ok(taken)
}
