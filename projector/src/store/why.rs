//! Which commits made a row of a read model what it is, and the row as it is stored.
//!
//! Where all versions of rows are kept, they name the commits. Else the index of commits tells which
//! could have contributed: those with an event that the projection takes up, or those of the stream
//! that the key names if the projection looks at commits as a whole; these are bounded in number.
//!
//! Invariant: the commits, the row before them and the row behind them are of one snapshot. Deliberately
//! absent: the commits themselves, which the log holds, and what they contribute
//! (`fold::contributions`).

mod searched;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use kernel::{TenantId, Timestamp};
use position::{Offset, Partition, Position, PositionToken};
use sqlx::{PgConnection, Postgres, QueryBuilder, Row as _};

use crate::declare::history::History;
use crate::declare::projection::Projection;
use crate::declare::table::{RowsOf, Table};
use crate::declare::value::Value;
use crate::fold::contributions::RunningRow;
use crate::run::reached::RowsVersion;
use crate::store::as_of::joined_tables;
use crate::store::decoded::{stored, stored_columns, value};
use crate::store::history::{AT, GONE, PARTITION, POSITION, versions_of};
use crate::store::sql::{
    identifier, joined, key_columns, names_of, owner_column, physical_name, qualified_table,
    value_columns,
};

/// The most commits that are looked at if versions do not name them.
pub const WHY_COMMITS_MAX: u32 = 5_000;
/// The most rows of one table that one row joined, at any time.
const JOINED_MAX: usize = 64;

/// The place of a commit in the order of recorded times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WhyPlace {
    /// When it was recorded, or the latest such time before it in its partition.
    pub at: Timestamp,
    /// Its partition.
    pub partition: Partition,
    /// Its position.
    pub position: Position,
}

/// Up to where commits count.
#[derive(Clone, Debug)]
pub enum WhyUntil {
    /// All that are in the rows.
    Now,
    /// Those that were recorded up to a time.
    Time(Timestamp),
    /// Those up to a position.
    Position(PositionToken),
}

/// How the commits that made a row were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyFrom {
    /// The versions of the row name them.
    History,
    /// The index of commits tells which could have contributed.
    Log,
}

/// A commit that contributed to a row, or may have.
#[derive(Clone, Debug)]
pub struct WhyCommit {
    /// Its place.
    pub place: WhyPlace,
    /// Its record's number in the log.
    pub offset: Offset,
    /// The hash of its record when it was projected.
    pub record_hash: Vec<u8>,
}

/// Why it cannot be said what made a row.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// The live rows are of another version of the projection.
    #[error("the rows are of another version of the read model")]
    OtherVersion,
    /// Nothing is shown yet.
    #[error("the read model shows nothing yet")]
    NothingShown,
    /// The index of commits has not read as much as the rows.
    #[error("the index of commits is behind the read model")]
    IndexBehind,
    /// Too many commits would have to be looked at.
    #[error("more than {WHY_COMMITS_MAX} commits would have to be looked at")]
    TooMany,
    /// Too many other rows would have to be followed.
    #[error(
        "the row has joined more than {JOINED_MAX} rows of {table}, which are too many to follow"
    )]
    TooManyJoined {
        /// The table that it joins.
        table: &'static str,
    },
    /// Postgres does not answer, or not as expected.
    #[error("Postgres failed")]
    Postgres(#[from] sqlx::Error),
}

/// A row that is asked for.
pub(crate) struct Asking<'a> {
    pub(crate) projection: &'a dyn Projection,
    pub(crate) tenant: &'a TenantId,
    pub(crate) table: &'static Table,
    /// The values of its key, without the tenant.
    pub(crate) key: &'a [Value],
    pub(crate) until: &'a WhyUntil,
    /// The last commit of the page before.
    pub(crate) after: Option<WhyPlace>,
    /// The most commits.
    pub(crate) limit: u32,
    /// How many partitions the log has.
    pub(crate) partitions: u32,
}

/// What is known before commits are read.
pub(crate) struct Found {
    /// The row, then the rows that the view joins with it, as they were before the commits.
    pub(crate) rows: Vec<RunningRow>,
    pub(crate) commits: Vec<WhyCommit>,
    pub(crate) from: WhyFrom,
    pub(crate) is_more: bool,
    /// The rows as they are stored behind the last commit; absent if that is not kept.
    pub(crate) held: Option<Vec<RunningRow>>,
    pub(crate) version: RowsVersion,
    /// The parked streams of the tenant, at most some of them: the rows lack what they contribute.
    pub(crate) parked: Vec<(String, Partition, Position)>,
}

