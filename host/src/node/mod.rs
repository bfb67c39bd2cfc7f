//! One running process: the roles it has, from start to an orderly end.
//!
//! Invariant: commands need only the log, so a Postgres that is down stops no command. The shutdown
//! has a fixed order: hand over the partitions, stop listening, answer the requests under way, stop
//! projecting, stop Postgres last. Deliberately absent: what is printed about it (`command`).

mod cluster;
mod docs;
mod files;
pub mod http;
mod log;
pub mod metrics;
mod pages;
mod postgres;
mod routes;
mod supervisor;
#[cfg(feature = "otlp")]
mod traces;
#[cfg(not(feature = "otlp"))]
#[path = "no_traces.rs"]
mod traces;

use admin_api::{Controls, Replays};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use command_api::peer::Server;
use console::Console;
use engine::owner::OwnerSettings;
use engine::{Engine, EngineOptions};
use event_log::log::{EventLog, LOOK_EVERY, LogAddress, LogWatch};
use projector::{NewVersion, Projector, ProjectorOptions, Sampler, check_declarations};
use query_api::FeedControl;
use tokio::sync::Mutex;

pub use self::log::{
    PARTITIONS_DEFAULT, create_folder, create_parent, open_claimed, open_log, open_or_make,
    partition_count,
};
pub use postgres::Postgres;
pub use routes::document as openapi_document;

use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::private;
use crate::settings::{Roles, Settings, Standby};
use crate::signals::Stop;
use cluster::Membership;
use http::{Bound, Http};
use traces::Traces;

/// How often readiness is looked at while the process starts.
const READY_POLL: Duration = Duration::from_millis(10);
/// How long requests under way are still served as before once the process is to end.
const FINISH_WAIT: Duration = Duration::from_secs(1);
/// How long the start retries a log that does not answer.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two such tries.
const START_RETRY_EVERY: Duration = Duration::from_millis(500);
/// How long a process waits for the read side before it reports ready, if it takes commands already or
/// has not that role.
/// A stopped read model or an unreachable Postgres must not prevent the start.
const READING_WAIT: Duration = Duration::from_secs(15);
/// How often the log says why the process is not ready.
const READY_TALK_EVERY: Duration = Duration::from_secs(5);

/// What to do if the log or the schema does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// The log is made and the schema migrated.
    Make,
    /// The process refuses to start and names the command.
    Require,
}

/// The projector; taken out of the `Option` when it stops.
type SharedProjector = Arc<Mutex<Option<Projector>>>;

/// A running process.
pub struct Node {
    /// Whether operators may change anything over HTTP.
    controls: Controls,
    url: String,
    log: Arc<dyn EventLog>,
    watch: Arc<LogWatch>,
    engine: Option<Engine>,
    peers: Option<Server>,
    projector: SharedProjector,
    /// Measures how far the read models are, as long as the node runs.
    sampler: Option<Arc<Sampler>>,
    postgres: Option<Postgres>,
    /// Bounds the feeds, and ends them with the node.
    feeds: FeedControl,
    replays: Replays,
    console: Console,
    http: Http,
    drain_timeout: Duration,
    traces: Option<Traces>,
}

impl Node {
    /// Starts the roles. Returns `None` if the request to stop came first. Commands are answered as
    /// soon as the log is open; the rest follows once Postgres is open. The node may not be ready
    /// yet when this returns: see [`Self::readiness`].
    ///
    /// # Errors
    /// What is missing or prevents the start, with what to do about it.
    pub async fn start(
        domain: &Domain,
        settings: &Settings,
        roles: Roles,
        preparation: Preparation,
        stop: &Stop,
    ) -> Result<Option<Self>, Failure> {
        if roles.command_api && matches!(settings.log, LogAddress::Kafka { .. }) {
            // Check this before anything is started.
            settings.required_cluster_secret()?;
        }
        if roles.reads() {
            // Before anything listens, too.
            check_declarations(&domain.projections)?;
        }
        // The recorder must exist before anything is measured.
        metrics::recorder()?;
        let traces = Traces::begin(settings)?;
        let bound = match preparation {
            Preparation::Make => Some(Bound::to(settings).await?),
            // The address is bound when all that is required was found: until then, no client gets a
            // connection.
            Preparation::Require => {
                Bound::addresses(settings).await?;
                None
            }
        };
        let postgres = begin_postgres(domain, settings, roles, preparation);
        let begun = Self::begin(domain, settings, roles, preparation, bound, postgres);
        let (mut node, postgres) = tokio::select! {
            begun = begun => begun?,
            () = stop.asked() => return Ok(None),
        };
        node.traces = traces;
        let attached = tokio::select! {
            attached = node.attach(domain, settings, roles, postgres) => attached.map(|()| true),
            () = stop.asked() => Ok(false),
        };
        if let Ok(true) = attached {
            tracing::info!(roles = roles.names(), url = node.url, "started");
            return Ok(Some(node));
        }
        node.end().await;
        attached.map(|_| None)
    }

