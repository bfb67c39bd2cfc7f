//! The query door: HTTP for reading only.
//!
//! - `GET /v1/read`, `/v1/read/{model}`, `/v1/read/{model}/{key}`: the read models
//! - `GET /v1/read/{model}/{key}/why`: the contributions that made a row
//! - `GET /v1/events`: all accepted commits, from any place on
//! - `GET /v1/streams/{stream}`, `/events`, `/state`, `/diff`: a stream, its events, its state at
//!   any moment, and what differs between two
//! - `GET /v1/stories/{correlation}`: a conversation as a tree
//!
//! Invariant: a row or an event is shown only for the tenant of the request; an event only if its
//! record is the one that was projected. Deliberately absent: commands, and the layer that
//! completes problems ([`door::finish`]).

mod answer;
mod as_of;
mod asked;
mod cache;
pub mod code;
mod cursor;
mod difference;
mod export;
mod feed;
mod format;
mod freshness;
mod levels;
mod lookups;
mod offered;
mod openapi;
mod parameters;
mod parked;
mod read;
mod shown;
mod snapshot;
mod statement;
mod story;
mod streams;
mod values;
mod why;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use door::Problem;
use event_log::log::EventLog;
use kernel::explained;
use kernel::registry::Registry;
use projector::{NamedLog, Projection, RuntimeError, Sampler, require_held};
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use tokio::sync::{OnceCell, Semaphore};

use cache::Cache;
pub use feed::{FOLLOWERS_MAX_DEFAULT, FeedControl};

use export::{EXPORT_STATEMENT_MS, EXPORTS_MAX, Exports};
use feed::{FEED_CONNECTIONS, Feeds};
use levels::Levels;
use shown::ShownModel;
use snapshot::CONNECTIONS_MAX;
use streams::{LONG_FOLDS_MAX, Snapshots};

pub use openapi::fragment;

/// The connections that read how far the read models are.
const LEVELS_CONNECTIONS: u32 = 1;
/// How many requests that waited for a position read their rows at the same time; the other
/// connections are for requests that did not wait.
const WAITED_READS_MAX: usize = CONNECTIONS_MAX as usize / 2;
/// How long the readiness check waits for a connection; shorter than the limit of the check itself.
const READY_WAIT: Duration = Duration::from_millis(800);
/// When to try again if Postgres or the log does not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When to try again if a query took too long.
const SLOW_RETRY_AFTER: Duration = Duration::from_secs(10);

/// The state that all routes share; cheap to clone.
#[derive(Clone)]
pub struct QueryDoor {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn EventLog>,
    registry: Registry,
    pool: PgPool,
    whose: Arc<Whose>,
    models: Vec<ShownModel>,
    projections: Vec<Arc<dyn Projection>>,
    sampler: Option<Arc<Sampler>>,
    levels: Arc<Levels>,
    versions: snapshot::Versions,
    cache: Cache,
    exports: Exports,
    feeds: Feeds,
    waited_reads: Semaphore,
    snapshots: Snapshots,
    long_folds: Semaphore,
}

/// The log whose read models are shown.
struct Whose {
    log: Arc<dyn EventLog>,
    named: OnceCell<Option<NamedLog>>,
    /// Why the last connection was refused, if it was; the pool only reports that it has none.
    refused: Mutex<Option<String>>,
}

impl Whose {
    /// Refuses each new connection to a database that holds another log's read models: the database
    /// may have been replaced after this process started.
    async fn require(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let required = self.held_against(connection).await;
        let refused = required.as_ref().err().map(|error| explained(error));
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
        required.map_err(|error| sqlx::Error::Configuration(Box::new(error)))
    }

    async fn held_against(&self, connection: &mut PgConnection) -> Result<(), RuntimeError> {
        let named = self.named.get_or_try_init(|| NamedLog::of(&*self.log));
        match named.await? {
            Some(named) => require_held(connection, named).await,
            None => Ok(()),
        }
    }