/// Up to where commits count, for each partition.
struct Bounds {
    partitions: Vec<i32>,
    at: Vec<Option<DateTime<Utc>>>,
    position: Vec<i64>,
}

impl Bounds {
    fn of(until: &WhyUntil, partitions: u32) -> Self {
        let all = 0..partitions;
        let at = match until {
            WhyUntil::Time(time) => Some(time.to_utc()),
            WhyUntil::Now | WhyUntil::Position(_) => None,
        };
        let position = |number: u32| match until {
            WhyUntil::Now | WhyUntil::Time(_) => i64::MAX,
            WhyUntil::Position(token) => {
                let position = token.positions.get(&Partition(number));
                position.map_or(0, |position| position.0.cast_signed())
            }
        };
        Self {
            partitions: all.clone().map(u32::cast_signed).collect(),
            at: all.clone().map(|_| at).collect(),
            position: all.map(position).collect(),
        }
    }

    /// Adds them as the rows `u`.
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        sql.push("UNNEST(").push_bind(self.partitions.clone());
        sql.push("::int[], ").push_bind(self.at.clone());
        sql.push("::timestamptz[], ")
            .push_bind(self.position.clone());
        sql.push("::bigint[]) AS u(partition, until_at, until_position)");
    }

    fn position_of(&self, partition: Partition) -> i64 {
        let at = usize::try_from(partition.0).unwrap_or(usize::MAX);
        self.position.get(at).copied().unwrap_or_default()
    }
}

/// The commits of one page, and the rows before and behind them. `tx` must be a transaction with one
/// snapshot.
pub(crate) async fn find(tx: &mut PgConnection, asking: &Asking<'_>) -> Result<Found, WhyError> {
    let projection = asking.projection;
    let names = [projection.name(), crate::COMMIT_INDEX];
    let mut versions = crate::rows_versions(&mut *tx, &names).await?;
    let version = versions.remove(projection.name());
    let version = version.ok_or(WhyError::NothingShown)?;
    if version.rule_version() != projection.version() {
        return Err(WhyError::OtherVersion);
    }
    let index = versions.remove(crate::COMMIT_INDEX);
    if !covers(index.as_ref(), &version) {
        return Err(WhyError::IndexBehind);
    }
    let physical = Physical {
        version: version.rule_version(),
        generation: version.generation(),
    };
    let has_history = projection.history() == History::Full
        && physical.has_versions(tx, projection.tables()).await?;
    let rows = wanted(tx, asking, &physical, has_history).await?;
    let bounds = Bounds::of(asking.until, asking.partitions);
    let parked = parked(tx, asking, &version).await?;
    let mut found = Found {
        rows,
        commits: Vec::new(),
        from: WhyFrom::Log,
        is_more: false,
        held: None,
        version,
        parked,
    };
    if has_history {
        found.from = WhyFrom::History;
        found.commits = of_history(tx, asking, &physical, &found.rows, &bounds).await?;
        let limit = usize::try_from(asking.limit).unwrap_or(usize::MAX);
        found.is_more = found.commits.len() > limit;
        found.commits.truncate(limit);
        if let Some(after) = asking.after {
            let before = behind(tx, &physical, &found.rows, &bounds, Some(after));
            found.rows = before.await?;
        }
        let last = found.commits.last().map(|commit| commit.place);
        found.held = Some(match (asking.until, found.is_more) {
            (WhyUntil::Now, false) => present(tx, &physical, &found.rows).await?,
            (_, false) => behind(tx, &physical, &found.rows, &bounds, None).await?,
            (_, true) => behind(tx, &physical, &found.rows, &bounds, last).await?,
        });
        return Ok(found);
    }
    found.commits = searched::of_index(tx, asking, &found, &bounds).await?;
    if matches!(asking.until, WhyUntil::Now) {
        found.held = Some(present(tx, &physical, &found.rows).await?);
    }
    Ok(found)
}

