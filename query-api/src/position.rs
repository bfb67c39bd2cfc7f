//! Reads how far a read model has come, and waits until it has come far enough.
//!
//! Invariant: the position is read before the rows, so that the rows have reached at least this
//! position.

use std::time::{Duration, Instant};

use door::Problem;
use position::{Partition, Position, PositionToken};

use super::parameters::Wait;
use super::{Inner, RETRY_AFTER, code, failed};

/// The first and the longest pause between two reads of the position.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

impl Inner {
    /// The position of the read model of `projection`, once it has reached what the query asks for;
    /// absent if it has read nothing yet.
    pub(super) async fn reach(
        &self,
        projection: &str,
        wait: &Wait,
    ) -> Result<Option<PositionToken>, Problem> {
        let mut pause = PAUSE_MIN;
        loop {
            let reached = projector::reached(&self.pool, projection).await;
            let reached = reached.map_err(|error| failed(&error))?;
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