    fn refused(&self) -> Option<String> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl QueryDoor {
    /// A door to the read models of `projections` in the Postgres at `url`, which need not be
    /// reachable yet, and to the streams of `log`, whose states `registry` folds.
    ///
    /// # Errors
    /// `Postgres` if the URL cannot be parsed.
    pub fn new(
        log: &Arc<dyn EventLog>,
        url: &str,
        projections: &[Arc<dyn Projection>],
        registry: Registry,
    ) -> Result<Self, RuntimeError> {
        let whose = Arc::new(Whose {
            log: Arc::clone(log),
            named: OnceCell::new(),
            refused: Mutex::default(),
        });
        let levels = snapshot::pool(url, &whose, LEVELS_CONNECTIONS, &[])?;
        let exports = snapshot::pool(
            url,
            &whose,
            EXPORTS_MAX,
            &[("statement_timeout", EXPORT_STATEMENT_MS)],
        )?;
        let inner = Inner {
            levels: Levels::new(levels, log.partition_count()),
            versions: snapshot::Versions::new(),
            cache: Cache::new(),
            exports: Exports::new(exports),
            feeds: Feeds::new(
                log,
                snapshot::pool(url, &whose, FEED_CONNECTIONS, &snapshot::KEPT_PLANS)?,
                FeedControl::default(),
            ),
            waited_reads: Semaphore::new(WAITED_READS_MAX),
            snapshots: Snapshots::default(),
            long_folds: Semaphore::new(LONG_FOLDS_MAX),
            log: Arc::clone(log),
            registry,
            pool: snapshot::pool(url, &whose, CONNECTIONS_MAX, &snapshot::KEPT_PLANS)?,
            whose,
            models: shown::shown_models(projections),
            projections: projections.to_vec(),
            sampler: None,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Adds to answers how far their read model is behind.
    #[must_use]
    pub fn with_sampler(mut self, sampler: &Arc<Sampler>) -> Self {
        // The door was not cloned yet, so this always succeeds.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.sampler = Some(Arc::clone(sampler));
        }
        self
    }

    /// Bounds the feeds of the door, and lets the process end them.
    #[must_use]
    pub fn with_feeds(mut self, control: &FeedControl) -> Self {
        // As above.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.feeds.control = control.clone();
        }
        self
    }

    /// Updates the gauges. Call this before they are exported.
    pub fn measure(&self) {
        let inner = &self.inner;
        let (all, idle) = (inner.pool.size(), inner.pool.num_idle());
        let idle = f64::from(u32::try_from(idle).unwrap_or(u32::MAX).min(all));
        let used = f64::from(all) - idle;
        metrics::gauge!("annals_postgres_pool_connections", "state" => "idle").set(idle);
        metrics::gauge!("annals_postgres_pool_connections", "state" => "used").set(used);
        metrics::gauge!("annals_postgres_pool_connections_max").set(f64::from(CONNECTIONS_MAX));
        metrics::gauge!("annals_queries_waiting").set(inner.levels.waiting() as f64);
        inner.cache.measure();
        inner.feeds.measure();
    }

    /// Whether Postgres answers, for readiness.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ready(&self) -> Result<(), String> {
        let asked = sqlx::query("SELECT 1").execute(&self.inner.pool);
        let asked = tokio::time::timeout(READY_WAIT, asked).await;
        let Ok(asked) = asked else {
            let refused = self.inner.whose.refused();
            return Err(refused.unwrap_or_else(|| "Postgres does not answer".to_owned()));
        };
        asked.map(|_| ()).map_err(|error| explained(&error))
    }
}

/// The routes, to be merged with others and passed through [`door::finish`].
pub fn router(door: QueryDoor) -> Router {
    Router::new()
        .route("/v1/read", get(read::models))
        .route("/v1/read/{model}", get(read::page))
        .route("/v1/read/{model}/{key}", get(read::one))
        .route("/v1/read/{model}/{key}/why", get(why::why))
        .route("/v1/events", get(feed::events))
        .route("/v1/stories/{correlation}", get(story::story))
        .route("/v1/streams/{stream}", get(streams::summary))
        .route("/v1/streams/{stream}/events", get(streams::events))
        .route("/v1/streams/{stream}/diff", get(streams::diff))
        .route("/v1/streams/{stream}/state", get(streams::state))
        .with_state(door)
}

/// The problem of a failed query: Postgres does not answer, or its answer is not a row of a read
/// model.
fn failed(error: &sqlx::Error) -> Problem {
    use sqlx::Error as E;
    if snapshot::is_of_other_version(error) {
        let detail = "the rows are of another version of the read model than this program's, with \
                      other columns; `annals projections list` tells what is next";
        return Problem::new(code::READ_MODEL_OF_OTHER_VERSION, detail)
            .retry_after(SLOW_RETRY_AFTER);
    }
    if let E::ColumnDecode { .. }
    | E::ColumnNotFound(_)
    | E::ColumnIndexOutOfBounds { .. }
    | E::Decode(_) = error
    {
        return Problem::internal(error);
    }
    if snapshot::is_too_slow(error) {
        let detail = "the query took too long; ask for less: filter more narrowly, or sort by \
                      another column";
        return Problem::new(code::QUERY_TOO_SLOW, detail).retry_after(SLOW_RETRY_AFTER);
    }
    tracing::warn!(%error, "a query to Postgres failed");
    let detail = "the read models do not answer";
    Problem::new(code::READ_MODEL_UNAVAILABLE, detail).retry_after(RETRY_AFTER)
}
