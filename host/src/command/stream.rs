//! `annals events` and `annals state`: one stream through a running server.

use clap::Args;
use client::Query;
use serde_json::{Value, json};

use super::request;
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// The help text of `events` after the options.
pub(crate) const EVENTS_HELP: &str = "\
Examples:
  annals events {stream}
  annals events {stream} --output ndjson | jq .data";

/// The help text of `state` after the options.
pub(crate) const STATE_HELP: &str = "\
Examples:
  annals state {stream}
  annals state {stream} --output json | jq .state";

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

/// Arguments of `state`.
#[derive(Debug, Args)]
pub struct StateArgs {
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

const EVENT_COLUMNS: [&str; 8] = [
    "version",
    "type",
    "occurred_at",
    "recorded_at",
    "actor",
    "command_id",
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
        let text = |name: &str| actor.get(name).and_then(Value::as_str).unwrap_or_default();
        event["actor"] = Value::String(format!("{}:{}", text("kind"), text("id")));
    }
    event
}

/// Shows what a stream's events add up to.
pub(super) async fn state(settings: &Settings, args: &StateArgs) -> Result<Exit, Failure> {
    let client = request::client(settings)?;
    let folded = client.state(&args.stream, &query(&args.tenant)).await;
    let folded = folded
        .map_err(|error| request::failed(settings, error))?
        .value;
    let text = serde_json::to_string(&folded);
    let text = text.map_err(|error| Failure::of(Exit::Failed, &error))?;
    match settings.output {
        // A state is a tree: people can read it as indented JSON, but not in one cell.
        OutputFormat::Table => {
            talk!("{} at version {}", args.stream, folded.version);
            output::json(&output::pretty(folded.state.get()))?;
        }
        OutputFormat::Json => output::json(&output::pretty(&text))?,
        OutputFormat::Ndjson => output::json(&text)?,
        OutputFormat::Csv => {
            let row = json!({
                "stream": args.stream, "version": folded.version, "state": folded.state.get(),
            });
            output::rows(settings.output, &["stream", "version", "state"], &[row])?;
        }
    }
    Ok(Exit::Done)
}

fn query(tenant: &str) -> Query {
    Query {
        tenant: Some(tenant.to_owned()),
        ..Query::default()
    }
}
