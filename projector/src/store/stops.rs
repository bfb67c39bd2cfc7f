//! Stops in Postgres: where projections go no further, readable by every process.
//!
//! Invariant: a stop is stored soon after a projector met it. It is removed when the projection is
//! rebuilt (stops are deleted with their generation), when an operator resumes it, or when a
//! projector starts, which then tries again. Deliberately absent: what a task does about a stop
//! (`task`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use position::{Offset, Partition};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use crate::declare::projection::Projection;
use crate::error::{RuntimeError, StoppedProjection};
use crate::run::projector::connect_options;
use crate::run::status::StatusBoard;

/// A stop as stored in Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    pub(crate) projection: String,
    pub(crate) generation: i32,
    pub(crate) partition: Partition,
    pub(crate) offset: Option<Offset>,
    pub(crate) reason: String,
}

/// The live generations and the stored stops.
pub(crate) struct Look {
    live: BTreeMap<String, i32>,
    stopped: BTreeSet<(String, i32, Partition)>,
}

impl Look {
    pub(crate) fn is_live(&self, projection: &str, generation: i32) -> bool {
        self.live.get(projection) == Some(&generation)
    }

    /// Whether a stored stop still holds.
    fn holds(&self, stop: &StoppedProjection, generation: i32, all: &[Partition]) -> bool {
        let is_there = |partition: &Partition| {
            let key = (stop.projection.to_owned(), generation, *partition);
            self.stopped.contains(&key)
        };
        let mut partitions = partitions_of(stop, all).into_iter();
        self.is_live(stop.projection, generation) && partitions.all(|p| is_there(&p))
    }
}

/// The partitions of a task in which a projection stopped.
fn partitions_of(stop: &StoppedProjection, all: &[Partition]) -> Vec<Partition> {
    match stop.partition {
        Some(partition) => vec![partition],
        None => all.to_vec(),
    }
}

fn number(partition: Partition) -> i32 {
    i32::try_from(partition.0).expect("partitions are few")
}

/// Stores a task's stops for other processes, and tells the task which of them were resolved since.
/// Returns the projections that can go on, and what is live.
pub(crate) async fn settle(
    connection: &mut PgConnection,
    board: &StatusBoard,
    partitions: &[Partition],
) -> Result<(Vec<&'static str>, Look), RuntimeError> {
    for (stop, generation) in board.unrecorded() {
        record(connection, &stop, generation, partitions).await?;
    }
    board.set_recorded();
    let look = look(connection).await?;
    let mended = board.forget(|stop, generation| look.holds(stop, generation, partitions));
    for projection in &mended {
        tracing::info!(
            projection,
            "the projection goes on: it was rebuilt or resumed"
        );
    }
    Ok((mended, look))
}

async fn record(
    connection: &mut PgConnection,
    stop: &StoppedProjection,
    generation: i32,
    partitions: &[Partition],
) -> Result<(), RuntimeError> {
    // If the generation was replaced meanwhile, this stores nothing.
    let insert = "INSERT INTO annals.stop (projection, generation, partition, \"offset\", reason) \
                  SELECT g.projection, g.generation, p, $4, $5 \
                  FROM annals.generation AS g, UNNEST($3::int[]) AS p \
                  WHERE g.projection = $1 AND g.generation = $2 \
                  ON CONFLICT (projection, generation, partition) DO UPDATE \
                  SET \"offset\" = excluded.\"offset\", reason = excluded.reason";
    let partitions: Vec<i32> = partitions_of(stop, partitions)
        .into_iter()
        .map(number)
        .collect();
    sqlx::query(insert)
        .bind(stop.projection)
        .bind(generation)
        .bind(partitions)
        .bind(stop.offset.map(|offset| offset.0.cast_signed()))
        .bind(&stop.reason)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("record that a projection stopped"))?;
    Ok(())
}

async fn look(connection: &mut PgConnection) -> Result<Look, RuntimeError> {
    let failed = || RuntimeError::postgres("read which projections are live");
    let select = "SELECT projection, generation FROM annals.generation WHERE state = 'live'";
    let live: Vec<(String, i32)> = sqlx::query_as(select)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let stopped = self::live(connection).await?;
    let key = |stop: Stopped| (stop.projection, stop.generation, stop.partition);
    Ok(Look {
        live: live.into_iter().collect(),
        stopped: stopped.into_iter().map(key).collect(),
    })
}

/// Every stop of a live read model.
pub(crate) async fn live(connection: &mut PgConnection) -> Result<Vec<Stopped>, RuntimeError> {
    let failed = || RuntimeError::postgres("read which projections are stopped");
    let select = "SELECT s.projection, s.generation, s.partition, s.\"offset\", s.reason \
                  FROM annals.stop AS s JOIN annals.generation AS g \
                  ON g.projection = s.projection AND g.generation = s.generation \
                  WHERE g.state = 'live' ORDER BY s.projection, s.partition";
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

/// Deletes the stops that an earlier projector stored for these partitions: the projections try
/// again.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    projections: &[&str],
    partitions: &[Partition],
) -> Result<(), RuntimeError> {
    let partitions: Vec<i32> = partitions.iter().copied().map(number).collect();
    sqlx::query("DELETE FROM annals.stop WHERE projection = ANY($1) AND partition = ANY($2)")
        .bind(projections)
        .bind(partitions)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("delete earlier stops"))?;
    Ok(())
}

/// Lets a stopped projection try again; a running projector notices within seconds. Returns the
/// number of partitions in which it had stopped.
///
/// # Errors
/// `Unknown`, `Postgres`.
pub async fn resume(
    url: &str,
    projections: &[Arc<dyn Projection>],
    name: &str,
) -> Result<u64, RuntimeError> {
    if !projections
        .iter()
        .any(|projection| projection.name() == name)
    {
        return Err(RuntimeError::unknown(projections, name));
    }
    let connect = RuntimeError::postgres("connect to Postgres");
    let mut connection = connect_options(url)?.connect().await.map_err(connect)?;
    let gone = sqlx::query("DELETE FROM annals.stop WHERE projection = $1")
        .bind(name)
        .execute(&mut connection)
        .await
        .map_err(RuntimeError::postgres("resume a projection"))?;
    let _ = connection.close().await;
    Ok(gone.rows_affected())
}
