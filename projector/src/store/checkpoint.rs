//! Checkpoints in Postgres: loaded, and moved by compare-and-set on all of their columns.
//!
//! Invariant: a checkpoint changes only if it is exactly the one that the reader continues, and is
//! created only if there is none; otherwise nothing changes. Deliberately absent: the rows that the
//! same transaction writes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use event_log::checkpoint::Checkpoint;
use kernel::Timestamp;
use position::{ChainHash, LogId, Offset, Partition, Position, RecordHash, Term, WriterId};
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqlSafeStr as _, SqlStr};
use uuid::Uuid;

use crate::error::RuntimeError;

/// The columns of a checkpoint after its key, with their types.
const COLUMNS: [(&str, &str); 10] = [
    ("log", "uuid"),
    ("record_version", "int"),
    ("offset", "bigint"),
    ("record_hash", "bytea"),
    ("leader_epoch", "int"),
    ("term", "bigint"),
    ("writer", "uuid"),
    ("head", "bytea"),
    ("position", "bigint"),
    ("last_recorded_at", "timestamptz"),
];

/// One step of a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) projection: &'static str,
    pub(crate) version: i32,
    pub(crate) generation: i32,
    pub(crate) partition: Partition,
    /// The checkpoint that must be stored now; absent: none may be stored.
    pub(crate) before: Option<Checkpoint>,
    pub(crate) after: Checkpoint,
}

static INSERT: LazyLock<SqlStr> = LazyLock::new(|| {
    let names: Vec<String> = COLUMNS
        .iter()
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    let arrays = arrays(5, &COLUMNS);
    let sql = format!(
        "INSERT INTO annals.checkpoint (projection, version, generation, partition, {}) \
         SELECT * FROM UNNEST($1::text[], $2::int[], $3::int[], $4::int[], {arrays}) \
         ON CONFLICT DO NOTHING",
        names.join(", "),
    );
    AssertSqlSafe(sql).into_sql_str()
});

/// The ceiling's places have no version of their own.
static INSERT_CEILING: LazyLock<SqlStr> = LazyLock::new(|| {
    let names = COLUMNS.iter().map(|(name, _)| format!("\"{name}\""));
    let names = names.collect::<Vec<_>>().join(", ");
    let arrays = arrays(4, &COLUMNS);
    let given = "n.".to_owned() + &COLUMNS.map(|(name, _)| format!("\"{name}\"")).join(", n.");
    let sql = format!(
        "INSERT INTO annals.ceiling (projection, version, generation, partition, {names}) \
         SELECT g.projection, g.version, g.generation, n.partition, {given} \
         FROM annals.generation AS g, UNNEST($3::int[], {arrays}) AS n(partition, {names}) \
         WHERE g.projection = $1 AND g.generation = $2"
    );
    AssertSqlSafe(sql).into_sql_str()
});

static UPDATE: LazyLock<SqlStr> = LazyLock::new(|| {
    let columns = |prefix: &str| {
        let named = COLUMNS.iter().map(|(name, _)| format!("{prefix}_{name}"));
        named.collect::<Vec<_>>().join(", ")
    };
    let sets = COLUMNS
        .iter()
        .map(|(name, _)| format!("\"{name}\" = n.after_{name}"));
    let same = COLUMNS
        .iter()
        .map(|(name, _)| format!("c.\"{name}\" IS NOT DISTINCT FROM n.before_{name}"));
    let sql = format!(
        "UPDATE annals.checkpoint AS c SET {}, updated_at = now() \
         FROM UNNEST($1::text[], $2::int[], $3::int[], $4::int[], {}, {}) \
         AS n(projection, version, generation, partition, {}, {}) \
         WHERE c.projection = n.projection AND c.version = n.version \
         AND c.generation = n.generation AND c.partition = n.partition AND {}",
        sets.collect::<Vec<_>>().join(", "),
        arrays(5, &COLUMNS),
        arrays(5 + COLUMNS.len(), &COLUMNS),
        columns("after"),
        columns("before"),
        same.collect::<Vec<_>>().join(" AND "),
    );
    AssertSqlSafe(sql).into_sql_str()
});

