//! `annals stream`, `annals state` and `annals diff`: one stream over its life, through a running
//! server.
//!
//! Deliberately absent: its events (`stream`).

use std::time::Duration;

use clap::Args;
use client::{Client, ClientError, Code, Folded, Moment, Query, Standing};
use kernel::Timestamp;
use serde_json::{Value, json};

use super::request;
use super::stream::{actor_of, query};
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// The help text of `stream` after the options.
pub(crate) const STREAM_HELP: &str = "\
Examples:
  annals stream {stream}";

/// The help text of `state` after the options.
pub(crate) const STATE_HELP: &str = "\
Examples:
  annals state {stream}
  annals state {stream} --at-version 1
  annals state {stream} --at-time 2026-03-01T12:00:00Z --time occurred
  annals state {stream} --output json | jq .state";

/// The help text of `diff` after the options.
pub(crate) const DIFF_HELP: &str = "\
Without --from it is the version before --to; without --to, the last one.

Examples:
  annals diff {stream}
  annals diff {stream} --from 0 --to 1
  annals diff {stream} --from-time 2026-03-01T00:00:00Z --output ndjson";

/// How many letters of a value a table shows.
const SHOWN_MAX: usize = 60;

/// Arguments of `stream`.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// The stream: its category, a dash and its id
    stream: String,
    /// The tenant of the stream
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

/// Which of an event's two times is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Time {
    /// When it was recorded
    Recorded,
    /// When it happened, in the business
    Occurred,
}

/// Arguments of `state`.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// The stream: its category, a dash and its id
    stream: String,
    /// The state after this many events; 0 is the empty state
    #[arg(long, value_name = "N", conflicts_with = "at_time")]
    at_version: Option<u64>,
    /// The state at this time, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    at_time: Option<Timestamp>,
    /// Which time --at-time means
    #[arg(long, value_enum, default_value = "recorded", requires = "at_time")]
    time: Time,
    /// The tenant of the stream
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The stream: its category, a dash and its id
    stream: String,
    /// The earlier version; 0 is the empty state
    #[arg(long, value_name = "N", conflicts_with = "from_time")]
    from: Option<u64>,
    /// The later version
    #[arg(long, value_name = "N", conflicts_with = "to_time")]
    to: Option<u64>,
    /// The earlier moment, by time
    #[arg(long, value_name = "TIME")]
    from_time: Option<Timestamp>,
    /// The later moment, by time; needs --from or --from-time
    #[arg(long, value_name = "TIME")]
    to_time: Option<Timestamp>,
    /// Which time --from-time and --to-time mean
    #[arg(long, value_enum, default_value = "recorded")]
    time: Time,
    /// The tenant of the stream
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

fn moment(version: Option<u64>, at: Option<Timestamp>, time: Time) -> Option<Moment> {
    match (version, at, time) {
        (Some(version), _, _) => Some(Moment::Version(version)),
        (None, Some(at), Time::Recorded) => Some(Moment::Recorded(at)),
        (None, Some(at), Time::Occurred) => Some(Moment::Occurred(at)),
        (None, None, _) => None,
    }
}

/// Shows what a stream is.
pub(super) async fn stream(settings: &Settings, args: &StreamArgs) -> Result<Exit, Failure> {
    let client = request::client(settings)?;
    let found = client.stream(&args.stream, &query(&args.tenant)).await;
    let found = found.map_err(|error| request::failed(settings, error))?;
    let mut row = value(&found.value)?;
    if !settings.output.is_json()
        && let Some(last) = row.get("last_event").cloned()
    {
        row["last_event"] = last["type"].clone();
        row["last_actor"] = actor_of(&last["actor"]);
        for member in ["command", "command_id", "correlation_id", "causation_id"] {
            row[format!("last_{member}")] = last[member].clone();
        }
    }
    let columns = [
        "stream",
        "category",
        "version",
        "partition",
        "first_recorded_at",
        "last_recorded_at",
        "refused",
        "last_event",
        "last_actor",
        "last_command",
        "last_command_id",
        "last_correlation_id",
        "last_causation_id",
    ];
    output::record(settings.output, &columns, &row)?;
    Ok(Exit::Done)
}

