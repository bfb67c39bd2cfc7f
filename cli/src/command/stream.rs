//! `annals events` and `annals state`: one stream through a running server.

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::request;
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// What `--help` of `events` says behind the options.
pub(crate) const EVENTS_HELP: &str = "\
Examples:
  annals events order-1
  annals events order-1 --output ndjson | jq .data";

/// What `--help` of `state` says behind the options.
pub(crate) const STATE_HELP: &str = "\
Examples:
  annals state order-1
  annals state order-1 --output json | jq .state";

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The stream: category, dash, id
    stream: String,
    /// For whom the stream is kept
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `state`.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// The stream: category, dash, id
    stream: String,
    /// For whom the stream is kept
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
    let path = format!("/v1/streams/{}/events", request::segment(&args.stream));
    let (client, url) = request::to(settings, &path)?;
    let mut from = 1;
    let mut events = Vec::new();
    loop {
        let get = client
            .get(format!("{url}?from_version={from}&limit={PAGE_SIZE}"))
            .header("annals-tenant", &args.tenant);
        let mut page = request::json(settings, get).await?;
        if let Some(Value::Array(found)) = page.get_mut("events").map(Value::take) {
            events.extend(found.into_iter().map(|event| shown(event, settings.output)));
        }
        // Lines are printed as they come; a table needs all of them for its columns.
        if settings.output == OutputFormat::Ndjson {
            output::rows(settings.output, &EVENT_COLUMNS, &events)?;
            events.clear();
        }
        match page.get("next").and_then(Value::as_u64) {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
    if settings.output != OutputFormat::Ndjson {
        output::rows(settings.output, &EVENT_COLUMNS, &events)?;
    }
    Ok(Exit::Done)
}

/// An event; where people read it, the actor as `kind:id`.
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
    let path = format!("/v1/streams/{}/state", request::segment(&args.stream));
    let (client, url) = request::to(settings, &path)?;
    let get = client.get(url).header("annals-tenant", &args.tenant);
    let text = request::text(settings, get).await?;
    let folded: Folded<'_> = serde_json::from_str(&text).map_err(|error| {
        Failure::of(Exit::Failed, &error).while_trying("understand the server's answer")
    })?;
    match settings.output {
        // A state is a tree: unfolded it can be read, in one cell it cannot.
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

/// The answer as far as it is shown apart.
#[derive(Deserialize)]
struct Folded<'a> {
    version: u64,
    #[serde(borrow)]
    state: &'a RawValue,
}
