//! Parked streams in Postgres: those of which a generation could not take up a commit.
//!
//! Invariant: parking changes with the checkpoint that passes the commit, in its transaction. A
//! commit of a parked stream is either among the parked ones, in the rows, or discarded; never two
//! of these, and never none. Deliberately absent: when a stream is parked (`run::lane`), and how
//! it is taken up later (`run::retry`).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use kernel::Timestamp;
use position::{Offset, Partition, Position};
use sqlx::{PgConnection, Row as _};

use crate::error::RuntimeError;
use crate::fold::parked::{Park, ParkedCommit, StreamId};
use crate::store::members::GenerationId;

/// The parked streams of a generation in some partitions.
pub(crate) async fn load(
    connection: &mut PgConnection,
    id: &GenerationId,
    partitions: &[Partition],
) -> Result<BTreeSet<StreamId>, RuntimeError> {
    let parked = load_places(connection, id, partitions).await?;
    Ok(parked.into_keys().collect())
}

/// The parked streams of a generation in some partitions, each with the position from which on nothing
/// of it was taken up.
pub(crate) async fn load_places(
    connection: &mut PgConnection,
    id: &GenerationId,
    partitions: &[Partition],
) -> Result<BTreeMap<StreamId, Position>, RuntimeError> {
    let select = "SELECT tenant, stream, position FROM annals.parked \
                  WHERE projection = $1 AND generation = $2 AND partition = ANY($3)";
    let rows: Vec<(String, String, i64)> = sqlx::query_as(select)
        .bind(&id.projection)
        .bind(id.number)
        .bind(numbers(partitions))
        .fetch_all(connection)
        .await
        .map_err(RuntimeError::postgres("load the parked streams"))?;
    let place = |(tenant, stream, position): (String, String, i64)| {
        let position = Position(position.cast_unsigned());
        (StreamId { tenant, stream }, position)
    };
    Ok(rows.into_iter().map(place).collect())
}

/// The commits that operators discarded for a projection, with the hashes of their records.
pub(crate) async fn discarded(
    connection: &mut PgConnection,
    projection: &str,
    partitions: &[Partition],
) -> Result<BTreeMap<(Partition, Position), Vec<u8>>, RuntimeError> {
    let select = "SELECT partition, position, record_hash FROM annals.discarded \
                  WHERE projection = $1 AND partition = ANY($2)";
    let rows: Vec<(i32, i64, Vec<u8>)> = sqlx::query_as(select)
        .bind(projection)
        .bind(numbers(partitions))
        .fetch_all(connection)
        .await
        .map_err(RuntimeError::postgres("load the discarded commits"))?;
    let place = |(partition, position, hash): (i32, i64, Vec<u8>)| {
        let partition = Partition(partition.cast_unsigned());
        ((partition, Position(position.cast_unsigned())), hash)
    };
    Ok(rows.into_iter().map(place).collect())
}

fn numbers(partitions: &[Partition]) -> Vec<i32> {
    let number = |partition: &Partition| partition.0.cast_signed();
    partitions.iter().map(number).collect()
}

