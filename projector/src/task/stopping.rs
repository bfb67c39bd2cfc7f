//! What a task does where a projection goes no further, and how it goes on once that was mended.
//!
//! Invariant: a stop is logged and counted once, and other processes can see it. Deliberately absent:
//! where stops are kept (`stops`).

use std::time::Instant;

use kernel::explained;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use super::{Goal, LOOK_AROUND_EVERY, Session, Target, Task};
use crate::error::{RuntimeError, StoppedProjection};
use crate::{measure, stops};

impl Task {
    /// Waits until somebody has rebuilt or resumed a projection; `false` once asked to stop.
    pub(super) async fn rest(&mut self) -> bool {
        let mut connection = None;
        while !self.stopped_within(LOOK_AROUND_EVERY).await {
            match self.look_for_mending(&mut connection).await {
                Ok(false) => {}
                Ok(true) => return true,
                Err(error) => {
                    tracing::debug!(
                        reason = explained(&error),
                        "a stopped projector looks again"
                    );
                    connection = None;
                }
            }
        }
        false
    }

    async fn look_for_mending(
        &self,
        connection: &mut Option<PgConnection>,
    ) -> Result<bool, RuntimeError> {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let connect = RuntimeError::postgres("connect to Postgres");
                connection.insert(self.postgres.connect().await.map_err(connect)?)
            }
        };
        let (mended, _) = stops::settle(connection, &self.board, &self.partitions).await?;
        Ok(!mended.is_empty())
    }

    /// Whether it goes on and on with live tables, so that others are told where it stops.
    pub(super) fn follows_live(&self) -> bool {
        matches!((&self.target, &self.goal), (Target::Live(_), Goal::Follow))
    }

    /// Logs and counts a stop, once.
    pub(super) fn report_stopped(&self, stopped: StoppedProjection, generation: i32) {
        if !self.board.stop_projection(&stopped, generation) {
            return;
        }
        tracing::error!(
            projection = stopped.projection,
            partition = stopped.partition.map(|p| p.0),
            offset = stopped.offset.map(|o| o.0),
            reason = stopped.reason,
            "the projection stopped here; the others go on"
        );
        measure::stopped(stopped.projection);
    }

    /// The same for whatever stops all projections of this task.
    pub(super) fn report_all_stopped(&self, reason: &str) {
        for &(projection, generation) in self.held.iter().flatten() {
            let stopped = StoppedProjection {
                projection,
                partition: None,
                offset: None,
                reason: reason.to_owned(),
            };
            self.report_stopped(stopped, generation);
        }
    }

    /// Finds out whether the connection, with its locks, still lives, and whether to begin anew, since
    /// a projection was rebuilt or resumed.
    pub(super) async fn look_around(&self, session: &mut Session) -> Result<bool, RuntimeError> {
        session.looked_around = Some(Instant::now());
        let Some(connection) = session.writing.idle() else {
            return Ok(false);
        };
        if !self.follows_live() {
            let ping = RuntimeError::postgres("reach Postgres");
            connection.ping().await.map_err(ping)?;
            return Ok(false);
        }
        let (mended, look) = stops::settle(connection, &self.board, &self.partitions).await?;
        let mut held = self.held.iter().flatten();
        let is_replaced = held.any(|(projection, number)| !look.is_live(projection, *number));
        Ok(is_replaced || !mended.is_empty())
    }
}
