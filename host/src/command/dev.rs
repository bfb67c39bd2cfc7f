//! `annals dev`: all roles in one process, on the embedded log and an embedded Postgres.
//!
//! Deliberately absent: the roles themselves (`node`).

use std::path::PathBuf;

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Node, Postgres, Preparation};
use crate::output;
use crate::settings::{Roles, Settings};
use crate::signals::{HangUp, Stop};
use crate::{Domain, program};

/// Tells a program that everything is ready. It contains no password: a program that may know the
/// password reads the file.
#[derive(Serialize)]
struct Ready<'a> {
    http: &'a str,
    log: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    postgres: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    postgres_url_file: Option<PathBuf>,
}

/// Runs everything until asked to stop.
pub(super) async fn run(domain: &Domain, settings: &Settings) -> Result<Exit, Failure> {
    let stop = Stop::listen(HangUp::EndsWithTerminal)?;
    let settings = &of_one_process(settings);
    let started = Node::start(domain, settings, Roles::ALL, Preparation::Make, &stop);
    let Some(node) = started.await? else {
        return Ok(Exit::Done);
    };
    if node.ready(&stop).await {
        announce(settings, &node);
        tell_where(domain, &node);
        stop.asked().await;
    }
    node.end().await;
    Ok(Exit::Done)
}

/// The settings of a program that runs alone: nobody keeps rows of an old version current while a new
/// one waits, so that the new one replaces them once it is built.
#[must_use]
pub fn of_one_process(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.projector_auto_switch = true;
    settings
}

/// Tells a program that everything is ready. If stdout cannot be written, the process goes on,
/// because others may use it.
pub fn announce(settings: &Settings, node: &Node) {
    if !settings.output.is_json() {
        return;
    }
    let ready = Ready {
        http: node.url(),
        log: node.log_address(),
        postgres: node.postgres().map(Postgres::shown),
        postgres_url_file: node.postgres().and_then(Postgres::url_file),
    };
    let line = serde_json::to_string(&ready).map_err(|error| Failure::of(Exit::Failed, &error));
    if let Err(failure) = line.and_then(|line| output::json(&line)) {
        let reason = failure.message;
        tracing::warn!(
            reason,
            "ready, but stdout did not take the line that says so"
        );
    }
}

/// Tells a person where to look.
fn tell_where(domain: &Domain, node: &Node) {
    let url = node.url();
    let categories = domain.registry.categories();
    let name = program::name();
    talk!("{name} is ready. It runs {categories}.");
    talk!("  commands   POST {url}/v1/streams/STREAM/COMMAND");
    talk!("  all routes {url}/docs");
    talk!("  metrics    {url}/metrics");
    talk!("  log        {}", node.log_address());
    match node
        .postgres()
        .map(|postgres| (postgres.url_file(), postgres.shown()))
    {
        Some((Some(file), _)) => talk!("  postgres   psql \"$(cat '{}')\"", file.display()),
        Some((None, shown)) => talk!("  postgres   {shown}"),
        None => {}
    }
    talk!("Ctrl-C stops it.");
}