/// Stores streams that are parked from now on, and commits of parked streams. Call this in the
/// transaction that moves the checkpoint.
pub(crate) async fn store(
    tx: &mut PgConnection,
    id: &GenerationId,
    parks: &[Park],
    commits: &[ParkedCommit],
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("park a stream");
    for park in parks {
        let insert = "INSERT INTO annals.parked (projection, generation, tenant, stream, \
                          partition, position, \"offset\", event_type, reason) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        sqlx::query(insert)
            .bind(&id.projection)
            .bind(id.number)
            .bind(&park.stream.tenant)
            .bind(&park.stream.stream)
            .bind(park.partition.0.cast_signed())
            .bind(park.position.0.cast_signed())
            .bind(park.offset.0.cast_signed())
            .bind(&park.event_type)
            .bind(&park.failure.reason)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
    }
    if !parks.is_empty() {
        let count = "UPDATE annals.generation SET parked = parked + $3 \
                     WHERE projection = $1 AND generation = $2";
        sqlx::query(count)
            .bind(&id.projection)
            .bind(id.number)
            .bind(i64::try_from(parks.len()).unwrap_or(i64::MAX))
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
    }
    if commits.is_empty() {
        return Ok(());
    }
    let insert = "INSERT INTO annals.parked_commit \
                      (projection, generation, tenant, stream, position, \"offset\", at, \
                       record_hash) \
                  SELECT $1, $2, * FROM UNNEST($3::text[], $4::text[], $5::bigint[], $6::bigint[], \
                      $7::timestamptz[], $8::bytea[])";
    let of = |commit: &ParkedCommit| (commit.position.0.cast_signed(), commit.offset.0);
    sqlx::query(insert)
        .bind(&id.projection)
        .bind(id.number)
        .bind(
            commits
                .iter()
                .map(|c| c.stream.tenant.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            commits
                .iter()
                .map(|c| c.stream.stream.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(commits.iter().map(|c| of(c).0).collect::<Vec<_>>())
        .bind(
            commits
                .iter()
                .map(|c| of(c).1.cast_signed())
                .collect::<Vec<_>>(),
        )
        .bind(commits.iter().map(|c| c.at.to_utc()).collect::<Vec<_>>())
        .bind(
            commits
                .iter()
                .map(|c| &c.record_hash.0[..])
                .collect::<Vec<_>>(),
        )
        .execute(tx)
        .await
        .map_err(failed())?;
    Ok(())
}

/// What an operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Take the stream up again, from its first parked commit.
    Retry,
    /// Leave its first parked commit out for ever.
    Discard,
}

/// What an operator asked for with a parked stream.
#[derive(Clone, Debug)]
pub(crate) struct Wished {
    pub(crate) stream: StreamId,
    pub(crate) partition: Partition,
    pub(crate) wish: Wish,
    pub(crate) by: String,
    pub(crate) why: String,
}

/// What operators asked for with the parked streams of a generation in some partitions.
pub(crate) async fn wishes(
    connection: &mut PgConnection,
    id: &GenerationId,
    partitions: &[Partition],
) -> Result<Vec<Wished>, RuntimeError> {
    let failed = || RuntimeError::postgres("read what operators asked for");
    let select = "SELECT tenant, stream, partition, wish, coalesce(wished_by, '') AS by, \
                      coalesce(wished_why, '') AS why FROM annals.parked \
                  WHERE projection = $1 AND generation = $2 AND partition = ANY($3) \
                  AND wish IS NOT NULL ORDER BY tenant, stream";
    let rows = sqlx::query(select)
        .bind(&id.projection)
        .bind(id.number)
        .bind(numbers(partitions))
        .fetch_all(connection)
        .await
        .map_err(failed())?;
    let wished = |row: &sqlx::postgres::PgRow| -> Result<Wished, sqlx::Error> {
        let wish: String = row.try_get("wish")?;
        Ok(Wished {
            stream: StreamId {
                tenant: row.try_get("tenant")?,
                stream: row.try_get("stream")?,
            },
            partition: Partition(row.try_get::<i32, _>("partition")?.cast_unsigned()),
            wish: match wish.as_str() {
                "discard" => Wish::Discard,
                _ => Wish::Retry,
            },
            by: row.try_get("by")?,
            why: row.try_get("why")?,
        })
    };
    let wishes = rows.iter().map(wished).collect::<Result<_, _>>();
    wishes.map_err(failed())
}

/// The first parked commits of a stream, in their order, locked until the end of the transaction.
pub(crate) async fn first_commits(
    tx: &mut PgConnection,
    id: &GenerationId,
    stream: &StreamId,
    limit: i64,
) -> Result<Vec<ParkedCommit>, RuntimeError> {
    commits(tx, id, stream, limit, " FOR UPDATE").await
}

/// The first parked commits of a stream, in their order, for a look at them.
pub(crate) async fn waiting(
    connection: &mut PgConnection,
    id: &GenerationId,
    stream: &StreamId,
    limit: i64,
) -> Result<Vec<ParkedCommit>, RuntimeError> {
    commits(connection, id, stream, limit, "").await
}

async fn commits(
    connection: &mut PgConnection,
    id: &GenerationId,
    stream: &StreamId,
    limit: i64,
    lock: &'static str,
) -> Result<Vec<ParkedCommit>, RuntimeError> {
    let select = format!(
        "SELECT position, \"offset\", at, record_hash FROM annals.parked_commit \
         WHERE projection = $1 AND generation = $2 AND tenant = $3 AND stream = $4 \
         ORDER BY position LIMIT $5{lock}"
    );
    let select = sqlx::AssertSqlSafe(select);
    let rows: Vec<(i64, i64, DateTime<Utc>, Vec<u8>)> = sqlx::query_as(select)
        .bind(&id.projection)
        .bind(id.number)
        .bind(&stream.tenant)
        .bind(&stream.stream)
        .bind(limit)
        .fetch_all(connection)
        .await
        .map_err(RuntimeError::postgres(
            "read the commits of a parked stream",
        ))?;
    let commit = |(position, offset, at, hash): (i64, i64, DateTime<Utc>, Vec<u8>)| {
        let hash: [u8; 32] = hash.try_into().ok()?;
        Some(ParkedCommit {
            stream: stream.clone(),
            position: Position(position.cast_unsigned()),
            offset: Offset(offset.cast_unsigned()),
            at: Timestamp::from_utc(at).ok()?,
            record_hash: position::RecordHash(hash),
        })
    };
    Ok(rows.into_iter().filter_map(commit).collect())
}

/// Removes commits that were taken up or discarded; a stream without any is no longer parked.
/// Returns whether it still is.
pub(crate) async fn remove(
    tx: &mut PgConnection,
    id: &GenerationId,
    stream: &StreamId,
    commits: &[ParkedCommit],
) -> Result<bool, RuntimeError> {
    let failed = || RuntimeError::postgres("take a stream's commits out of the parked ones");
    let positions = commits.iter().map(|commit| commit.position.0.cast_signed());
    let delete = "DELETE FROM annals.parked_commit WHERE projection = $1 AND generation = $2 \
                  AND tenant = $3 AND stream = $4 AND position = ANY($5)";
    sqlx::query(delete)
        .bind(&id.projection)
        .bind(id.number)
        .bind(&stream.tenant)
        .bind(&stream.stream)
        .bind(positions.collect::<Vec<_>>())
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    let release = "DELETE FROM annals.parked AS p WHERE projection = $1 AND generation = $2 \
                   AND tenant = $3 AND stream = $4 AND NOT EXISTS (\
                       SELECT FROM annals.parked_commit AS c WHERE c.projection = p.projection \
                       AND c.generation = p.generation AND c.tenant = p.tenant \
                       AND c.stream = p.stream)";
    let released = sqlx::query(release)
        .bind(&id.projection)
        .bind(id.number)
        .bind(&stream.tenant)
        .bind(&stream.stream)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    let released = released.rows_affected();
    let raise = "UPDATE annals.generation SET epoch = epoch + 1, parked = parked - $3 \
                 WHERE projection = $1 AND generation = $2";
    sqlx::query(raise)
        .bind(&id.projection)
        .bind(id.number)
        .bind(released.cast_signed())
        .execute(tx)
        .await
        .map_err(failed())?;
    Ok(released == 0)
}

/// Notes that a stream stays parked: why, and behind which commit.
pub(crate) async fn set_reason(
    connection: &mut PgConnection,
    id: &GenerationId,
    stream: &StreamId,
    at: Option<&ParkedCommit>,
    reason: &str,
) -> Result<(), RuntimeError> {
    let update = "UPDATE annals.parked SET wish = NULL, wished_by = NULL, wished_why = NULL, \
                      attempts = attempts + 1, reason = $5, \
                      position = coalesce($6, position), \"offset\" = coalesce($7, \"offset\") \
                  WHERE projection = $1 AND generation = $2 AND tenant = $3 AND stream = $4";
    sqlx::query(update)
        .bind(&id.projection)
        .bind(id.number)
        .bind(&stream.tenant)
        .bind(&stream.stream)
        .bind(reason)
        .bind(at.map(|commit| commit.position.0.cast_signed()))
        .bind(at.map(|commit| commit.offset.0.cast_signed()))
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("note why a stream stays parked"))?;
    Ok(())
}

/// Records that an operator discarded a commit.
pub(crate) async fn discard(
    tx: &mut PgConnection,
    projection: &str,
    wished: &Wished,
    commit: &ParkedCommit,
) -> Result<(), RuntimeError> {
    let insert = "INSERT INTO annals.discarded (projection, partition, position, record_hash, \
                      tenant, stream, discarded_by, reason) \
                  VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
    sqlx::query(insert)
        .bind(projection)
        .bind(wished.partition.0.cast_signed())
        .bind(commit.position.0.cast_signed())
        .bind(&commit.record_hash.0[..])
        .bind(&wished.stream.tenant)
        .bind(&wished.stream.stream)
        .bind(&wished.by)
        .bind(&wished.why)
        .execute(tx)
        .await
        .map_err(RuntimeError::postgres("record a discarded commit"))?;
    Ok(())
}
