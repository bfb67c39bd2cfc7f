//! `annals events`: the events of one stream through a running server.
//!
//! Deliberately absent: what they add up to (`life`).

use clap::Args;
use client::Query;
use serde_json::Value;

use super::request;
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// The help text of `events` after the options.
pub(crate) const EVENTS_HELP: &str = "\
Examples:
  annals events {stream}
  annals events {stream} --output ndjson | jq .data";

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The stream: its category, a dash and its id
    stream: String,
    /// The tenant of the stream
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

/// How many events are asked for at once.
const PAGE_SIZE: u32 = 500;

const EVENT_COLUMNS: [&str; 11] = [
    "version",
    "type",
    "occurred_at",
    "recorded_at",
    "actor",
    "command",
    "command_id",
    "correlation_id",
    "causation_id",
    "traceparent",
    "data",
];

/// Shows every event of a stream, page by page.
pub(super) async fn events(settings: &Settings, args: &EventsArgs) -> Result<Exit, Failure> {
    let client = request::client(settings)?;
    let query = query(&args.tenant);
    let mut from = 1;
    let mut events = Vec::new();
    loop {
        let page = client.events(&args.stream, from, PAGE_SIZE, &query).await;
        let page = page
            .map_err(|error| request::failed(settings, error))?
            .value;
        for event in page.events {
            let event = serde_json::to_value(event);
            let event = event.map_err(|error| Failure::of(Exit::Failed, &error))?;
            events.push(shown(event, settings.output));
        }
        // Lines are printed as they come; a table needs all of them for its columns.
        if settings.output == OutputFormat::Ndjson {
            output::rows(settings.output, &EVENT_COLUMNS, &events)?;
            events.clear();
        }
        match page.next {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
    if settings.output != OutputFormat::Ndjson {
        output::rows(settings.output, &EVENT_COLUMNS, &events)?;
    }
    Ok(Exit::Done)
}

/// An event. Unless the output is JSON, the actor is shown as `kind:id`.
fn shown(mut event: Value, format: OutputFormat) -> Value {
    if !format.is_json()
        && let Some(actor) = event.get("actor").filter(|actor| actor.is_object())
    {
        event["actor"] = actor_of(actor);
    }
    event
}

/// An actor as `kind:id`; null if nobody is named.
pub(super) fn actor_of(actor: &Value) -> Value {
    let text = |name: &str| actor.get(name).and_then(Value::as_str);
    match (text("kind"), text("id")) {
        (Some(kind), Some(id)) => Value::String(format!("{kind}:{id}")),
        _ => Value::Null,
    }
}

pub(super) fn query(tenant: &str) -> Query {
    Query {
        tenant: Some(tenant.to_owned()),
        ..Query::default()
    }
}
