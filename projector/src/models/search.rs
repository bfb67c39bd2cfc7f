//! Searches in the read model `commit_index`: the places of the commits that have something in common.
//!
//! Invariant: a search reads one range of one index for each tenant and partition, in the order of the
//! log, and at most a given number of rows of each; what it looked at and left out, it says. Deliberately
//! absent: the content of the commits; only the log holds it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use kernel::{TenantId, Timestamp};
use position::{Offset, Partition, Position};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgExecutor, Postgres, QueryBuilder, Row as _, SqlSafeStr as _};

use crate::declare::value::Value;

/// All tenants, each found behind the one before it: as many steps as there are tenants.
const TENANTS: &str = "WITH RECURSIVE each AS (\
        (SELECT tenant FROM read.commit_index ORDER BY tenant LIMIT 1) \
        UNION ALL SELECT (SELECT n.tenant FROM read.commit_index AS n \
            WHERE n.tenant > each.tenant ORDER BY n.tenant LIMIT 1) \
        FROM each WHERE each.tenant IS NOT NULL\
    ) SELECT tenant FROM each WHERE tenant IS NOT NULL";

/// What the commits of a search have in common. Absent: it does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitFilter {
    /// The tenant; absent: all tenants.
    pub tenant: Option<TenantId>,
    /// The stream.
    pub stream: Option<String>,
    /// The stream's category.
    pub category: Option<String>,
    /// The type of one of its events.
    pub event_type: Option<String>,
    /// The kind of the actor.
    pub actor_kind: Option<String>,
    /// The actor's name within its kind.
    pub actor_id: Option<String>,
    /// The conversation.
    pub correlation_id: Option<String>,
    /// The client's name for the intent.
    pub command_id: Option<String>,
}

/// A range of positions of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionRange {
    /// The partition.
    pub partition: Partition,
    /// The position before the first one.
    pub after: Position,
    /// The last position.
    pub until: Position,
}

/// A commit that a search looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCommit {
    /// The partition.
    pub partition: Partition,
    /// Its number among the accepted records of the partition.
    pub position: Position,
    /// Its record's number in the log.
    pub offset: Offset,
    /// The hash of its record when it was projected.
    pub record_hash: Vec<u8>,
    /// The latest time at which a commit of the partition was recorded, up to this one.
    pub recorded_at: Timestamp,
    /// Whether it has everything that was asked for. The index has one thing of it only.
    pub is_match: bool,
}

/// The column whose index a search reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    Column(&'static str),
    EventType,
    Tenant,
}

