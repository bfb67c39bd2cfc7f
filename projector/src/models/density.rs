//! How densely commits lie in time, for the time axis of a replay.
//!
//! Invariant: one statement with a time limit, over commits that hold events. Deliberately absent: how it
//! is drawn.

use kernel::Timestamp;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::declare::projection::Projection;
use crate::error::RuntimeError;

/// How many parts of equal time there are at most.
pub const DENSITY_PARTS_MAX: u32 = 120;
/// The longest time of the statement, in milliseconds.
const TIMEOUT_MS: u32 = 5_000;

/// Counts the commits of some categories, or of all, in $2 parts of the time between the first and the last.
const COUNT: &str = "\
    WITH times AS MATERIALIZED (\
        SELECT (extract(epoch FROM recorded_at) * 1000000)::bigint AS at FROM read.stream_commits \
        WHERE cardinality($1::text[]) = 0 OR split_part(stream, '-', 1) = ANY($1)), \
    ends AS (SELECT min(at) AS first, max(at) AS last FROM times) \
    SELECT first, last, floor((at - first)::float8 * $2 / (last - first + 1))::bigint AS part, \
        count(*) AS commits FROM times, ends GROUP BY first, last, part ORDER BY part";

/// How many commits there are in each part of a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Density {
    /// When the first commit was recorded.
    pub from: Timestamp,
    /// When the last one was recorded.
    pub to: Timestamp,
    /// How many there are in each part, which are of equal length.
    pub commits: Vec<u64>,
}

/// How densely the commits lie that concern a projection, by the categories of their streams; absent if
/// there are none, or no read model tells.
pub(crate) async fn density(
    connection: &mut PgConnection,
    projection: &dyn Projection,
) -> Result<Option<Density>, RuntimeError> {
    let failed = || RuntimeError::postgres("count commits over time");
    let mut tx = connection.begin().await.map_err(failed())?;
    let limit = format!("SET LOCAL statement_timeout = {TIMEOUT_MS}");
    let limited = sqlx::raw_sql(AssertSqlSafe(limit)).execute(&mut *tx).await;
    limited.map_err(failed())?;
    let is_there: bool =
        sqlx::query_scalar("SELECT to_regclass('read.stream_commits') IS NOT NULL")
            .fetch_one(&mut *tx)
            .await
            .map_err(failed())?;
    if !is_there {
        return Ok(None);
    }
    let mut categories: Vec<&str> = projection.takes().iter().map(|one| one.category).collect();
    categories.sort_unstable();
    categories.dedup();
    let rows = sqlx::query(COUNT)
        .bind(&categories)
        .bind(i64::from(DENSITY_PARTS_MAX))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed())?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let time = |name: &str| -> Result<Timestamp, RuntimeError> {
        let micros: i64 = first.try_get(name).map_err(failed())?;
        let time = Timestamp::from_micros(micros);
        time.map_err(|error| failed()(sqlx::Error::Decode(error.into())))
    };
    let (from, to) = (time("first")?, time("last")?);
    let mut commits = vec![0; DENSITY_PARTS_MAX as usize];
    for row in &rows {
        let part: i64 = row.try_get("part").map_err(failed())?;
        let count: i64 = row.try_get("commits").map_err(failed())?;
        let part = usize::try_from(part).unwrap_or(0).min(commits.len() - 1);
        commits[part] += count.cast_unsigned();
    }
    Ok(Some(Density { from, to, commits }))
}