/// The rows as they are stored behind a commit, if all versions are kept.
pub(crate) async fn held_behind(
    connection: &mut PgConnection,
    asking: &Asking<'_>,
    version: &RowsVersion,
    rows: &[RunningRow],
    last: WhyPlace,
) -> Result<Vec<RunningRow>, WhyError> {
    let physical = Physical {
        version: version.rule_version(),
        generation: version.generation(),
    };
    let bounds = Bounds::of(asking.until, asking.partitions);
    behind(connection, &physical, rows, &bounds, Some(last)).await
}

/// Whether the index has read everything that the rows hold.
fn covers(index: Option<&RowsVersion>, rows: &RowsVersion) -> bool {
    let Some(rows) = rows.position() else {
        return true;
    };
    let index = index.and_then(RowsVersion::position);
    rows.positions.iter().all(|(partition, position)| {
        let read = index.and_then(|index| index.positions.get(partition));
        read.is_some_and(|read| read >= position)
    })
}

/// The names of a generation's tables.
struct Physical {
    version: u32,
    generation: i32,
}

impl Physical {
    fn table(&self, name: &str) -> String {
        physical_name(name, self.version, self.generation)
    }

    fn versions(&self, name: &str) -> String {
        qualified_table(&versions_of(&self.table(name)))
    }

    async fn has_versions(
        &self,
        tx: &mut PgConnection,
        tables: &[Table],
    ) -> Result<bool, sqlx::Error> {
        let names: Vec<String> = tables.iter().map(|it| self.versions(it.name)).collect();
        let select = "SELECT coalesce(bool_and(to_regclass(name) IS NOT NULL), false) \
                      FROM UNNEST($1::text[]) AS n(name)";
        let select = sqlx::query_scalar(select).bind(names);
        select.fetch_one(tx).await
    }
}

/// The condition that a row of a table has a key, which begins with the tenant.
fn push_key(sql: &mut QueryBuilder<Postgres>, of: &str, table: &Table, key: &[Value]) {
    for (index, (column, value)) in key_columns(table).iter().zip(key).enumerate() {
        if index > 0 {
            sql.push(" AND ");
        }
        sql.push(format!("{of}.{} = ", identifier(&column.name)));
        push_value(sql, value);
    }
}

fn push_value(sql: &mut QueryBuilder<Postgres>, value: &Value) {
    match value {
        Value::Text(text) => sql.push_bind(text.to_string()),
        Value::Bigint(number) => sql.push_bind(*number),
        Value::Boolean(truth) => sql.push_bind(*truth),
        Value::Uuid(id) => sql.push_bind(*id),
        Value::Timestamptz(moment) => sql.push_bind(moment.to_utc()),
        Value::Date(day) => sql.push_bind(*day),
        Value::Bytea(bytes) => sql.push_bind(bytes.to_vec()),
        Value::Numeric(_)
        | Value::Decimal(_)
        | Value::Double(_)
        | Value::Jsonb(_)
        | Value::TextArray(_) => unreachable!("these are in no key"),
    };
}

/// The row that is asked for, and those that the view joins with it, or joined with it before.
async fn wanted(
    tx: &mut PgConnection,
    asking: &Asking<'_>,
    physical: &Physical,
    has_history: bool,
) -> Result<Vec<RunningRow>, WhyError> {
    let table = asking.table;
    let tenant = Value::from(asking.tenant.as_str());
    let key: Arc<[Value]> = std::iter::once(tenant)
        .chain(asking.key.iter().cloned())
        .collect();
    let mut rows = vec![RunningRow::nothing(table, Arc::clone(&key))];
    let tables = asking.projection.tables();
    let present = |name: &str| qualified_table(&physical.table(name));
    let versions = |name: &str| physical.versions(name);
    for (name, alias) in joined_tables(table.view.joins) {
        let Some(other) = tables.iter().find(|other| other.name == name) else {
            continue;
        };
        let keys = key_columns(other);
        let selected = keys
            .iter()
            .map(|key| format!("{alias}.{}", identifier(&key.name)));
        let selected: Vec<String> = selected.collect();
        let mut own = key_columns(table);
        own.extend(owner_column(table));
        own.extend(value_columns(table));
        let own = names_of(&own);
        // As the rows are; and as they were, with those that went away.
        let mut sources = vec![(present(table.name), joined(table.view.joins, &present))];
        if has_history {
            let joins = joined(table.view.joins, &versions);
            sources.push((physical.versions(table.name), joins));
        }
        let mut sql = QueryBuilder::new("");
        for (index, (source, joins)) in sources.iter().enumerate() {
            let union = if index > 0 { " UNION " } else { "" };
            let selected = selected.join(", ");
            sql.push(format!(
                "{union}SELECT {selected} FROM (SELECT {own} FROM {source} AS o WHERE "
            ));
            push_key(&mut sql, "o", table, &key);
            sql.push(format!(
                ") AS r {joins} WHERE {alias}.\"tenant\" IS NOT NULL"
            ));
        }
        let places = (1..=selected.len()).map(|place| place.to_string());
        let places = places.collect::<Vec<_>>().join(", ");
        sql.push(format!(" ORDER BY {places} LIMIT {}", JOINED_MAX + 1));
        let found = sql.build().fetch_all(&mut *tx).await?;
        if found.len() > JOINED_MAX {
            return Err(WhyError::TooManyJoined { table: other.name });
        }
        for row in found {
            let key: Result<Vec<Option<Value>>, sqlx::Error> = keys
                .iter()
                .enumerate()
                .map(|(index, key)| value(&row, index, key.column_type))
                .collect();
            let key: Arc<[Value]> = key?.into_iter().flatten().collect();
            rows.push(RunningRow::nothing(other, key));
        }
    }
    Ok(rows)
}

