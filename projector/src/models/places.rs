//! The places of a stream's commits in the log, and what is known of the stream, read from the read
//! models `stream_index` and `rejections`.
//!
//! Deliberately absent: the content of the commits; only the log holds it.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use kernel::{StreamName, TenantId, Timestamp};
use position::{Offset, Partition, Position};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgExecutor, Row as _, SqlSafeStr as _, SqlStr};

static OF_VIEWS: LazyLock<SqlStr> =
    LazyLock::new(|| select("read.stream_index", "read.stream_commits"));

/// The statement that reads the places of a stream's commits, for [`StreamPlaces::by`]. `streams` and
/// `commits` are the quoted tables or views.
pub(crate) fn select(streams: &str, commits: &str) -> SqlStr {
    let select = format!(
        "SELECT s.version AS stream_version, s.partition, \
             c.version, c.position, c.\"offset\", c.record_hash, c.recorded_at \
         FROM {streams} AS s LEFT JOIN LATERAL (\
             SELECT * FROM {commits} AS c \
             WHERE c.tenant = s.tenant AND c.stream = s.stream AND c.version >= $3 \
             ORDER BY c.version LIMIT $4) AS c ON true \
         WHERE s.tenant = $1 AND s.stream = $2 ORDER BY c.version"
    );
    AssertSqlSafe(select).into_sql_str()
}

/// The places of a stream's commits, from a version on.
#[derive(Clone, Debug)]
pub struct StreamPlaces {
    /// The stream's partition.
    pub partition: Partition,
    /// The stream's version after its last commit.
    pub version: u64,
    /// The commits that hold its events, in their order.
    pub commits: Vec<CommitPlace>,
}

/// The place of a commit.
#[derive(Clone, Debug)]
pub struct CommitPlace {
    /// Its number among the accepted records of the partition.
    pub position: Position,
    /// Its record's number in the log.
    pub offset: Offset,
    /// The hash of its record when it was projected.
    pub record_hash: Vec<u8>,
    /// The latest time at which a commit of the partition was recorded, up to this one.
    pub recorded_at: Timestamp,
}

impl StreamPlaces {
    /// The places of the commits that hold the events of `stream` from version `from` on, at most
    /// `limit` of them; absent if nothing was recorded for the stream.
    ///
    /// # Errors
    /// The error of Postgres.
    pub async fn of(
        postgres: impl PgExecutor<'_>,
        tenant: &TenantId,
        stream: &StreamName,
        from: u64,
        limit: u32,
    ) -> Result<Option<Self>, sqlx::Error> {
        Self::by(OF_VIEWS.clone(), postgres, tenant, stream, from, limit).await
    }

    /// The same by a statement of [`select`].
    pub(crate) async fn by(
        select: SqlStr,
        postgres: impl PgExecutor<'_>,
        tenant: &TenantId,
        stream: &StreamName,
        from: u64,
        limit: u32,
    ) -> Result<Option<Self>, sqlx::Error> {
        let rows = sqlx::query(select)
            .bind(tenant.as_str())
            .bind(stream.as_str())
            .bind(from.cast_signed())
            .bind(i64::from(limit))
            .fetch_all(postgres)
            .await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let partition = partition_of(first)?;
        let version: i64 = first.try_get("stream_version")?;
        let commits = rows.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Self {
            partition,
            version: version.cast_unsigned(),
            commits: commits.into_iter().flatten().collect(),
        }))
    }
}

/// What the read models say of a stream.
#[derive(Clone, Debug)]
pub struct StreamSummary {
    /// The stream's partition.
    pub partition: Partition,
    /// How many events the stream has.
    pub version: u64,
    /// When its first commit was recorded, refusals included.
    pub first_recorded_at: Timestamp,
    /// When its last commit was recorded, refusals included.
    pub last_recorded_at: Timestamp,
    /// Whether a command for it was refused.
    pub is_refused: bool,
    /// Its last commit with events.
    pub last: Option<CommitPlace>,
}

impl StreamSummary {
    /// The summary of `stream`; absent if nothing was recorded for it.
    ///
    /// # Errors
    /// The error of Postgres.
    pub async fn of(
        postgres: impl PgExecutor<'_>,
        tenant: &TenantId,
        stream: &StreamName,
    ) -> Result<Option<Self>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT s.version AS stream_version, s.partition, \
                 s.first_recorded_at, s.last_recorded_at, \
                 EXISTS (SELECT 1 FROM read.rejections AS r \
                     WHERE r.tenant = s.tenant AND r.stream = s.stream) AS is_refused, \
                 c.position, c.\"offset\", c.record_hash, c.recorded_at \
             FROM read.stream_index AS s LEFT JOIN LATERAL (\
                 SELECT * FROM read.stream_commits AS c \
                 WHERE c.tenant = s.tenant AND c.stream = s.stream \
                 ORDER BY c.version DESC LIMIT 1) AS c ON true \
             WHERE s.tenant = $1 AND s.stream = $2",
        )
        .bind(tenant.as_str())
        .bind(stream.as_str())
        .fetch_optional(postgres)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Self {
            partition: partition_of(&row)?,
            version: row.try_get::<i64, _>("stream_version")?.cast_unsigned(),
            first_recorded_at: time_of(&row, "first_recorded_at")?,
            last_recorded_at: time_of(&row, "last_recorded_at")?,
            is_refused: row.try_get("is_refused")?,
            last: place(&row)?,
        }))
    }
}

/// Whether `stream_index` has taken up a record of the stream's partition that was recorded after
/// `time`. Then nothing that is still to come was recorded up to that time: where times are equal or
/// fall, the latest so far counts. What is read afterwards has all that was.
///
/// # Errors
/// The error of Postgres.
pub async fn is_over(
    postgres: impl PgExecutor<'_>,
    tenant: &TenantId,
    stream: &StreamName,
    time: Timestamp,
) -> Result<bool, sqlx::Error> {
    let select = "SELECT EXISTS (SELECT 1 FROM read.stream_index AS s \
         JOIN annals.generation AS g ON g.projection = $4 AND g.state = 'live' \
         JOIN annals.checkpoint AS c ON c.projection = g.projection \
             AND c.generation = g.generation AND c.partition = s.partition \
         WHERE s.tenant = $1 AND s.stream = $2 AND c.last_recorded_at > $3)";
    sqlx::query_scalar(select)
        .bind(tenant.as_str())
        .bind(stream.as_str())
        .bind(time.to_utc())
        .bind(super::stream_index::STREAM_INDEX)
        .fetch_one(postgres)
        .await
}

fn time_of(row: &PgRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    let time: DateTime<Utc> = row.try_get(column)?;
    Timestamp::from_utc(time).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn partition_of(row: &PgRow) -> Result<Partition, sqlx::Error> {
    let partition: i64 = row.try_get("partition")?;
    let partition = u32::try_from(partition).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok(Partition(partition))
}

/// The place in a row; absent if the stream has no commits from the version on.
fn place(row: &PgRow) -> Result<Option<CommitPlace>, sqlx::Error> {
    let offset: Option<i64> = row.try_get("offset")?;
    let Some(offset) = offset else {
        return Ok(None);
    };
    Ok(Some(CommitPlace {
        position: Position(row.try_get::<i64, _>("position")?.cast_unsigned()),
        offset: Offset(offset.cast_unsigned()),
        record_hash: row.try_get("record_hash")?,
        recorded_at: time_of(row, "recorded_at")?,
    }))
}