    /// Starts the part that needs only the log.
    async fn begin(
        domain: &Domain,
        settings: &Settings,
        roles: Roles,
        preparation: Preparation,
        bound: Option<Bound>,
        postgres: PostgresToCome,
    ) -> Result<(Self, PostgresToCome), Failure> {
        let (log, postgres) = match preparation {
            // In parallel: commands need not wait for Postgres.
            Preparation::Make => (open_or_make(settings).await?, postgres),
            // In sequence: nothing is started if one of them is missing.
            Preparation::Require => {
                let log = patiently(async || open_claimed(settings).await).await?;
                let postgres = postgres.await?;
                if let Some(postgres) = &postgres {
                    postgres.require_log(&*log).await?;
                }
                let here: PostgresToCome = Box::pin(std::future::ready(Ok(postgres)));
                (log, here)
            }
        };
        let bound = match bound {
            Some(bound) => bound,
            None => Bound::to(settings).await?,
        };
        let url = bound.url();
        let watch = Arc::new(LogWatch::begin(Arc::clone(&log), LOOK_EVERY));
        let (engine, peers) = match roles.command_api {
            true => {
                let (engine, peers) = patiently(async || {
                    let membership = Membership::of(settings, &*log, bound.address()).await?;
                    let engine = start_engine(domain, settings, &log, &membership).await?;
                    let peers = membership.serving(&engine);
                    Ok((engine, peers))
                })
                .await?;
                (Some(engine), peers)
            }
            false => (None, None),
        };
        // Until there is access control, only this machine may change anything.
        let controls = match bound.address().ip().is_loopback() {
            true => Controls::Served,
            false => Controls::Off,
        };
        let feeds = FeedControl::new(settings.feed_followers_max);
        let replays = Replays::default();
        let console = Console::begin(pages::about(settings, bound.address()));
        let parts = routes::Parts {
            domain,
            roles,
            controls,
            log: &log,
            watch: &watch,
            engine: engine.as_ref(),
            peers: peers.as_ref(),
            reading: None,
            feeds: &feeds,
            replays: &replays,
            console: &console,
        };
        let http = bound.serve(routes::assemble(&parts)?, settings.drain_timeout);
        let node = Self {
            url,
            controls,
            log,
            watch,
            engine,
            peers,
            projector: Arc::default(),
            sampler: None,
            postgres: None,
            feeds,
            replays,
            console,
            http,
            drain_timeout: settings.drain_timeout,
            traces: None,
        };
        Ok((node, postgres))
    }

    /// Starts the part that needs Postgres.
    async fn attach(
        &mut self,
        domain: &Domain,
        settings: &Settings,
        roles: Roles,
        postgres: PostgresToCome,
    ) -> Result<(), Failure> {
        let Some(postgres) = postgres.await? else {
            return Ok(());
        };
        let postgres = self.postgres.insert(postgres);
        postgres.require_log(&*self.log).await?;
        let url = postgres.url();
        if roles.projector {
            let options = ProjectorOptions {
                tasks: settings.projector_tasks,
                new_version: match settings.projector_auto_switch {
                    true => NewVersion::Switches,
                    false => NewVersion::Waits,
                },
                rebuild_share: settings.projector_rebuild_share,
                verify_every: Some(settings.projector_verify_every).filter(|e| !e.is_zero()),
            };
            let running = Projector::spawn(&self.log, url, &domain.projections, options)?;
            *self.projector.lock().await = Some(running);
        }
        let sampler = Arc::new(Sampler::spawn(&self.log, url)?);
        let reading = routes::Reading {
            projector: &self.projector,
            sampler: self.sampler.insert(sampler),
            postgres_url: url,
        };
        let parts = routes::Parts {
            domain,
            roles,
            controls: self.controls,
            log: &self.log,
            watch: &self.watch,
            engine: self.engine.as_ref(),
            peers: self.peers.as_ref(),
            reading: Some(reading),
            feeds: &self.feeds,
            replays: &self.replays,
            console: &self.console,
        };
        self.http.replace(routes::assemble(&parts)?);
        Ok(())
    }

    /// The URL at which the node answers.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The log's address.
    #[must_use]
    pub fn log_address(&self) -> String {
        self.log.address().to_string()
    }

    /// Its Postgres, if it has one.
    #[must_use]
    pub fn postgres(&self) -> Option<&Postgres> {
        self.postgres.as_ref()
    }

    /// Whether every part is ready.
    ///
    /// # Errors
    /// The reason why a part is not ready.
    pub async fn readiness(&self) -> Result<(), String> {
        self.watch.verdict()?;
        if let Some(engine) = &self.engine {
            engine.readiness()?;
        }
        match &*self.projector.lock().await {
            Some(projector) => projector.ready(),
            None => Ok(()),
        }
    }