/// The places of the commits that left versions of the rows: one more than asked for, if there are.
async fn of_history(
    tx: &mut PgConnection,
    asking: &Asking<'_>,
    physical: &Physical,
    rows: &[RunningRow],
    bounds: &Bounds,
) -> Result<Vec<WhyCommit>, WhyError> {
    let limit = i64::from(asking.limit) + 1;
    let [partition, at, position] = [PARTITION, AT, POSITION].map(identifier);
    let mut sql = QueryBuilder::new(
        "SELECT p.partition, p.at, p.position, c.\"offset\", c.record_hash FROM (\
         SELECT DISTINCT u.partition, v.at, v.position FROM ",
    );
    bounds.push(&mut sql);
    sql.push(" CROSS JOIN LATERAL (");
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            sql.push(" UNION ALL ");
        }
        sql.push(format!(
            "(SELECT v.{at} AS at, v.{position} AS position FROM {} AS v WHERE ",
            physical.versions(row.table.name)
        ));
        push_key(&mut sql, "v", row.table, &row.key);
        sql.push(format!(
            " AND v.{partition} = u.partition AND v.{position} <= u.until_position \
             AND v.{at} <= coalesce(u.until_at, 'infinity')"
        ));
        if let Some(after) = asking.after {
            sql.push(format!(" AND v.{at} >= "))
                .push_bind(after.at.to_utc());
            sql.push(format!(
                " AND (v.{at}, v.{partition}::bigint, v.{position}) > ("
            ));
            push_place(&mut sql, after);
            sql.push(")");
        }
        sql.push(format!(" ORDER BY v.{at}, v.{position} LIMIT "))
            .push_bind(limit);
        sql.push(")");
    }
    sql.push(") AS v ORDER BY v.at, u.partition, v.position LIMIT ")
        .push_bind(limit);
    sql.push(
        ") AS p LEFT JOIN read.commit_index AS c ON c.partition = p.partition \
         AND c.position = p.position AND c.tenant = ",
    )
    .push_bind(asking.tenant.as_str().to_owned());
    sql.push(" ORDER BY p.at, p.partition, p.position");
    let mut commits = Vec::new();
    for row in sql.build().fetch_all(tx).await? {
        let at: DateTime<Utc> = row.try_get(1)?;
        let at = Timestamp::from_utc(at).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let offset: Option<i64> = row.try_get(3)?;
        let offset = offset.ok_or(WhyError::IndexBehind)?;
        commits.push(WhyCommit {
            place: WhyPlace {
                at,
                partition: Partition(row.try_get::<i32, _>(0)?.cast_unsigned()),
                position: Position(row.try_get::<i64, _>(2)?.cast_unsigned()),
            },
            offset: Offset(offset.cast_unsigned()),
            record_hash: row.try_get(4)?,
        });
    }
    Ok(commits)
}

fn push_place(sql: &mut QueryBuilder<Postgres>, place: WhyPlace) {
    sql.push_bind(place.at.to_utc());
    sql.push(", ").push_bind(i64::from(place.partition.0));
    sql.push(", ").push_bind(place.position.0.cast_signed());
}