impl CommitFilter {
    /// Whether anything but the tenant is asked for.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.driver() != Driver::Tenant || self.actor_kind.is_some()
    }

    /// The index with, most likely, the fewest rows for what is asked.
    fn driver(&self) -> Driver {
        let columns = [
            ("command_id", &self.command_id),
            ("correlation_id", &self.correlation_id),
            ("stream", &self.stream),
            ("actor_id", &self.actor_id),
        ];
        let column = columns.iter().find(|(_, value)| value.is_some());
        match column {
            Some((column, _)) => Driver::Column(column),
            None if self.event_type.is_some() => Driver::EventType,
            None if self.category.is_some() => Driver::Column("category"),
            None => Driver::Tenant,
        }
    }

    /// What is asked of columns.
    fn conditions(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let conditions = [
            ("stream", self.stream.as_deref()),
            ("category", self.category.as_deref()),
            ("actor_kind", self.actor_kind.as_deref()),
            ("actor_id", self.actor_id.as_deref()),
            ("correlation_id", self.correlation_id.as_deref()),
            ("command_id", self.command_id.as_deref()),
        ];
        let conditions = conditions.into_iter();
        conditions.filter_map(|(column, value)| Some((column, value?)))
    }

    fn statement(&self, ranges: &[PositionRange], limit: u32) -> QueryBuilder<Postgres> {
        let driver = self.driver();
        let numbers = |of: fn(&PositionRange) -> u64| -> Vec<i64> {
            ranges.iter().map(|range| of(range).cast_signed()).collect()
        };
        let mut sql = QueryBuilder::new("SELECT p.* FROM UNNEST(");
        sql.push_bind(numbers(|range| range.partition.0.into()));
        sql.push("::bigint[], ")
            .push_bind(numbers(|range| range.after.0));
        sql.push("::bigint[], ")
            .push_bind(numbers(|range| range.until.0));
        sql.push(
            "::bigint[]) AS f(partition, after, until) CROSS JOIN LATERAL (\
             SELECT c.partition, c.position, c.\"offset\", c.record_hash, c.recorded_at, (true",
        );
        for (column, value) in self.conditions() {
            if driver != Driver::Column(column) {
                sql.push(format!(" AND c.{column} = "))
                    .push_bind(indexed(value));
            }
        }
        if let (Some(event_type), false) = (&self.event_type, driver == Driver::EventType) {
            sql.push(" AND ")
                .push_bind(event_type.clone())
                .push(" = ANY(c.event_types)");
        }
        sql.push(") AS is_match FROM (");
        match &self.tenant {
            Some(tenant) => {
                sql.push("SELECT ")
                    .push_bind(tenant.as_str().to_owned())
                    .push("::text AS tenant");
            }
            None => {
                sql.push(TENANTS);
            }
        }
        let table = match driver {
            Driver::EventType => "read.commit_types",
            Driver::Column(_) | Driver::Tenant => "read.commit_index",
        };
        sql.push(format!(
            ") AS k CROSS JOIN LATERAL (SELECT * FROM {table} AS d WHERE d.tenant = k.tenant \
             AND d.partition = f.partition AND d.position > f.after AND d.position <= f.until"
        ));
        for (column, value) in self.conditions() {
            if driver == Driver::Column(column) {
                sql.push(format!(" AND d.{column} = "))
                    .push_bind(indexed(value));
            }
        }
        if let (Some(event_type), Driver::EventType) = (&self.event_type, driver) {
            sql.push(" AND d.event_type = ")
                .push_bind(indexed(event_type));
        }
        sql.push(" ORDER BY d.position LIMIT ")
            .push_bind(i64::from(limit));
        sql.push(match driver {
            Driver::EventType => {
                ") AS t JOIN read.commit_index AS c ON c.tenant = t.tenant \
                 AND c.partition = t.partition AND c.position = t.position"
            }
            Driver::Column(_) | Driver::Tenant => ") AS c",
        });
        sql.push(" ORDER BY c.position LIMIT ")
            .push_bind(i64::from(limit));
        sql.push(") AS p ORDER BY p.partition, p.position");
        sql
    }

    /// The next commits of each range, in the order of the log: at most `limit` of each range. A range
    /// of which fewer came has no more.
    ///
    /// # Errors
    /// The error of Postgres.
    pub async fn search(
        &self,
        postgres: impl PgExecutor<'_>,
        ranges: &[PositionRange],
        limit: u32,
    ) -> Result<Vec<FoundCommit>, sqlx::Error> {
        let mut statement = self.statement(ranges, limit);
        let rows = statement.build().fetch_all(postgres).await?;
        rows.iter().map(found).collect()
    }

    /// Whether the log has commits of other tenants than this filter's.
    ///
    /// # Errors
    /// The error of Postgres.
    pub async fn leaves_out_tenants(
        &self,
        postgres: impl PgExecutor<'_>,
    ) -> Result<bool, sqlx::Error> {
        let Some(tenant) = &self.tenant else {
            return Ok(false);
        };
        let select = "SELECT EXISTS (SELECT FROM read.commit_index WHERE tenant < $1) \
                      OR EXISTS (SELECT FROM read.commit_index WHERE tenant > $1)";
        let select = sqlx::query_scalar(select).bind(tenant.as_str());
        select.fetch_one(postgres).await
    }
}

/// A text as it stands in an index.
fn indexed(text: &str) -> String {
    match Value::from(text).into_key() {
        Value::Text(text) => text.into(),
        _ => text.to_owned(),
    }
}

