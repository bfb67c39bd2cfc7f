//! Checks commits against their streams' versions where the log's reader does not know them because
//! it continued from a checkpoint. The read model `stream_index` knows them, as far as it has come.
//!
//! Deliberately absent: the checks that the reader makes itself (`event_log::subscription`).

use event_log::damage::{Damage, DamageKind};
use event_log::subscription::{Batch, Placed};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use crate::STREAM_INDEX;
use crate::error::RuntimeError;

/// How far the live model has come in a partition; no row if there is no live model.
const REACHED: &str = "SELECT c.\"offset\" FROM annals.generation AS g \
    JOIN annals.checkpoint AS c USING (projection, generation) \
    WHERE g.projection = $1 AND g.state = 'live' AND c.partition = $2 \
    AND to_regclass('read.stream_commits') IS NOT NULL";

/// The version of each stream before a place; 0 if the stream has no commit before it.
const BEFORE: &str = "SELECT coalesce((SELECT max(c.version) FROM read.stream_commits AS c \
        WHERE c.tenant = k.tenant AND c.stream = k.stream AND c.\"offset\" < k.place), 0) \
    FROM UNNEST($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS k(tenant, stream, place, n) \
    ORDER BY k.n";

/// The commits of `batches` that do not follow their streams' versions. Connects at first use.
pub(super) async fn gaps(
    postgres: &PgConnectOptions,
    looking: &mut Option<PgConnection>,
    batches: &[Batch],
) -> Result<Vec<Damage>, RuntimeError> {
    // The connection was taken out, so that after an error the next call connects again.
    let mut connection = match looking.take() {
        Some(connection) => connection,
        None => {
            let connect = RuntimeError::postgres("connect to Postgres");
            postgres.connect().await.map_err(connect)?
        }
    };
    let mut damaged = Vec::new();
    for batch in batches {
        if unchecked(batch).next().is_some() {
            damaged.extend(gap(&mut connection, batch).await?);
        }
    }
    *looking = Some(connection);
    Ok(damaged)
}

/// The commits whose stream's version the reader did not know.
fn unchecked(batch: &Batch) -> impl Iterator<Item = &Placed> {
    batch.commits.iter().filter(|placed| !placed.is_checked)
}

/// The first commit of a batch that does not follow the stored version of its stream, if any. All
/// commits before the batch must be durable.
async fn gap(connection: &mut PgConnection, batch: &Batch) -> Result<Option<Damage>, RuntimeError> {
    let failed = || RuntimeError::postgres("read the versions of streams");
    let reached: Option<i64> = sqlx::query_scalar(REACHED)
        .bind(STREAM_INDEX)
        .bind(i64::from(batch.partition.0))
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed())?;
    let before = batch
        .before
        .as_ref()
        .map(|before| before.offset.0.cast_signed());
    if reached < before || reached.is_none() {
        // `stream_index` has not come this far. Its own projector checks these commits when it
        // reaches them.
        return Ok(None);
    }
    let (mut tenants, mut streams, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for placed in unchecked(batch) {
        tenants.push(placed.commit.tenant.as_str());
        streams.push(placed.commit.stream.as_str());
        places.push(placed.record.offset.0.cast_signed());
    }
    let versions: Vec<i64> = sqlx::query_scalar(BEFORE)
        .bind(&tenants)
        .bind(&streams)
        .bind(&places)
        .fetch_all(connection)
        .await
        .map_err(failed())?;
    let versions = versions.into_iter().map(i64::cast_unsigned);
    let mut found = unchecked(batch).zip(versions);
    let gap = found.find(|(placed, version)| placed.commit.from_version != *version);
    Ok(gap.map(|(Placed { record, commit, .. }, expected)| Damage {
        partition: batch.partition,
        offset: record.offset,
        kind: DamageKind::VersionGap {
            stream: format!("{}/{}", commit.tenant, commit.stream),
            expected,
            found: commit.from_version,
        },
    }))
}
