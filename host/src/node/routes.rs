//! The routes of a process: the doors of its roles, health, and the document that describes them.
//!
//! Deliberately absent: what any route does.

use std::sync::Arc;
use std::time::Duration;

use admin_api::{AdminDoor, Controls, Replays};
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use command_api::peer::Server;
use console::Console;
use door::health::{self, Health, Role};
use door::root::{self, Link};
use door::{Problem, openapi};
use engine::Engine;
use event_log::log::{EventLog, LogWatch};
use position::Partition;
use projector::{Projector, Sampler};
use query_api::{FeedControl, QueryDoor};
use serde_json::Value;

use super::{SharedProjector, docs, metrics};
use crate::exit::{Failure, explained};
use crate::settings::Roles;
use crate::{Domain, program};

/// The message as long as Postgres is not available.
const STARTING: &str = "Postgres is still starting; the node already takes commands";
/// How long a client should then wait before another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The parts of the process that its routes use.
pub(super) struct Parts<'a> {
    pub(super) domain: &'a Domain,
    pub(super) roles: Roles,
    pub(super) log: &'a Arc<dyn EventLog>,
    pub(super) watch: &'a Arc<LogWatch>,
    pub(super) engine: Option<&'a Engine>,
    /// Serves other nodes; absent if the log can have only one node.
    pub(super) peers: Option<&'a Server>,
    /// Whether operators may change anything over HTTP.
    pub(super) controls: Controls,
    /// Absent until Postgres is available.
    pub(super) reading: Option<Reading<'a>>,
    /// Bounds the feeds, and ends them with the process.
    pub(super) feeds: &'a FeedControl,
    /// Bounds the replays, and ends them with the process.
    pub(super) replays: &'a Replays,
    /// Shows what the other routes answer.
    pub(super) console: &'a Console,
}

/// The parts that the routes of the read side use.
pub(super) struct Reading<'a> {
    pub(super) projector: &'a SharedProjector,
    pub(super) sampler: &'a Arc<Sampler>,
    pub(super) postgres_url: &'a str,
}

/// All routes of a process that can be served already.
pub(super) fn assemble(parts: &Parts<'_>) -> Result<Router, Failure> {
    let mut routes = Router::new();
    if let Some(engine) = parts.engine {
        let options = command_api::Options::default();
        routes = routes.merge(command_api::router(engine.clone(), options));
    }
    if let Some(peers) = parts.peers {
        routes = routes.merge(peers.router());
    }
    let mut query = None;
    if parts.roles.query_api
        && let Some(reading) = &parts.reading
    {
        let Reading {
            sampler,
            postgres_url,
            ..
        } = reading;
        let registry = parts.domain.registry.clone();
        let door = QueryDoor::new(parts.log, postgres_url, &parts.domain.projections, registry)?;
        let door = door.with_sampler(sampler).with_feeds(parts.feeds);
        routes = routes.merge(query_api::router(door.clone()));
        query = Some(door);
    }
    if parts.roles.reads()
        && let Some(reading) = &parts.reading
    {
        let (url, projections) = (reading.postgres_url, &parts.domain.projections);
        let (log, controls) = (parts.log, parts.controls);
        let admin = AdminDoor::new(log, url, projections, controls, parts.replays)?;
        routes = routes.merge(admin_api::router(admin));
    }
    let document = document(parts.domain, parts.roles);
    routes = routes
        .merge(health::router(health_of(parts, query)?))
        .merge(openapi::router(&document))
        .merge(root::router(&program::shown(), &links(parts.roles)))
        .merge(docs::router());
    if parts.roles.reads() && parts.reading.is_none() {
        routes = routes.layer(axum::middleware::map_response(not_yet));
    }
    let console = parts.console.router(&routes);
    // In this order: of two routers, the answer for unknown paths is that of the merged one, and
    // `not_yet` belongs to it.
    Ok(door::finish(console.merge(routes)))
}

