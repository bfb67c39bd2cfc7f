//! Stops in Postgres: where projections go no further, readable by every process.
//!
//! Invariant: a stop is stored soon after a projector met it. It is removed when the projection is
//! rebuilt (stops are deleted with their generation), when an operator resumes it, or when a
//! projector starts, which then tries again. Deliberately absent: what a lane does about a stop
//! (`lane`).

use std::collections::{BTreeMap, BTreeSet};

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

/// In how many partitions each live read model goes no further: those in which it stopped, or all
/// of them if the processes that run have another version of its rule.
pub(crate) async fn counts(
    connection: &mut PgConnection,
) -> Result<BTreeMap<String, usize>, RuntimeError> {
    let select = "SELECT g.projection, count(*) FROM annals.generation AS g \
        JOIN annals.checkpoint AS c USING (projection, generation) \
        LEFT JOIN annals.stop AS s USING (projection, generation, partition) \
        WHERE g.state = 'live' AND (s.projection IS NOT NULL OR (\
            EXISTS (SELECT FROM annals.member AS m, unnest(m.rules) AS rule \
                WHERE starts_with(rule, g.projection || ' v')) \
            AND NOT EXISTS (SELECT FROM annals.member AS m WHERE g.rule = ANY(m.rules)))) \
        GROUP BY 1 UNION ALL \
        SELECT s.projection, count(*) FROM annals.stop AS s \
        JOIN annals.generation AS g USING (projection, generation) \
        LEFT JOIN annals.checkpoint AS c USING (projection, generation, partition) \
        WHERE g.state = 'live' AND c.projection IS NULL GROUP BY 1";
    let rows: Vec<(String, i64)> = sqlx::query_as(select)
        .fetch_all(connection)
        .await
        .map_err(RuntimeError::postgres("read which projections are stopped"))?;
    let mut counts = BTreeMap::new();
    for (projection, count) in rows {
        *counts.entry(projection).or_default() += usize::try_from(count).unwrap_or_default();
    }
    Ok(counts)
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
