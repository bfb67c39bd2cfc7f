//! `annals serve`: runs some roles, or all, on an existing log.

use crate::Domain;
use crate::command::dev;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Node, Preparation};
use crate::settings::Settings;
use crate::signals::{HangUp, Stop};

/// Serves until asked to stop.
pub(super) async fn run(domain: &Domain, settings: &Settings) -> Result<Exit, Failure> {
    let stop = Stop::listen(HangUp::Ignored)?;
    let started = Node::start(
        domain,
        settings,
        settings.roles,
        Preparation::Require,
        &stop,
    );
    let Some(node) = started.await? else {
        return Ok(Exit::Done);
    };
    if node.ready(&stop).await {
        dev::announce(settings, &node);
        if !settings.output.is_json() {
            talk!("serving {} at {}", settings.roles.names(), node.url());
        }
        stop.asked().await;
    }
    node.end().await;
    Ok(Exit::Done)
}