/// The links of the first page that depend on the roles.
fn links(roles: Roles) -> Vec<Link> {
    let link = |href, title| Link {
        rel: "item",
        href,
        title,
    };
    let console = link("/console", "The console: pages that show all of this");
    let topology = link("/v1/topology", "Which node owns which partition");
    let models = link("/v1/read", "The read models and their columns");
    let projections = link("/v1/projections", "How the read models are doing");
    let of_commands = roles.command_api.then_some(topology);
    let of_queries = roles.query_api.then_some(models);
    let of_operators = roles.reads().then_some(projections);
    let all = [Some(console), of_commands, of_queries, of_operators];
    all.into_iter().flatten().collect()
}

/// The OpenAPI document of a process with these roles.
#[must_use]
pub fn document(domain: &Domain, roles: Roles) -> Value {
    let mut schemas = openapi::domain_generator();
    let mut fragments = vec![root::fragment(), health::fragment()];
    if roles.command_api {
        fragments.push(command_api::fragment(&domain.registry, &mut schemas));
    }
    if roles.query_api {
        let fragment = query_api::fragment(&domain.projections, &domain.registry, &mut schemas);
        fragments.push(fragment);
    }
    if roles.reads() {
        fragments.push(admin_api::fragment());
    }
    openapi::document(&program::shown(), fragments, schemas)
}

/// The roles that read or write the log.
const ON_THE_LOG: &[Role] = &[Role::CommandApi, Role::Projector];
/// The roles that read or write Postgres.
const ON_POSTGRES: &[Role] = &[Role::Projector, Role::QueryApi];

/// The health checks of each role.
fn health_of(parts: &Parts<'_>, query: Option<QueryDoor>) -> Result<Health, Failure> {
    let recorder = metrics::recorder()?;
    let (log, watch) = (Arc::clone(parts.log), Arc::clone(parts.watch));
    let (engine, door) = (parts.engine.cloned(), query.clone());
    let mut health = Health::new(parts.roles.each(), move || {
        if let Some(engine) = &engine {
            engine.measure();
        }
        if let Some(door) = &door {
            door.measure();
        }
        recorder.render()
    });
    health = health.check("log", ON_THE_LOG, move || {
        let (log, verdict) = (Arc::clone(&log), watch.verdict());
        async move {
            verdict?;
            let bounds = log.bounds(Partition(0)).await;
            bounds.map(|_| ()).map_err(|error| explained(&error))
        }
    });
    if let Some(engine) = parts.engine {
        let engine = engine.clone();
        health = health.check("writing", &[Role::CommandApi], move || {
            let readiness = engine.readiness();
            async move { readiness }
        });
    }
    let Some(reading) = &parts.reading else {
        // Postgres is still starting. The routes that need it are added once it is available.
        return Ok(if parts.roles.reads() {
            health.check("postgres", ON_POSTGRES, || async {
                Err(STARTING.to_owned())
            })
        } else {
            health
        });
    };
    if parts.roles.projector {
        let (projector, sampler) = (Arc::clone(reading.projector), Arc::clone(reading.sampler));
        health = health.check("projecting", &[Role::Projector], move || {
            let (projector, sampler) = (Arc::clone(&projector), Arc::clone(&sampler));
            async move {
                let mut problems = sampler.stuck();
                match &*projector.lock().await {
                    Some(projector) => problems.extend(projector.ready().err()),
                    None => problems.push("stopping".to_owned()),
                }
                match problems.is_empty() {
                    true => Ok(()),
                    false => Err(problems.join("; ")),
                }
            }
        });
    }
    if parts.roles.projector {
        let projector = Arc::clone(reading.projector);
        health = health.warnings(move || {
            let projector = Arc::clone(&projector);
            async move {
                let projector = projector.lock().await;
                projector
                    .as_ref()
                    .map_or_else(Vec::new, Projector::warnings)
            }
        });
    }
    if let Some(query) = query {
        health = health.check("postgres", &[Role::QueryApi], move || {
            let query = query.clone();
            async move { query.ready().await }
        });
    }
    Ok(health)
}

/// Answers a request for a route that comes later with "try again" instead of "not found".
async fn not_yet(response: Response) -> Response {
    let missing = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
    // A door's own answer, such as "no such stream", carries a `Problem`: it stays as it is.
    let said = response.extensions().get::<Problem>().is_some();
    if said || !missing.contains(&response.status()) {
        return response;
    }
    let problem = Problem::new(door::code::NOT_READY, STARTING);
    problem.retry_after(RETRY_AFTER).into_response()
}