/// Shows what a stream's events add up to at a moment.
pub(super) async fn state(settings: &Settings, args: &StateArgs) -> Result<Exit, Failure> {
    let client = request::client(settings)?;
    let moment = moment(args.at_version, args.at_time, args.time).unwrap_or(Moment::Newest);
    let folded = folded(&client, &args.stream, moment, &query(&args.tenant)).await;
    let folded = folded.map_err(|error| request::failed(settings, error))?;
    let text = serde_json::to_string(&folded);
    let text = text.map_err(|error| Failure::of(Exit::Failed, &error))?;
    match settings.output {
        // A state is a tree: people can read it as indented JSON, but not in one cell.
        OutputFormat::Table => {
            let standing = Standing {
                version: folded.version,
                commit: folded.commit,
                recorded_at: folded.recorded_at,
                hypothetical: folded.hypothetical,
                skipped: folded.skipped,
                provisional: folded.provisional,
            };
            talk!("{} at {}", args.stream, words(&standing));
            output::json(&output::pretty(folded.state.get()))?;
        }
        OutputFormat::Json => output::json(&output::pretty(&text))?,
        OutputFormat::Ndjson => output::json(&text)?,
        OutputFormat::Csv => {
            let mut row = value(&folded)?;
            row["stream"] = json!(args.stream);
            row["state"] = json!(folded.state.get());
            let columns = [
                "stream",
                "version",
                "state",
                "recorded_at",
                "hypothetical",
                "provisional",
            ];
            output::rows(settings.output, &columns, &[row])?;
        }
    }
    Ok(Exit::Done)
}

/// The state at a moment. A long stream is folded over several requests, as long as each of them gets
/// further.
async fn folded(
    client: &Client,
    stream: &str,
    moment: Moment,
    query: &Query,
) -> Result<Folded, ClientError> {
    let mut before = 0;
    loop {
        let error = match client.state_at(stream, moment, query).await {
            Ok(folded) => return Ok(folded.value),
            Err(error) => error,
        };
        let unfinished = error.problem().filter(|it| it.code == Code::FoldUnfinished);
        let done = unfinished.and_then(|it| it.facts.get("folded")?.as_u64());
        match done {
            Some(done) if done > before => before = done,
            _ => return Err(error),
        }
        talk!("{stream} is long; {before} events are folded so far");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Shows what differs between two states of a stream.
pub(super) async fn diff(settings: &Settings, args: &DiffArgs) -> Result<Exit, Failure> {
    let client = request::client(settings)?;
    let from = moment(args.from, args.from_time, args.time);
    let to = moment(args.to, args.to_time, args.time).unwrap_or(Moment::Newest);
    let query = query(&args.tenant);
    let diff = client.diff(&args.stream, from, to, &query).await;
    let diff = diff
        .map_err(|error| request::failed(settings, error))?
        .value;
    if settings.output == OutputFormat::Json {
        let text = serde_json::to_string(&diff);
        let text = text.map_err(|error| Failure::of(Exit::Failed, &error))?;
        output::json(&output::pretty(&text))?;
        return Ok(Exit::Done);
    }
    talk!(
        "{} from {} to {}",
        args.stream,
        words(&diff.from),
        words(&diff.to)
    );
    let mut rows = Vec::with_capacity(diff.changes.len());
    for change in &diff.changes {
        let mut row = value(change)?;
        if settings.output != OutputFormat::Ndjson {
            let shown = |text: &str, kind: &str| match settings.output {
                _ if change.kind == kind => Value::Null,
                OutputFormat::Table => json!(shortened(text)),
                _ => json!(text),
            };
            row["before"] = shown(change.before.get(), "added");
            row["after"] = shown(change.after.get(), "removed");
            let by = row["by"].take();
            row["actor"] = actor_of(&by["actor"]);
            row["event"] = by["type"].clone();
            for member in [
                "version",
                "command",
                "recorded_at",
                "occurred_at",
                "command_id",
                "correlation_id",
                "causation_id",
            ] {
                row[member] = by[member].clone();
            }
        }
        rows.push(row);
    }
    let columns = [
        "path",
        "kind",
        "before",
        "after",
        "version",
        "event",
        "command",
        "actor",
        "recorded_at",
        "occurred_at",
        "command_id",
        "correlation_id",
        "causation_id",
    ];
    // People want to see what changed and by what; the ids are for programs.
    let shown = match settings.output {
        OutputFormat::Table => &columns[..9],
        _ => &columns[..],
    };
    output::rows(settings.output, shown, &rows)?;
    if !diff.complete {
        talk!("there are more changes than the server shows at once");
    }
    Ok(Exit::Done)
}

/// Where an answer stands, in words.
fn words(standing: &Standing) -> String {
    let mut text = format!("version {}", standing.version);
    if let Some(recorded_at) = standing.recorded_at {
        text += &format!(", recorded {recorded_at}");
    }
    if standing.hypothetical {
        text += &format!(
            " (hypothetical: {} events that happened later are left out)",
            standing.skipped
        );
    }
    if standing.provisional {
        text += " (provisional: later records may change it)";
    }
    text
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn value(shown: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(shown).map_err(|error| Failure::of(Exit::Failed, &error))
}
