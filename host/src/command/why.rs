//! `annals why`: what made a row of a read model what it is, through a running server.
//!
//! Deliberately absent: adding contributions up; the server says whether they give the stored row.

use clap::Args;
use client::{Contribution, Query, Read, Why};
use serde_json::{Value, json};

use super::request;
use super::stream::actor_of;
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// The help text after the options.
pub(crate) const HELP: &str = "\
Each line is what one event gave one column, oldest first, and the value that the column then had. The last
line of a column is its value in the row, or as of the moment that was asked for.

Examples:
  annals why MODEL KEY
  annals why MODEL KEY COLUMN --as-of 2026-03-01T12:00:00Z
  annals why MODEL KEY --output json | jq .adds_up";

/// How many commits are asked for at once.
const PAGE_SIZE: u32 = 500;

/// Arguments of `why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The read model
    model: String,
    /// The key of the row, its columns joined by commas
    key: String,
    /// Only what gave this column its value [default: all columns]
    column: Option<String>,
    /// What made the row as it was: as of a time, such as 2026-03-01T12:00:00Z, or of the position
    /// token of a command's answer
    #[arg(long, value_name = "TIME|POSITION")]
    as_of: Option<String>,
    /// The most commits to show, from the oldest on
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u64,
    /// The tenant of the row
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

const COLUMNS: [&str; 9] = [
    "recorded_at",
    "event",
    "stream",
    "version",
    "column",
    "given",
    "value",
    "actor",
    "command",
];

const CSV_COLUMNS: [&str; 20] = [
    "recorded_at",
    "occurred_at",
    "event",
    "event_id",
    "stream",
    "version",
    "table",
    "key",
    "effect",
    "column",
    "rule",
    "given",
    "value",
    "actor",
    "command",
    "command_id",
    "correlation_id",
    "commit",
    "partition",
    "offset",
];

/// Shows the contributions, page by page.
pub(super) async fn run(settings: &Settings, args: &WhyArgs) -> Result<Exit, Failure> {
    let client = request::client(settings)?;
    let query = Query {
        tenant: Some(args.tenant.clone()),
        as_of: args.as_of.clone(),
        ..Query::default()
    };
    let (mut after, mut left) = (None::<String>, args.limit.max(1));
    let mut whole: Option<Read<Why>> = None;
    while left > 0 {
        let limit = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_SIZE);
        left -= u64::from(limit);
        let (column, place) = (args.column.as_deref(), after.as_deref());
        let page = client.why(&args.model, &args.key, column, place, limit, &query);
        let page = page
            .await
            .map_err(|error| request::failed(settings, error))?;
        after.clone_from(&page.value.next);
        let page = match settings.output {
            // Lines are printed as they come.
            OutputFormat::Ndjson => {
                output::rows(settings.output, &[], &page.value.contributions)?;
                let mut page = page;
                page.value.contributions.clear();
                page
            }
            _ => page,
        };
        whole = Some(match whole {
            None => page,
            Some(whole) => joined(whole, page),
        });
        if after.is_none() {
            break;
        }
    }
    let Some(whole) = whole else {
        return Ok(Exit::Done);
    };
    match settings.output {
        OutputFormat::Ndjson => {}
        OutputFormat::Json => {
            let text = serde_json::to_string(&whole.value);
            let text = text.map_err(|error| Failure::of(Exit::Failed, &error))?;
            output::json(&output::pretty(&text))?;
        }
        OutputFormat::Csv => {
            output::rows(settings.output, &CSV_COLUMNS, &lines(&whole.value)?)?;
        }
        OutputFormat::Table => output::rows(settings.output, &COLUMNS, &lines(&whole.value)?)?,
    }
    say(&whole);
    Ok(match whole.value.adds_up {
        Some(false) => Exit::Failed,
        Some(true) | None => Exit::Done,
    })
}

/// Two pages as one. They add up if both do.
fn joined(mut whole: Read<Why>, page: Read<Why>) -> Read<Why> {
    let page = page.value;
    let all = &mut whole.value;
    all.contributions.extend(page.contributions);
    all.differences.extend(page.differences);
    all.adds_up = match (all.adds_up, page.adds_up) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        // A search in the log compares the row only at its end.
        (None, last) if all.source == "log" => last,
        (Some(true), last) => last,
        (None, _) => None,
    };
    (all.next, all.position) = (page.next, page.position);
    whole
}

fn say(whole: &Read<Why>) {
    let why = &whole.value;
    if let Some(moment) = &whole.freshness.as_of {
        match whole.freshness.provisional {
            true => talk!("as of {moment}; provisional: commits up to then may still come"),
            false => talk!("as of {moment}"),
        }
    }
    for parked in &why.left_out {
        let (stream, position) = (&parked.stream, parked.position);
        talk!("left out: {stream} is parked from position {position} on");
    }
    for difference in &why.differences {
        let place = match &difference.column {
            Some(column) => format!("{} of {}", column, difference.table),
            None => format!("the row of {}", difference.table),
        };
        let (stored, contributed) = (difference.stored.get(), difference.contributed.get());
        talk!("{place}: {stored} is stored, the contributions give {contributed}");
    }
    match (why.adds_up, &why.next) {
        (Some(false), _) => talk!("the contributions do NOT add up to the stored row"),
        (_, Some(_)) => talk!("there are more commits: --limit shows them"),
        (Some(true), None) => talk!("the contributions add up to the stored row"),
        (None, None) => talk!("the row as it was is not kept, so it was not compared"),
    }
}

/// A line for each value that was given, and for each end of a row.
fn lines(why: &Why) -> Result<Vec<Value>, Failure> {
    let mut lines = Vec::new();
    for contribution in &why.contributions {
        let line = line(contribution)?;
        let joined = match contribution.table == why.model {
            true => String::new(),
            false => format!("{}.", contribution.table),
        };
        if contribution.cells.is_empty() || contribution.effect == "replaced" {
            let mut line = line.clone();
            line["column"] = json!(format!("({joined}row {})", contribution.effect));
            lines.push(line);
        }
        for cell in &contribution.cells {
            let mut line = line.clone();
            line["column"] = json!(format!("{joined}{}", cell.column));
            line["rule"] = json!(cell.rule);
            for (name, text) in [("given", &cell.given), ("value", &cell.value)] {
                let value = serde_json::from_str::<Value>(text.get());
                line[name] = value.map_err(|error| Failure::of(Exit::Failed, &error))?;
            }
            lines.push(line);
        }
    }
    Ok(lines)
}

fn line(contribution: &Contribution) -> Result<Value, Failure> {
    let value = serde_json::to_value(contribution);
    let mut line = value.map_err(|error| Failure::of(Exit::Failed, &error))?;
    line["actor"] = actor_of(&line["actor"]);
    line["event_id"] = line["event"].take();
    line["event"] = line["event_type"].take();
    for name in ["column", "rule", "given", "value"] {
        line[name] = Value::Null;
    }
    Ok(line)
}
