//! `annals dev`: all roles in one process, on the embedded log and an embedded Postgres.
//!
//! Deliberately absent: the roles themselves (`node`).

use serde::Serialize;

use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Node, Postgres, Preparation};
use crate::output;
use crate::settings::{Roles, Settings};
use crate::signals::{HangUp, Stop};

/// The line that a program waits for.
#[derive(Serialize)]
struct Ready<'a> {
    http: &'a str,
    log: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    postgres: Option<&'a str>,
}

/// Runs everything until asked to stop.
pub(super) async fn run(domain: &Domain, settings: &Settings) -> Result<Exit, Failure> {
    let stop = Stop::listen(HangUp::EndsWithTerminal)?;
    let started = Node::start(domain, settings, Roles::ALL, Preparation::Make, &stop);
    let Some(node) = started.await? else {
        return Ok(Exit::Done);
    };
    if node.ready(&stop).await {
        announce(settings, &node);
        tell_where(domain, &node);
        stop.asked().await;
    }
    node.end(&stop).await;
    Ok(Exit::Done)
}

/// Tells a program that everything is ready. A stdout that cannot be written stops nobody: what is
/// served is of use to others.
pub(super) fn announce(settings: &Settings, node: &Node) {
    if !settings.output.is_json() {
        return;
    }
    let ready = Ready {
        http: node.url(),
        log: node.log_address(),
        postgres: node.postgres().map(Postgres::url),
    };
    let line = serde_json::to_string(&ready).map_err(|error| Failure::of(Exit::Failed, &error));
    if let Err(failure) = line.and_then(|line| output::line(&line)) {
        let reason = failure.message;
        tracing::warn!(reason, "ready, but the line that says so was not written");
    }
}

/// Tells a person where to look.
fn tell_where(domain: &Domain, node: &Node) {
    let url = node.url();
    let categories = domain.registry.categories();
    talk!("annals is ready. It runs {categories}.");
    talk!("  commands   POST {url}/v1/streams/STREAM/COMMAND");
    talk!("  all routes {url}/docs");
    talk!("  metrics    {url}/metrics");
    talk!("  log        {}", node.log_address());
    if let Some(postgres) = node.postgres() {
        talk!("  postgres   psql {}", postgres.url());
    }
    talk!("Ctrl-C stops it.");
}
