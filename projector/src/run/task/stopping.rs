//! What a task does when a projection stops, and how it goes on after a rebuild or a resume.
//!
//! Invariant: a stop is logged and counted once, and other processes can see it. Deliberately
//! absent: where stops are stored (`stops`).

use std::time::Instant;

use kernel::explained;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use super::{Goal, LOOK_AROUND_EVERY, Session, Target, Task};
use crate::error::{RuntimeError, StoppedProjection};
use crate::run::measure;
use crate::store::stops;

impl Task {
    /// Waits until a projection is rebuilt or resumed; `false` if the task is asked to stop.
    pub(super) async fn rest(&mut self) -> bool {
        let mut connection = None;
        while !self.stopped_within(LOOK_AROUND_EVERY).await {
            match self.look_for_mending(&mut connection).await {
                Ok(false) => {}
                Ok(true) => return true,
                Err(error) => {
                    tracing::debug!(
                        reason = explained(&error),
                        "a stopped projector tries again"
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

    /// Whether the task follows the log into live tables without an end. Only then are its stops
    /// stored for other processes.
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
            "the projection stopped; the other projections go on"
        );
        measure::stopped(stopped.projection);
    }

    /// Reports a stop of all projections of this task.
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

    /// Checks whether the connection, which holds the locks, still works. Returns whether the task
    /// must start again because a projection was rebuilt or resumed.
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
