//! How far a read model is, and waiting until it is far enough.
//!
//! Invariant: the position is read before the rows, so that the rows stand there at least.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use door::Problem;
use position::{LogId, Partition, Position, PositionToken};
use sqlx::Row as _;
use uuid::Uuid;

use super::parameters::Wait;
use super::{Inner, RETRY_AFTER, code, unavailable};

/// The first and the longest pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

const POSITIONS: &str = "SELECT c.partition, c.position, c.log FROM annals.checkpoint AS c \
    JOIN annals.generation AS g ON g.projection = c.projection AND g.generation = c.generation \
    WHERE c.projection = $1 AND g.state = 'live' AND c.log IS NOT NULL";

impl Inner {
    /// Where the read model of `projection` stands, once it has reached what the query asks for;
    /// absent where it has read nothing yet.
    pub(super) async fn reach(
        &self,
        projection: &str,
        wait: &Wait,
    ) -> Result<Option<PositionToken>, Problem> {
        let mut pause = PAUSE_MIN;
        loop {
            let reached = self.position_of(projection).await?;
            let Some(wanted) = &wait.min_position else {
                return Ok(reached);
            };
            if is_reached(wanted, reached.as_ref(), self.log.partition_count())? {
                return Ok(reached);
            }
            if Instant::now() + pause > wait.deadline.at {
                let detail = format!("{projection} has not reached the position in time");
                let problem = Problem::new(code::READ_MODEL_BEHIND, detail);
                return Err(problem.retry_after(RETRY_AFTER));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn position_of(&self, projection: &str) -> Result<Option<PositionToken>, Problem> {
        let rows = sqlx::query(POSITIONS)
            .bind(projection)
            .fetch_all(&self.pool)
            .await
            .map_err(|error| unavailable(&error))?;
        let mut log = None;
        let mut positions = BTreeMap::new();
        for row in &rows {
            let read = || -> Result<(i32, i64, Uuid), sqlx::Error> {
                Ok((
                    row.try_get("partition")?,
                    row.try_get("position")?,
                    row.try_get("log")?,
                ))
            };
            let (partition, position, id) = read().map_err(Problem::internal)?;
            log = Some(LogId(id));
            let partition = Partition(partition.cast_unsigned());
            positions.insert(partition, Position(position.cast_unsigned()));
        }
        Ok(log.map(|log| PositionToken { log, positions }))
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
        let detail = "the position token belongs to another log than this read model";
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
