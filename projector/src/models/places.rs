//! The places of a stream's commits in the log, read from the read model `stream_index`.
//!
//! Deliberately absent: the content of the commits; only the log holds it.

use std::sync::LazyLock;

use kernel::{StreamName, TenantId};
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
             c.version, c.position, c.\"offset\", c.record_hash \
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
        let partition: i64 = first.try_get("partition")?;
        let partition = u32::try_from(partition).map_err(|e| sqlx::Error::Decode(e.into()))?;
        let version: i64 = first.try_get("stream_version")?;
        let commits = rows.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Self {
            partition: Partition(partition),
            version: version.cast_unsigned(),
            commits: commits.into_iter().flatten().collect(),
        }))
    }
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
    }))
}