/// The last commit of each partition at or before a position, whatever its tenant.
///
/// # Errors
/// The error of Postgres.
pub async fn last_until(
    postgres: impl PgExecutor<'_>,
    until: &BTreeMap<Partition, Position>,
) -> Result<BTreeMap<Partition, FoundCommit>, sqlx::Error> {
    let places = "SELECT * FROM UNNEST($1::bigint[], $2::bigint[]) AS f(partition, place)";
    let (partitions, positions) = columns(until);
    let select = last_of(places);
    let rows = sqlx::query(AssertSqlSafe(select).into_sql_str())
        .bind(partitions)
        .bind(positions);
    by_partition(&rows.fetch_all(postgres).await?)
}

/// The last commit of each partition that was recorded before a time, at or before a position, whatever
/// its tenant. Times never fall along the positions, so each step halves the range that is left.
///
/// # Errors
/// The error of Postgres.
pub async fn last_before(
    postgres: impl PgExecutor<'_>,
    until: &BTreeMap<Partition, Position>,
    time: Timestamp,
) -> Result<BTreeMap<Partition, FoundCommit>, sqlx::Error> {
    // The wanted position lies in `low..high`.
    let places = "\
        WITH RECURSIVE halved AS (\
            SELECT partition, 0::bigint AS low, place + 1 AS high \
            FROM UNNEST($1::bigint[], $2::bigint[]) AS f(partition, place) \
            UNION ALL \
            SELECT h.partition, CASE WHEN h.is_before THEN h.middle ELSE h.low END, \
                CASE WHEN h.is_before THEN h.high ELSE h.middle END \
            FROM (SELECT *, (low + high) / 2 AS middle, coalesce((\
                    SELECT c.recorded_at FROM read.commit_index AS c \
                    WHERE c.partition = halved.partition AND c.position >= (low + high) / 2 \
                    ORDER BY c.position LIMIT 1) < $3, false) AS is_before \
                FROM halved WHERE high - low > 1) AS h\
        ) SELECT partition, low AS place FROM halved WHERE high - low <= 1";
    let (partitions, positions) = columns(until);
    let select = last_of(places);
    let rows = sqlx::query(AssertSqlSafe(select).into_sql_str())
        .bind(partitions)
        .bind(positions)
        .bind(time.to_utc());
    by_partition(&rows.fetch_all(postgres).await?)
}

/// Partitions and positions as the columns of a statement.
fn columns(places: &BTreeMap<Partition, Position>) -> (Vec<i64>, Vec<i64>) {
    let columns = places
        .iter()
        .map(|(partition, position)| (i64::from(partition.0), position.0.cast_signed()));
    columns.unzip()
}

/// The statement for the last commit at or before each of some places.
fn last_of(places: &str) -> String {
    format!(
        "SELECT c.* FROM ({places}) AS f CROSS JOIN LATERAL (\
             SELECT c.partition, c.position, c.\"offset\", c.record_hash, c.recorded_at, \
                 true AS is_match FROM read.commit_index AS c \
             WHERE c.partition = f.partition AND c.position <= f.place \
             ORDER BY c.position DESC LIMIT 1) AS c"
    )
}

fn by_partition(rows: &[PgRow]) -> Result<BTreeMap<Partition, FoundCommit>, sqlx::Error> {
    let rows = rows
        .iter()
        .map(|row| found(row).map(|one| (one.partition, one)));
    rows.collect()
}

fn found(row: &PgRow) -> Result<FoundCommit, sqlx::Error> {
    let partition: i64 = row.try_get("partition")?;
    let recorded_at: DateTime<Utc> = row.try_get("recorded_at")?;
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    Ok(FoundCommit {
        partition: Partition(u32::try_from(partition).map_err(|e| failed(e.into()))?),
        position: Position(row.try_get::<i64, _>("position")?.cast_unsigned()),
        offset: Offset(row.try_get::<i64, _>("offset")?.cast_unsigned()),
        record_hash: row.try_get("record_hash")?,
        recorded_at: Timestamp::from_utc(recorded_at).map_err(|e| failed(e.into()))?,
        is_match: row.try_get("is_match")?,
    })
}