fn arrays(first: usize, columns: &[(&str, &str)]) -> String {
    let array = |(index, (_, sql_type)): (usize, &(&str, &str))| {
        format!("${}::{sql_type}[]", first + index)
    };
    columns
        .iter()
        .enumerate()
        .map(array)
        .collect::<Vec<_>>()
        .join(", ")
}

type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

fn bind_keys<'q>(query: PgQuery<'q>, moves: &[&'q Move]) -> PgQuery<'q> {
    let partition = |m: &&Move| i32::try_from(m.partition.0).expect("partitions are few");
    query
        .bind(moves.iter().map(|m| m.projection).collect::<Vec<_>>())
        .bind(moves.iter().map(|m| m.version).collect::<Vec<_>>())
        .bind(moves.iter().map(|m| m.generation).collect::<Vec<_>>())
        .bind(moves.iter().map(partition).collect::<Vec<_>>())
}

fn bind_checkpoints<'q>(query: PgQuery<'q>, checkpoints: &[&'q Checkpoint]) -> PgQuery<'q> {
    macro_rules! column {
        ($checkpoint:ident => $value:expr) => {
            checkpoints
                .iter()
                .map(|$checkpoint| $value)
                .collect::<Vec<_>>()
        };
    }
    query
        .bind(column!(c => c.log.map(|log| log.0)))
        .bind(column!(c => i32::from(c.version)))
        .bind(column!(c => c.offset.0.cast_signed()))
        .bind(column!(c => &c.record_hash.0[..]))
        .bind(column!(c => c.leader_epoch))
        .bind(column!(c => c.term.0.cast_signed()))
        .bind(column!(c => c.writer.0))
        .bind(column!(c => &c.head.0[..]))
        .bind(column!(c => c.position.0.cast_signed()))
        .bind(column!(c => c.last_recorded_at.map(Timestamp::to_utc)))
}

/// Moves all checkpoints or none. Call this in the transaction that changes the rows.
pub(crate) async fn compare_and_set(
    tx: &mut PgConnection,
    moves: &[&Move],
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("move the checkpoints");
    let (mut new, mut further) = (Vec::new(), Vec::new());
    let (mut first, mut after, mut before) = (Vec::new(), Vec::new(), Vec::new());
    for &one in moves {
        match &one.before {
            None => {
                new.push(one);
                first.push(&one.after);
            }
            Some(checkpoint) => {
                further.push(one);
                after.push(&one.after);
                before.push(checkpoint);
            }
        }
    }
    let mut moved = 0;
    if !new.is_empty() {
        let insert = bind_keys(sqlx::query(INSERT.clone()), &new);
        let insert = bind_checkpoints(insert, &first);
        moved += insert
            .execute(&mut *tx)
            .await
            .map_err(failed())?
            .rows_affected();
    }
    if !further.is_empty() {
        let update = bind_keys(sqlx::query(UPDATE.clone()), &further);
        let update = bind_checkpoints(bind_checkpoints(update, &after), &before);
        moved += update
            .execute(&mut *tx)
            .await
            .map_err(failed())?
            .rows_affected();
    }
    if moved == moves.len() as u64 {
        return Ok(());
    }
    let mut projections: Vec<&str> = moves.iter().map(|m| m.projection).collect();
    projections.sort_unstable();
    projections.dedup();
    Err(RuntimeError::Superseded {
        projections: projections.join(", "),
    })
}

/// The checkpoints of a generation, by partition.
pub(crate) async fn load(
    connection: &mut PgConnection,
    projection: &str,
    generation: i32,
) -> Result<BTreeMap<Partition, Checkpoint>, RuntimeError> {
    let select = "SELECT * FROM annals.checkpoint WHERE projection = $1 AND generation = $2";
    load_by(connection, select, projection, generation).await
}

/// How far a building may go; absent if it may go as far as the log.
pub(crate) async fn load_ceiling(
    connection: &mut PgConnection,
    projection: &str,
    generation: i32,
) -> Result<Option<BTreeMap<Partition, Checkpoint>>, RuntimeError> {
    let has = "SELECT has_ceiling FROM annals.generation \
               WHERE projection = $1 AND generation = $2";
    let has: Option<bool> = sqlx::query_scalar(has)
        .bind(projection)
        .bind(generation)
        .fetch_optional(&mut *connection)
        .await
        .map_err(RuntimeError::postgres("load the ceiling of a rebuild"))?;
    if has != Some(true) {
        return Ok(None);
    }
    let select = "SELECT * FROM annals.ceiling WHERE projection = $1 AND generation = $2";
    Ok(Some(
        load_by(connection, select, projection, generation).await?,
    ))
}

/// Lets a building go as far as `places` in each partition; absent: as far as the log.
pub(crate) async fn set_ceiling(
    connection: &mut PgConnection,
    projection: &str,
    building: i32,
    places: Option<&BTreeMap<Partition, Checkpoint>>,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("set the ceiling of a rebuild");
    let mut tx = connection.begin().await.map_err(failed())?;
    sqlx::query("DELETE FROM annals.ceiling WHERE projection = $1 AND generation = $2")
        .bind(projection)
        .bind(building)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    if let Some(places) = places {
        let partitions = places.keys().map(|partition| partition.0.cast_signed());
        let insert = sqlx::query(INSERT_CEILING.clone())
            .bind(projection)
            .bind(building)
            .bind(partitions.collect::<Vec<_>>());
        let checkpoints: Vec<&Checkpoint> = places.values().collect();
        bind_checkpoints(insert, &checkpoints)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
    }
    let has = "UPDATE annals.generation SET has_ceiling = $3 \
               WHERE projection = $1 AND generation = $2";
    sqlx::query(has)
        .bind(projection)
        .bind(building)
        .bind(places.is_some())
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    tx.commit().await.map_err(failed())
}

/// Whether `own` has not come as far as `other` in some partition.
pub(crate) fn is_behind(
    own: &BTreeMap<Partition, Checkpoint>,
    other: &BTreeMap<Partition, Checkpoint>,
) -> bool {
    let offset = |places: &BTreeMap<Partition, Checkpoint>, partition| {
        places.get(partition).map(|checkpoint| checkpoint.offset)
    };
    other.keys().any(|p| offset(own, p) < offset(other, p))
}

async fn load_by(
    connection: &mut PgConnection,
    select: &'static str,
    projection: &str,
    generation: i32,
) -> Result<BTreeMap<Partition, Checkpoint>, RuntimeError> {
    let failed = || RuntimeError::postgres("load the checkpoints");
    let rows = sqlx::query(select)
        .bind(projection)
        .bind(generation)
        .fetch_all(connection)
        .await
        .map_err(failed())?;
    rows.iter()
        .map(|row| read(row).map_err(failed()))
        .collect::<Result<_, _>>()
}

/// The partition and the checkpoint in a row of `annals.checkpoint` with all of its columns.
///
/// # Errors
/// A column is missing, or has another form.
pub fn read(row: &PgRow) -> Result<(Partition, Checkpoint), sqlx::Error> {
    let partition: i32 = row.try_get("partition")?;
    let version: i32 = row.try_get("record_version")?;
    let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    let hash = |column: &str| -> Result<[u8; 32], sqlx::Error> {
        let bytes: Vec<u8> = row.try_get(column)?;
        bytes.try_into().map_err(|_| decode("a hash has 32 bytes"))
    };
    let last: Option<DateTime<Utc>> = row.try_get("last_recorded_at")?;
    let last = last.map(Timestamp::from_utc).transpose();
    let checkpoint = Checkpoint {
        log: row.try_get::<Option<Uuid>, _>("log")?.map(LogId),
        version: u16::try_from(version).map_err(|_| decode("a record format has 16 bits"))?,
        offset: Offset(number("offset")?),
        record_hash: RecordHash(hash("record_hash")?),
        leader_epoch: row.try_get("leader_epoch")?,
        term: Term(number("term")?),
        writer: WriterId(row.try_get("writer")?),
        head: ChainHash(hash("head")?),
        position: Position(number("position")?),
        last_recorded_at: last.map_err(|_| decode("a moment of the years 1 to 9999"))?,
    };
    let partition = u32::try_from(partition).map_err(|_| decode("partitions are not negative"))?;
    Ok((Partition(partition), checkpoint))
}

fn decode(expected: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(expected.into())
}
