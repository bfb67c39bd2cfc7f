//! `annals read`: rows of a read model through a running server, as they are or as they were.

use clap::Args;
use client::{Freshness, Page, Query};
use serde_json::Value;

use super::request;
use crate::args::Server;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// The help text after the options.
pub(crate) const HELP: &str = "\
Examples:
  annals read MODEL --limit 20
  annals read MODEL KEY --as-of 2026-03-01T12:00:00Z
  annals read MODEL --as-of POSITION --output csv";

/// How many rows are asked for at once.
const PAGE_SIZE: u32 = 1_000;

/// Arguments of `read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// The read model
    model: String,
    /// The key of one row, its columns joined by commas [default: all rows]
    key: Option<String>,
    /// Show the rows as they were: as of a time, such as 2026-03-01T12:00:00Z, or of the position
    /// token of a command's answer
    #[arg(long, value_name = "TIME|POSITION")]
    as_of: Option<String>,
    /// The most rows to show
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// The tenant of the rows
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Which server.
    #[command(flatten)]
    pub server: Server,
}

/// Shows rows, page by page.
pub(super) async fn run(settings: &Settings, args: &ReadArgs) -> Result<Exit, Failure> {
    let client = request::client(settings)?;
    let query = Query {
        tenant: Some(args.tenant.clone()),
        as_of: args.as_of.clone(),
        ..Query::default()
    };
    let failed = |error| request::failed(settings, error);
    if let Some(key) = &args.key {
        let read = client.row::<Value>(&args.model, key, &query).await;
        let read = read.map_err(failed)?;
        say_moment(&read.freshness);
        show(settings, &[read.value])?;
        return Ok(Exit::Done);
    }
    let (mut rows, mut after, mut left) = (Vec::new(), None::<String>, args.limit);
    let mut is_more = false;
    while left > 0 {
        let limit = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_SIZE);
        let read = client.rows::<Value>(&args.model, after.as_deref(), limit, &query);
        let read = read.await.map_err(failed)?;
        if after.is_none() {
            say_moment(&read.freshness);
        }
        let Page { rows: page, next } = read.value;
        left = left.saturating_sub(u64::try_from(page.len()).unwrap_or(u64::MAX));
        rows.extend(page);
        // Lines are printed as they come; a table needs all of them for its columns.
        if settings.output == OutputFormat::Ndjson {
            show(settings, &rows)?;
            rows.clear();
        }
        is_more = next.is_some();
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    match settings.output {
        OutputFormat::Ndjson => {}
        // A table without rows would be an empty line.
        OutputFormat::Table if rows.is_empty() => talk!("no rows"),
        _ => show(settings, &rows)?,
    }
    if is_more {
        talk!("there are more rows: --limit shows them");
    }
    Ok(Exit::Done)
}

fn say_moment(freshness: &Freshness) {
    let Some(moment) = &freshness.as_of else {
        return;
    };
    let position = freshness.as_of_position.as_ref().map(ToString::to_string);
    let position = position.filter(|position| position != moment);
    let position = position.map_or_else(String::new, |position| format!(", position {position}"));
    match freshness.provisional {
        true => talk!("as of {moment}{position}; provisional: commits up to then may still come"),
        false => talk!("as of {moment}{position}"),
    }
}

fn show(settings: &Settings, rows: &[Value]) -> Result<(), Failure> {
    let first = rows.first().and_then(Value::as_object);
    let columns: Vec<&str> = first
        .map(|row| row.keys().map(String::as_str).collect())
        .unwrap_or_default();
    output::rows(settings.output, &columns, rows)
}
