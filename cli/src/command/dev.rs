//! `annals dev`: all roles in one process, on the embedded log and an embedded Postgres.
//!
//! Deliberately absent: the roles themselves (`node`).

use serde::Serialize;

use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::node::{Node, Postgres, Preparation};
use crate::output;
use crate::settings::{Roles, Settings};
use crate::signals::Stop;

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
    let stop = Stop::listen()?;
    let started = Node::start(domain, settings, Roles::ALL, Preparation::Make, &stop);
    let Some(node) = started.await? else {
        return Ok(Exit::Done);
    };
    if node.ready(&stop).await {
        announce(settings, &node);
        talk(domain, &node);
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
fn talk(domain: &Domain, node: &Node) {
    let url = node.url();
    let categories = domain.registry.categories();
    eprintln!("annals is ready. It runs {categories}.");
    eprintln!("  commands   POST {url}/v1/streams/STREAM/COMMAND");
    eprintln!("  all routes {url}/docs");
    eprintln!("  metrics    {url}/metrics");
    eprintln!("  log        {}", node.log_address());
    if let Some(postgres) = node.postgres() {
        eprintln!("  postgres   psql {}", postgres.url());
    }
    eprintln!("Ctrl-C stops it.");
}
