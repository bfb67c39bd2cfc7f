//! Stops in Postgres: where projections go no further, readable by every process.
//!
//! Invariant: a stop is stored soon after a projector met it. It is removed when the projection is
//! rebuilt (stops are deleted with their generation), when an operator resumes it, or when a
//! projector starts, which then tries again. Deliberately absent: what a task does about a stop
//! (`task`).

use std::collections::BTreeSet;

use position::{Offset, Partition};
use sqlx::{PgConnection, Row as _};

use crate::error::RuntimeError;

/// A stop as stored in Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    pub(crate) projection: String,
    pub(crate) generation: i32,
    pub(crate) partition: Partition,
    pub(crate) offset: Option<Offset>,
    pub(crate) reason: String,
}

fn number(partition: Partition) -> i32 {
    i32::try_from(partition.0).expect("partitions are few")
}

/// Stores a stop, for every process.
pub(crate) async fn record(
    connection: &mut PgConnection,
    stop: &Stopped,
) -> Result<(), RuntimeError> {
    // If the generation was replaced meanwhile, this stores nothing.
    let insert = "INSERT INTO annals.stop (projection, generation, partition, \"offset\", reason) \
                  SELECT g.projection, g.generation, $3, $4, $5 FROM annals.generation AS g \
                  WHERE g.projection = $1 AND g.generation = $2 \
                  ON CONFLICT (projection, generation, partition) DO UPDATE \
                  SET \"offset\" = excluded.\"offset\", reason = excluded.reason";
    sqlx::query(insert)
        .bind(&stop.projection)
        .bind(stop.generation)
        .bind(number(stop.partition))
        .bind(stop.offset.map(|offset| offset.0.cast_signed()))
        .bind(&stop.reason)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("record that a projection stopped"))?;
    Ok(())
}

/// Every stop of a live read model.
pub(crate) async fn live(connection: &mut PgConnection) -> Result<Vec<Stopped>, RuntimeError> {
    let mut stops = all(&mut *connection).await?;
    let select = "SELECT projection, generation FROM annals.generation WHERE state = 'live'";
    let live: Vec<(String, i32)> = sqlx::query_as(select)
        .fetch_all(connection)
        .await
        .map_err(RuntimeError::postgres("read which projections are live"))?;
    stops.retain(|stop| live.contains(&(stop.projection.clone(), stop.generation)));
    Ok(stops)
}

/// Every stop.
pub(crate) async fn all(connection: &mut PgConnection) -> Result<Vec<Stopped>, RuntimeError> {
    let failed = || RuntimeError::postgres("read which projections are stopped");
    let select = "SELECT projection, generation, partition, \"offset\", reason \
                  FROM annals.stop ORDER BY projection, generation, partition";
    let rows = sqlx::query(select)
        .fetch_all(connection)
        .await
        .map_err(failed())?;
    let read = |row: &sqlx::postgres::PgRow| -> Result<Stopped, sqlx::Error> {
        let offset: Option<i64> = row.try_get("offset")?;
        let partition: i32 = row.try_get("partition")?;
        Ok(Stopped {
            projection: row.try_get("projection")?,
            generation: row.try_get("generation")?,
            partition: Partition(partition.cast_unsigned()),
            offset: offset.map(|offset| Offset(offset.cast_unsigned())),
            reason: row.try_get("reason")?,
        })
    };
    rows.iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(failed())
}

/// Deletes the stops that earlier projectors stored for these rules: a projector that starts tries
/// again.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    rules: &BTreeSet<String>,
) -> Result<(), RuntimeError> {
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let delete = "DELETE FROM annals.stop AS s USING annals.generation AS g \
                  WHERE g.projection = s.projection AND g.generation = s.generation \
                  AND g.rule = ANY($1)";
    sqlx::query(delete)
        .bind(rules)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("delete earlier stops"))?;
    Ok(())
}
