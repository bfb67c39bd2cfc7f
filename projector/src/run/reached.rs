//! The positions that the live rows of a projection have reached.
//!
//! Deliberately absent: waiting for a position.

use std::collections::BTreeMap;

use position::{LogId, Partition, Position, PositionToken};
use sqlx::PgExecutor;
use uuid::Uuid;

const POSITIONS: &str = "SELECT c.partition, c.position, c.log FROM annals.checkpoint AS c \
    JOIN annals.generation AS g ON g.projection = c.projection AND g.generation = c.generation \
    WHERE c.projection = $1 AND g.state = 'live' AND c.log IS NOT NULL";

/// The position that the live rows of `projection` have reached in each partition; absent if the
/// projection has read nothing yet. Rows that are read afterwards have reached at least this
/// position.
///
/// # Errors
/// The error of Postgres.
pub async fn reached(
    postgres: impl PgExecutor<'_>,
    projection: &str,
) -> Result<Option<PositionToken>, sqlx::Error> {
    let rows: Vec<(i32, i64, Uuid)> = sqlx::query_as(POSITIONS)
        .bind(projection)
        .fetch_all(postgres)
        .await?;
    let log = rows.first().map(|(_, _, log)| LogId(*log));
    let place = |&(partition, position, _): &(i32, i64, Uuid)| {
        let partition = Partition(partition.cast_unsigned());
        (partition, Position(position.cast_unsigned()))
    };
    let positions: BTreeMap<_, _> = rows.iter().map(place).collect();
    Ok(log.map(|log| PositionToken { log, positions }))
}
