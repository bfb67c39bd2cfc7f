//! The whole engine in this process: command door, owners and projector, on a log of either kind
//! and a real Postgres.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Customer, Order, Payment};
use engine::{Engine, EngineOptions};
use event_log::log::EventLog;
use futures::StreamExt;
use kernel::registry::Registry;
use position::Partition;
use projector::{Projection, Projector, Purpose, RuntimeError};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::logs::{Kind, NewLog};

/// How long each part may take to become ready.
const READY_WAIT: Duration = Duration::from_secs(30);

/// A rebuild that switches at once and drops the old tables.
pub const NOW: Purpose = Purpose::Switch {
    keep: Duration::ZERO,
};

/// How far a projection has come in a partition.
#[derive(Clone, Debug)]
pub struct Place {
    /// The projection.
    pub projection: String,
    /// The state of its generation; that of the projection if it is live.
    pub state: String,
    /// The partition.
    pub partition: Partition,
    /// How many records it lacks.
    pub gap: Option<u64>,
    /// Why it stopped there.
    pub stopped: Option<String>,
}

/// How far every generation has come in each partition of a log.
///
/// # Errors
/// Those of [`projector::report`].
pub async fn places(
    log: &dyn EventLog,
    url: &str,
    projections: &[Arc<dyn Projection>],
) -> Result<Vec<Place>, RuntimeError> {
    let mut places = Vec::new();
    for report in projector::report(Some(log), url, projections).await? {
        for generation in report.generations {
            let state = match generation.state.as_str() {
                "live" => report.state.as_str().to_owned(),
                state => state.to_owned(),
            };
            places.extend(generation.partitions.into_iter().map(|place| Place {
                projection: report.name.clone(),
                state: state.clone(),
                partition: place.partition,
                gap: place.gap,
                stopped: place.stopped,
            }));
        }
    }
    Ok(places)
}

/// All roles in this process.
pub struct Stack {
    /// The log.
    pub log: NewLog,
    /// The write side.
    pub engine: Engine,
    /// The doors' base address.
    pub url: String,
    /// The database of the read models.
    pub postgres_url: String,
    /// Connections to that database.
    pub pool: PgPool,
    projector: Projector,
    server: JoinHandle<()>,
}

/// The aggregates of the shop.
#[must_use]
pub fn shop() -> Registry {
    Registry::new()
        .with::<Customer>()
        .with::<Order>()
        .with::<Payment>()
}

/// The read models of the shop's program.
#[must_use]
pub fn read_models() -> Vec<Arc<dyn Projection>> {
    projector::with_general(projections::all())
}

impl Stack {
    /// Starts everything on a new log and on the database at `postgres_url`.
    ///
    /// # Panics
    /// If a part cannot be started.
    pub async fn start(kind: Kind, postgres_url: String, projector_tasks: usize) -> Self {
        let log = NewLog::make(kind, 16).await;
        projector::migrate(&postgres_url)
            .await
            .expect("a migrated database");
        let pool = PgPool::connect(&postgres_url).await.expect("a database");
        let options = EngineOptions::alone(Some(log.store()));
        let engine = Engine::start(Arc::clone(&log.log), shop(), options)
            .await
            .expect("a write side");
        engine
            .ready(READY_WAIT)
            .await
            .expect("owners of all partitions");
        let models = read_models();
        let projector = Projector::spawn(&log.log, &postgres_url, &models, projector_tasks)
            .expect("a projector");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = door::finish(command_api::router(engine.clone(), Default::default()));
        let server = tokio::spawn(async move {
            let served = door::serve(listener, router, pending(), Duration::ZERO).await;
            served.expect("a serving door");
        });
        Self {
            log,
            engine,
            url,
            postgres_url,
            pool,
            projector,
            server,
        }
    }

    /// Sends lines through the batch door, and counts the answers by status or code.
    ///
    /// # Panics
    /// If the door does not answer every line.
    pub async fn send(&self, lines: Vec<String>) -> std::collections::BTreeMap<String, u64> {
        let count = lines.len();
        let pieces: Vec<String> = lines
            .chunks(64)
            .map(|chunk| chunk.join("\n") + "\n")
            .collect();
        let body = futures::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
        let response = reqwest::Client::new()
            .post(format!("{}/v1/commands", self.url))
            .header("content-type", "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(body))
            .send()
            .await
            .expect("an answer");
        let mut outcomes = std::collections::BTreeMap::new();
        let mut rest = Vec::new();
        let mut stream = response.bytes_stream();
        let mut answered = 0;
        while let Some(piece) = stream.next().await {
            rest.extend_from_slice(&piece.expect("an unbroken answer"));
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let answer: serde_json::Value = serde_json::from_slice(&line).expect("a JSON line");
                let outcome = match answer["code"].as_str() {
                    Some(code) => code.to_owned(),
                    None => answer["status"].to_string(),
                };
                *outcomes.entry(outcome).or_default() += 1;
                answered += 1;
            }
        }
        assert_eq!(answered, count, "every line has an answer");
        outcomes
    }

    /// Waits until the read models have reached the present end of the log.
    ///
    /// # Panics
    /// If they do not reach it in time.
    pub async fn caught_up(&self) {
        let models = read_models();
        let done = Box::new(|_| {});
        let began = Instant::now();
        projector::catch_up(&self.log.log, &self.postgres_url, &models, done)
            .await
            .unwrap_or_else(|error| panic!("after {:?}: {error}", began.elapsed()));
    }

    /// Stops everything, the write side first.
    ///
    /// # Panics
    /// If the projector had stopped before.
    pub async fn stop(self) -> NewLog {
        self.engine.drain(Duration::from_secs(10)).await;
        self.projector
            .stop()
            .await
            .expect("a projector that did not stop by itself");
        self.server.abort();
        self.pool.close().await;
        self.log
    }
}
