//! `annals state`: one stream through a running server.

use clap::Args;
use client::Query;
use serde_json::json;

use super::request;
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// The help text of `state` after the options.
pub(crate) const STATE_HELP: &str = "\
Examples:
  annals state {stream}
  annals state {stream} --output json | jq .state";

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

pub(super) fn query(tenant: &str) -> Query {
    Query {
        tenant: Some(tenant.to_owned()),
        ..Query::default()
    }
}
