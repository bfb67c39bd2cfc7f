//! `annals send`: one command through a running server, and its one answer.

use std::io::Read as _;
use std::time::Duration;

use clap::Args;
use client::Command;
use serde_json::Value;

use super::request;
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;

/// The help text after the options.
pub(crate) const HELP: &str = "\
The exit code is 0 if the command was accepted, 3 if the business refused it, and 4 if the outcome
is unknown. If it is unknown, repeat the command with the same --id: it never takes effect twice.

Examples:
  annals send {stream} {command} '{data}'
  annals send {stream} {command} @data.json --id my-first-command --expected-version 1
  jq .data in.json | annals send {stream} {command} -";

/// Arguments of `send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The stream: its category, a dash and its id
    stream: String,
    /// The command's type
    command: String,
    /// The command's data: JSON, @FILE, or - for stdin
    #[arg(value_name = "DATA", default_value = "{}", allow_hyphen_values = true)]
    payload: String,
    /// Your name for this intent; the same id never takes effect twice [default: a new id]
    #[arg(long)]
    id: Option<String>,
    /// Business time of the command, such as 2026-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    occurred_at: Option<String>,
    /// Refuse the command if the stream has another version; 0 means no events yet
    #[arg(long, value_name = "N")]
    expected_version: Option<u64>,
    /// The tenant of the stream
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Who sends the command, as KIND:ID; KIND is user, service, process or import
    #[arg(long, value_name = "KIND:ID")]
    actor: Option<String>,
    /// The correlation id: the conversation that the command belongs to
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// The causation id: what directly caused the command
    #[arg(long, value_name = "ID")]
    causation_id: Option<String>,
    /// How long to wait for the answer, in milliseconds
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

const COLUMNS: [&str; 4] = ["stream", "version", "position", "events"];

pub(super) async fn run(settings: &Settings, args: SendArgs) -> Result<Exit, Failure> {
    let data = data(&args.payload)?;
    let mut command = Command::of_json(args.stream, args.command, data);
    if let Some(id) = args.id {
        command.id = id;
    }
    command.tenant = Some(args.tenant);
    command.occurred_at = args.occurred_at;
    command.expected_version = args.expected_version;
    command.actor = args.actor;
    command.correlation_id = args.correlation_id;
    command.causation_id = args.causation_id;
    command.timeout = args.timeout_ms.map(Duration::from_millis);
    match request::client(settings)?.send(&command).await {
        Ok(accepted) => {
            let answer = serde_json::to_value(accepted);
            let answer = answer.map_err(|error| Failure::of(Exit::Failed, &error))?;
            output::record(settings.output, &COLUMNS, &shown(answer, settings))?;
            Ok(Exit::Done)
        }
        Err(error) => {
            let failure = request::failed(settings, error);
            match failure.exit {
                Exit::Unavailable => {
                    let id = &command.id;
                    Err(failure.hint(format_args!(
                        "repeat the command with --id {id} to learn its outcome"
                    )))
                }
                _ => Err(failure),
            }
        }
    }
}

/// The answer. Unless the output is JSON, events are shown by their names.
fn shown(mut answer: Value, settings: &Settings) -> Value {
    if !settings.output.is_json()
        && let Some(events) = answer.get("events").and_then(Value::as_array)
    {
        let names = events
            .iter()
            .filter_map(|event| event.get("type")?.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        answer["events"] = Value::String(names);
    }
    answer
}

/// The command's data: as given, from a file, or from stdin.
fn data(given: &str) -> Result<String, Failure> {
    let failed = |what: &str, error: &std::io::Error| {
        Failure::of(Exit::Usage, error).while_trying(&format!("read {what}"))
    };
    if given == "-" {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        return match read {
            Ok(_) => Ok(text),
            Err(error) => Err(failed("the data from stdin", &error)),
        };
    }
    match given.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|error| failed(file, &error)),
        None => Ok(given.to_owned()),
    }
}
