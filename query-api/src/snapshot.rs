//! Runs statements: the rows of one snapshot, with their version.
//!
//! Invariant: version and rows come from one statement, which sees one state of the database, also
//! while a rebuild switches the views. A read never fails because the views were replaced, or because
//! Postgres was restarted and answers again: it is tried again, once for the first reason.
//! Deliberately absent: what is read.

use std::sync::Arc;
use std::time::Duration;

use projector::{RowsVersion, RuntimeError, query_options};
use quick_cache::sync::Cache;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::{Connection as _, Row as _};

use super::Whose;
use super::parked::Parked;
use super::statement::{HeadForm, Statement};

/// The most connections for rows.
pub(super) const CONNECTIONS_MAX: u32 = 8;
/// How many versions are kept: a few of each read model.
const VERSIONS_KEPT: usize = 64;
/// How long a request waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(2);
/// A connection that was idle for longer is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_millis(500);

/// Settings of the connections that read pages and single rows. Every such query is one that an index
/// serves, whatever its values, and to plan it takes several times as long as to run it. So the plan of
/// a prepared statement is kept: it is made once, perhaps for a table that is still empty, so that it
/// must not read the whole table where an index serves (nor, for that, be compiled).
pub(super) const KEPT_PLANS: [(&str, &str); 3] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
];

/// What a statement read.
pub(super) struct Snapshot {
    pub(super) head: Head,
    pub(super) rows: Vec<PgRow>,
}

/// What a statement read beside rows.
#[derive(Clone)]
pub(super) struct Head {
    /// The version of the rows.
    pub(super) version: RowsVersion,
    /// How many rows there are, if that was asked.
    pub(super) count: Option<i64>,
    /// Which streams are parked.
    pub(super) parked: Parked,
}

/// A pool of connections that read only the log's own database.
pub(super) fn pool(
    url: &str,
    whose: &Arc<Whose>,
    connections_max: u32,
    settings: &[(&str, &str)],
) -> Result<PgPool, RuntimeError> {
    // A parallel worker helps no small query, and could mix the order of rows.
    let options = query_options(url)?.options([("max_parallel_workers_per_gather", "0")]);
    let options = options.options(settings.iter().copied());
    let whose = Arc::clone(whose);
    let pool = PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(CONNECTION_WAIT)
        .test_before_acquire(false)
        .before_acquire(|connection, known| {
            Box::pin(async move {
                if known.idle_for > TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            let whose = Arc::clone(&whose);
            Box::pin(async move { whose.require(connection).await })
        })
        .connect_lazy_with(options);
    Ok(pool)
}

/// Versions of rows that were read lately. Most answers between two changes have the same.
pub(super) struct Versions(Cache<Box<str>, RowsVersion>);

impl Versions {
    pub(super) fn new() -> Self {
        Self(Cache::new(VERSIONS_KEPT))
    }

    /// The version that Postgres gave as this text.
    fn read(&self, text: &str) -> Result<RowsVersion, sqlx::Error> {
        if let Some(version) = self.0.get(text) {
            return Ok(version);
        }
        let version = RowsVersion::read(text)?;
        self.0.insert(text.into(), version.clone());
        Ok(version)
    }
}

/// What a statement reads.
pub(super) async fn read(
    pool: &PgPool,
    versions: &Versions,
    statement: &Statement,
) -> Result<Snapshot, sqlx::Error> {
    let snapshot = read_as(pool, versions, statement, HeadForm::Plain).await?;
    if snapshot.head.version.parked() == 0 {
        return Ok(snapshot);
    }
    // Rows and parked streams must be of one snapshot, so both are read.
    read_as(pool, versions, statement, HeadForm::WithParked).await
}

/// What a statement reads, with a head of this form.
pub(super) async fn read_as(
    pool: &PgPool,
    versions: &Versions,
    statement: &Statement,
    head: HeadForm,
) -> Result<Snapshot, sqlx::Error> {
    let mut was_replaced = false;
    let mut broken = 0;
    loop {
        let mut connection = pool.acquire().await?;
        let error = match statement.query(head).fetch_all(&mut *connection).await {
            Ok(rows) => return of_rows(versions, rows),
            Err(error) => error,
        };
        if is_replaced(&error) && !was_replaced {
            // The connection's prepared statements are for views that are gone.
            was_replaced = true;
            connection.clear_cached_statements().await?;
        } else if is_broken(&error) && broken < CONNECTIONS_MAX {
            // All connections may have been cut.
            broken += 1;
            connection.close_on_drop();
        } else {
            return Err(error);
        }
    }
}

pub(super) fn of_rows(versions: &Versions, mut rows: Vec<PgRow>) -> Result<Snapshot, sqlx::Error> {
    let head = rows.first().map(|row| head_of(versions, row)).transpose()?;
    let Some(head) = head.flatten() else {
        // No rows are shown yet.
        return Err(sqlx::Error::RowNotFound);
    };
    rows.remove(0);
    Ok(Snapshot { head, rows })
}

/// The head in a statement's first row; absent in other rows.
pub(super) fn head_of(versions: &Versions, row: &PgRow) -> Result<Option<Head>, sqlx::Error> {
    let Some(text) = row.try_get::<Option<&str>, _>(0)? else {
        return Ok(None);
    };
    let suspects = row.try_get::<Option<&str>, _>(3)?;
    let suspects = suspects.map(serde_json::from_str).transpose();
    let parked = Parked {
        streams: row.try_get::<i64, _>(2)?.cast_unsigned(),
        suspects: suspects
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))?
            .unwrap_or_default(),
    };
    Ok(Some(Head {
        version: versions.read(text)?,
        count: row.try_get(1)?,
        parked,
    }))
}

/// Whether a statement failed because another generation's views took the place of those for which
/// it was prepared.
pub(super) fn is_replaced(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // A cached plan whose result type changed; a relation or column that is gone by now.
    matches!(code.as_deref(), Some("0A000" | "42P01" | "42703" | "XX000"))
}

/// Whether a view has other columns than this program declares, or columns of other types.
pub(super) fn is_of_other_version(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // No such column; a column that cannot be compared with a value of the declared type.
    if matches!(code.as_deref(), Some("42703" | "42883" | "42804")) {
        return true;
    }
    let sqlx::Error::ColumnDecode { source, .. } = error else {
        return false;
    };
    // The client library has no type for this error.
    source.to_string().starts_with("mismatched types")
}

/// Whether the connection was cut, for example by a restart.
pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    let was_ended = matches!(code.as_deref(), Some("57P01" | "57P02"));
    was_ended || matches!(error, sqlx::Error::Io(_))
}

/// Whether a statement was ended because it took too long.
pub(super) fn is_too_slow(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some("57014")
}
