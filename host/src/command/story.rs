//! `annals story`: a conversation as a tree, through a running server.
//!
//! Deliberately absent: what is a cause of what; the server says it.

use clap::Args;
use client::{Story, StoryCommit};
use serde_json::{Value, json};

use super::request;
use super::stream::{actor_of, query};
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// The help text after the options.
pub(crate) const HELP: &str = "\
The correlation id of a command is the one that its client gave, else the command's own id; each event of a
stream shows it.

Examples:
  annals story --correlation my-first-command
  annals story --correlation my-first-command --output json | jq .commits[0]";

/// Arguments of `story`.
#[derive(Debug, Args)]
pub struct StoryArgs {
    /// The correlation id of the conversation
    #[arg(long, value_name = "ID")]
    correlation: String,
    /// The tenant of the streams
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

const COLUMNS: [&str; 8] = [
    "what",
    "stream",
    "version",
    "outcome",
    "after",
    "actor",
    "recorded_at",
    "command_id",
];

const CSV_COLUMNS: [&str; 18] = [
    "depth",
    "cause",
    "stream",
    "command",
    "outcome",
    "code",
    "detail",
    "version",
    "events",
    "actor",
    "occurred_at",
    "recorded_at",
    "after_ms",
    "command_id",
    "causation_id",
    "traceparent",
    "commit",
    "parent",
];

/// Shows a conversation.
pub(super) async fn run(settings: &Settings, args: &StoryArgs) -> Result<Exit, Failure> {
    let client = request::client(settings)?;
    let story = client.story(&args.correlation, &query(&args.tenant)).await;
    let story = story
        .map_err(|error| request::failed(settings, error))?
        .value;
    match settings.output {
        OutputFormat::Json => {
            let text = serde_json::to_string(&story);
            let text = text.map_err(|error| Failure::of(Exit::Failed, &error))?;
            output::json(&output::pretty(&text))?;
        }
        OutputFormat::Ndjson => output::rows(settings.output, &[], &story.commits)?,
        OutputFormat::Csv => {
            let rows: Result<Vec<Value>, Failure> = story.commits.iter().map(flat).collect();
            output::rows(settings.output, &CSV_COLUMNS, &rows?)?;
        }
        OutputFormat::Table => {
            talk!(
                "{} ({} refused) in {}, from {} to {}",
                counted(story.commits.len() as u64, "commit"),
                story.refused,
                counted(story.streams, "stream"),
                story.began_at,
                story.ended_at
            );
            output::rows(settings.output, &COLUMNS, &drawn(&story)?)?;
        }
    }
    if !story.complete {
        talk!("there is more: the server shows only the earliest part of so long a conversation");
    }
    Ok(Exit::Done)
}

/// A commit as one row.
fn flat(commit: &StoryCommit) -> Result<Value, Failure> {
    let value = serde_json::to_value(commit);
    let mut row = value.map_err(|error| Failure::of(Exit::Failed, &error))?;
    row["actor"] = actor_of(&row["actor"]);
    let types = commit.events.iter().map(|event| &*event.type_name);
    row["events"] = json!(types.collect::<Vec<_>>().join(" "));
    Ok(row)
}

/// The tree, a line for each command and each event.
fn drawn(story: &Story) -> Result<Vec<Value>, Failure> {
    let mut rows = Vec::new();
    for (at, commit) in story.commits.iter().enumerate() {
        let mut row = flat(commit)?;
        let why = match (&*commit.cause, &commit.code) {
            (_, Some(code)) => format!(" ✗ {code}"),
            ("outside", None) => format!(" (caused by {})", commit.causation_id),
            ("circle", None) => format!(" (in a circle, caused by {})", commit.causation_id),
            _ => String::new(),
        };
        let (branch, below) = branches(story, at);
        row["what"] = json!(format!("{branch}{}{why}", commit.command));
        row["after"] = json!(commit.after_ms.map(after));
        rows.push(row);
        for event in &commit.events {
            rows.push(json!({
                "what": format!("{below}• {}", event.type_name), "version": event.version,
                "recorded_at": "", "stream": commit.stream,
            }));
        }
        let left_out = commit
            .event_count
            .saturating_sub(commit.events.len() as u64);
        if left_out > 0 {
            rows.push(json!({"what": format!("{below}• {left_out} more events")}));
        }
    }
    Ok(rows)
}

/// What stands before a commit, and before its events: the lines from the commits above it.
fn branches(story: &Story, at: usize) -> (String, String) {
    let depth = story.commits[at].depth;
    // Whether a later commit hangs on the line of this depth.
    let goes_on = |line: u64| {
        let later = story.commits[at + 1..].iter().map(|commit| commit.depth);
        later
            .take_while(|depth| *depth >= line)
            .any(|depth| depth == line)
    };
    let mut branch = String::new();
    for line in 1..depth {
        branch += if goes_on(line) { "│ " } else { "  " };
    }
    let below = match (depth, goes_on(depth)) {
        (0, _) => String::new(),
        (_, true) => format!("{branch}│ "),
        (_, false) => format!("{branch}  "),
    };
    let is_parent = story
        .commits
        .get(at + 1)
        .is_some_and(|next| next.depth > depth);
    let below = format!("{below}{} ", if is_parent { "│" } else { " " });
    let own = match (depth, goes_on(depth)) {
        (0, _) => "",
        (_, true) => "├─",
        (_, false) => "└─",
    };
    (format!("{branch}{own}"), below)
}

fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A time between two commits.
fn after(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "+" };
    match ms.unsigned_abs() {
        ms if ms < 1_000 => format!("{sign}{ms} ms"),
        ms if ms < 60_000 => format!("{sign}{}.{} s", ms / 1_000, ms % 1_000 / 100),
        ms if ms < 3_600_000 => format!("{sign}{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        ms if ms < 86_400_000 => {
            format!("{sign}{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000)
        }
        ms => format!(
            "{sign}{} d {} h",
            ms / 86_400_000,
            ms % 86_400_000 / 3_600_000
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_drawn_with_its_events_below_each_command() {
        let at = "2026-01-01T00:00:00Z";
        let commit = |depth: u64, command: &str, events: &[&str], code: Option<&str>| {
            let events: Vec<Value> = events
                .iter()
                .map(|name| json!({"id": uuid(0), "type": name, "version": 1, "occurred_at": at}))
                .collect();
            json!({
                "commit": uuid(1), "depth": depth, "cause": "command", "parent": null,
                "parent_event": null, "after_ms": 61_500, "stream": "order-1", "command_id": "c",
                "command": command, "causation_id": "k", "actor": null, "traceparent": null,
                "occurred_at": at, "recorded_at": at, "outcome": "accepted", "code": code,
                "detail": null, "version": 1, "event_count": events.len(), "events": events,
                "position": null,
            })
        };
        let story: Story = serde_json::from_value(json!({
            "correlation_id": "k", "streams": 1, "refused": 1, "began_at": at, "ended_at": at,
            "complete": true, "position": null,
            "commits": [
                commit(0, "Place", &["Placed"], None),
                commit(1, "Pay", &["Paid", "Noted"], None),
                commit(2, "Approve", &["Approved"], None),
                commit(1, "Ship", &[], Some("too_early")),
            ],
        }))
        .unwrap();
        let rows = drawn(&story).unwrap();
        let lines: Vec<&str> = rows
            .iter()
            .map(|row| row["what"].as_str().unwrap())
            .collect();
        let expected = [
            "Place",
            "│ • Placed",
            "├─Pay",
            "│ │ • Paid",
            "│ │ • Noted",
            "│ └─Approve",
            "│     • Approved",
            "└─Ship ✗ too_early",
        ];
        assert_eq!(lines, expected);
        assert_eq!(rows[2]["after"], "+1 min 1 s");
    }

    fn uuid(number: u128) -> String {
        format!("00000000-0000-0000-0000-{number:012}")
    }
}