    /// Waits until every part is ready, and logs the reason for the wait from time to time. A node
    /// that takes commands, or has not that role, waits at most `READING_WAIT` for what only reading
    /// needs: a stopped read model must not keep the others from being read. Returns
    /// `false` if the request to stop came first.
    pub async fn ready(&self, stop: &Stop) -> bool {
        let mut told_at = tokio::time::Instant::now();
        let mut takes_since = None;
        loop {
            let Err(reason) = self.readiness().await else {
                supervisor::tell(&[supervisor::State::Ready]);
                return true;
            };
            let engine = self.engine.as_ref();
            let is_writing = engine.is_none_or(|engine| engine.readiness().is_ok());
            if is_writing && self.watch.verdict().is_ok() {
                let since = *takes_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() >= READING_WAIT {
                    tracing::warn!(reason, "reading is not ready yet; the rest is");
                    supervisor::tell(&[supervisor::State::Ready]);
                    return true;
                }
            }
            if told_at.elapsed() >= READY_TALK_EVERY {
                told_at = tokio::time::Instant::now();
                tracing::warn!(reason, "not ready yet");
            }
            tokio::select! {
                () = stop.asked() => return false,
                () = tokio::time::sleep(READY_POLL) => {}
            }
        }
    }

    /// Stops the node in an orderly way.
    pub async fn end(mut self) {
        supervisor::tell(&[supervisor::State::Stopping]);
        if let Some(engine) = &self.engine {
            tracing::info!(
                "stopping: handing the partitions over to other nodes, if there are any"
            );
            engine.leave(self.drain_timeout).await;
        }
        tracing::info!("stopping: the node takes no more requests");
        self.console.close();
        self.feeds.close();
        self.http.stop_listening();
        self.replays.close().await;
        if let Some(peers) = &self.peers {
            peers.close();
        }
        // Requests under way continue as before, here or at the new owners. A batch that has not
        // ended by then is ended afterwards.
        let is_finished = tokio::time::timeout(FINISH_WAIT, self.http.finish())
            .await
            .is_ok();
        if let Some(engine) = &self.engine {
            engine.drain(self.drain_timeout).await;
        }
        if !is_finished {
            self.http.finish().await;
        }
        if let Some(projector) = self.projector.lock().await.take()
            && let Err(error) = projector.stop().await
        {
            tracing::warn!(%error, "a projector had failed before");
        }
        self.sampler = None;
        if let Some(postgres) = self.postgres {
            postgres.close().await;
        }
        if let Some(traces) = self.traces {
            traces.end().await;
        }
        tracing::info!("stopped");
    }
}

/// Resolves to the Postgres that the roles need, once it is open; to `None` if they need none.
type PostgresToCome = Pin<Box<dyn Future<Output = Result<Option<Postgres>, Failure>>>>;

/// Begins to open Postgres. With [`Preparation::Make`], a task of its own does it, because it may
/// take a while.
fn begin_postgres(
    domain: &Domain,
    settings: &Settings,
    roles: Roles,
    preparation: Preparation,
) -> PostgresToCome {
    if !roles.reads() {
        return Box::pin(std::future::ready(Ok(None)));
    }
    let settings = settings.clone();
    // Only projectors make tables.
    let tried = match roles.projector {
        true => domain.projections.clone(),
        false => Vec::new(),
    };
    let open = async move { Postgres::open(&settings).await };
    match preparation {
        Preparation::Make => {
            let opened = tokio::spawn(open);
            Box::pin(async move {
                let opened = opened.await;
                let broke_off = |error| Err(Failure::of(Exit::Failed, &error));
                let postgres = opened.unwrap_or_else(broke_off)?;
                postgres.migrate().await?;
                postgres.require_declarations(&tried).await?;
                Ok(Some(postgres))
            })
        }
        Preparation::Require => Box::pin(async move {
            let postgres = open.await?;
            postgres.require_migrated().await?;
            postgres.require_declarations(&tried).await?;
            Ok(Some(postgres))
        }),
    }
}

/// Repeats an attempt that fails with `Unavailable`, for at most [`START_PATIENCE`]: a node may be
/// started while brokers are down or leaders move.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
    let deadline = tokio::time::Instant::now() + START_PATIENCE;
    loop {
        match attempt().await {
            Err(failure)
                if failure.exit == Exit::Unavailable && tokio::time::Instant::now() < deadline =>
            {
                tracing::warn!(reason = failure.message, "not there yet; trying again");
                tokio::time::sleep(START_RETRY_EVERY).await;
            }
            done => return done,
        }
    }
}

async fn start_engine(
    domain: &Domain,
    settings: &Settings,
    log: &Arc<dyn EventLog>,
    membership: &Membership,
) -> Result<Engine, Failure> {
    private::folder(&settings.data)?;
    let options = EngineOptions {
        owner: OwnerSettings {
            node: settings.node.clone(),
            address: Some(membership.address.clone()),
            standby_read_every_ms: match settings.standby {
                Standby::Warm => OwnerSettings::default().standby_read_every_ms,
                Standby::Cold => None,
            },
            in_flight_max: settings.in_flight_max,
            stream_state_bytes_max: settings.stream_state_max_kb << 10,
            ..OwnerSettings::default()
        },
        store: Some(settings.state_folder()),
        queue_max: settings.queue_max,
        memory_bytes: settings.memory_mb << 20,
        cluster: membership.options(),
    };
    Ok(Engine::start(Arc::clone(log), domain.registry.clone(), options).await?)
}