/// The rows as their versions have them, up to the bounds and up to a commit.
async fn behind(
    connection: &mut PgConnection,
    physical: &Physical,
    rows: &[RunningRow],
    bounds: &Bounds,
    last: Option<WhyPlace>,
) -> Result<Vec<RunningRow>, WhyError> {
    let [partition, at, position, gone] = [PARTITION, AT, POSITION, GONE].map(identifier);
    let mut merged = Vec::with_capacity(rows.len());
    for row in rows {
        let table = row.table;
        let is_owned = table.rows == RowsOf::OneStream;
        let gone = if is_owned { &*gone } else { "false" };
        let mut selected = format!("{gone} AS is_gone");
        let columns = stored_columns(table, "v");
        if !columns.is_empty() {
            selected = format!("{selected}, {columns}");
        }
        let mut sql = QueryBuilder::new("SELECT w.* FROM ");
        bounds.push(&mut sql);
        sql.push(format!(
            " CROSS JOIN LATERAL (SELECT {selected} FROM {} AS v WHERE ",
            physical.versions(table.name)
        ));
        push_key(&mut sql, "v", table, &row.key);
        sql.push(format!(
            " AND v.{partition} = u.partition AND v.{position} <= u.until_position \
             AND v.{at} <= coalesce(u.until_at, 'infinity')"
        ));
        if let Some(last) = last {
            sql.push(format!(" AND v.{at} <= "))
                .push_bind(last.at.to_utc());
            sql.push(format!(
                " AND (v.{at}, v.{partition}::bigint, v.{position}) <= ("
            ));
            push_place(&mut sql, last);
            sql.push(")");
        }
        sql.push(format!(
            " ORDER BY v.{at} DESC, v.{position} DESC LIMIT 1) AS w"
        ));
        let mut held = RunningRow::nothing(table, Arc::clone(&row.key));
        for version in sql.build().fetch_all(&mut *connection).await? {
            if version.try_get::<bool, _>(0)? {
                continue;
            }
            let (owner, cells) = stored(&version, table, 1)?;
            held.owner = owner;
            held.merge(&cells);
        }
        merged.push(held);
    }
    Ok(merged)
}

/// The rows as they are.
async fn present(
    tx: &mut PgConnection,
    physical: &Physical,
    rows: &[RunningRow],
) -> Result<Vec<RunningRow>, WhyError> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let table = row.table;
        let mut selected = "true AS is_there".to_owned();
        let columns = stored_columns(table, "t");
        if !columns.is_empty() {
            selected = format!("{selected}, {columns}");
        }
        let source = qualified_table(&physical.table(table.name));
        let mut sql = QueryBuilder::new(format!("SELECT {selected} FROM {source} AS t WHERE "));
        push_key(&mut sql, "t", table, &row.key);
        let mut held = RunningRow::nothing(table, Arc::clone(&row.key));
        if let Some(row) = sql.build().fetch_optional(&mut *tx).await? {
            let (owner, cells) = stored(&row, table, 1)?;
            held.owner = owner;
            held.merge(&cells);
        }
        found.push(held);
    }
    Ok(found)
}

/// The most parked streams that are named.
pub const WHY_PARKED_MAX: i64 = 20;

/// The parked streams of the tenant.
async fn parked(
    tx: &mut PgConnection,
    asking: &Asking<'_>,
    version: &RowsVersion,
) -> Result<Vec<(String, Partition, Position)>, sqlx::Error> {
    if version.parked() == 0 {
        return Ok(Vec::new());
    }
    let select = "SELECT stream, partition, position FROM annals.parked \
         WHERE projection = $1 AND generation = $2 AND tenant = $3 ORDER BY stream LIMIT $4";
    let rows: Vec<(String, i32, i64)> = sqlx::query_as(select)
        .bind(asking.projection.name())
        .bind(version.generation())
        .bind(asking.tenant.as_str())
        .bind(WHY_PARKED_MAX)
        .fetch_all(tx)
        .await?;
    let parked = rows.into_iter().map(|(stream, partition, position)| {
        let partition = Partition(partition.cast_unsigned());
        (stream, partition, Position(position.cast_unsigned()))
    });
    Ok(parked.collect())
}
