//! A step of a replay, for people and for programs.
//!
//! Deliberately absent: what a step is (`projector`).

use std::fmt::Write as _;

use projector::{ChangedRow, Model, Pause, PauseReason, Step};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// Shows what was done, and the rows that it changed.
pub(super) fn step(
    settings: &Settings,
    models: &[Model],
    pause: &Pause,
    step: &Step,
) -> Result<(), Failure> {
    match settings.output {
        OutputFormat::Json | OutputFormat::Ndjson => {
            output::json(&as_json(pause, step).to_string())
        }
        OutputFormat::Table | OutputFormat::Csv => {
            for line in as_lines(models, pause, step) {
                output::line(&output::shown(&line))?;
            }
            Ok(())
        }
    }
}

/// Shows rows that were asked for.
pub(super) fn rows(settings: &Settings, rows: &[(&'static str, Value)]) -> Result<(), Failure> {
    for (model, row) in rows {
        match settings.output {
            OutputFormat::Json | OutputFormat::Ndjson => {
                output::json(&json!({"model": model, "row": row}).to_string())?;
            }
            OutputFormat::Table | OutputFormat::Csv => {
                output::line(&output::shown(&format!("  {model}: {}", values(row))))?;
            }
        }
    }
    if rows.is_empty() && settings.output == OutputFormat::Table {
        output::line("  there is no such row")?;
    }
    Ok(())
}

fn as_json(pause: &Pause, step: &Step) -> Value {
    let placed = &step.placed;
    let row = |row: &ChangedRow| {
        json!({
            "model": row.model,
            "before": row.before,
            "after": row.after,
            "is_hit": row.is_hit,
        })
    };
    json!({
        "why": match pause.why {
            PauseReason::Condition => "condition",
            _ => "stepped",
        },
        "partition": placed.partition,
        "position": placed.position,
        "offset": placed.record.offset,
        "at": placed.at,
        "commit": placed.commit,
        "event": step.event,
        "rows": step.rows.iter().map(row).collect::<Vec<_>>(),
        "more": step.more,
    })
}

fn as_lines(models: &[Model], pause: &Pause, step: &Step) -> Vec<String> {
    let (placed, commit) = (&step.placed, &step.placed.commit);
    let mut head = format!("{}  {}", placed.at, commit.stream);
    let events = commit.events.iter().map(|event| event.type_name.as_str());
    match step.event {
        Some(event) => {
            let name = events.clone().nth(event).unwrap_or_default();
            let _ = write!(
                head,
                "  event {} of {}: {name}",
                event + 1,
                commit.events.len()
            );
        }
        None => {
            let _ = write!(head, "  {}", events.collect::<Vec<_>>().join(", "));
        }
    }
    let actor = commit.actor.as_ref();
    let actor = actor.map_or_else(
        || "nobody named".to_owned(),
        |actor| format!("{}:{}", actor.kind.as_str(), actor.id),
    );
    let command = &commit.command;
    let mut lines = vec![
        head,
        format!(
            "    command {} {}, by {actor}, partition {}, position {}",
            command.type_name.as_str(),
            command.id.as_str(),
            placed.partition,
            placed.position
        ),
    ];
    if pause.why == PauseReason::Condition {
        lines.push("    the condition became true:".to_owned());
    }
    lines.extend(step.rows.iter().map(|row| changed(models, row)));
    if step.rows.is_empty() {
        lines.push("    no row changed".to_owned());
    }
    if step.more > 0 {
        lines.push(format!("    {} more rows changed", step.more));
    }
    lines
}

/// A row, with its key and what changed in it.
fn changed(models: &[Model], row: &ChangedRow) -> String {
    let model = models.iter().find(|model| model.name == row.model);
    let is_key = |name: &str| {
        name == "tenant" || model.is_some_and(|model| model.key.iter().any(|key| key.name == name))
    };
    let some = row.after.as_ref().or(row.before.as_ref());
    let object = some.and_then(Value::as_object);
    let key = object.into_iter().flatten().filter(|(name, value)| {
        is_key(name) && !(*name == "tenant" && value.as_str() == Some("main"))
    });
    let key: Vec<String> = key
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    let what = match (&row.before, &row.after) {
        (Some(_), None) => "went away".to_owned(),
        (None, Some(after)) if row.is_hit => values(after),
        (None, Some(after)) => format!("new: {}", values(after)),
        (Some(before), Some(after)) => {
            let columns = after.as_object().into_iter().flatten();
            let differing = columns.filter_map(|(name, value)| {
                let earlier = before.get(name)?;
                let change = || format!("{name} {} → {}", text(earlier), text(value));
                (earlier != value).then(change)
            });
            differing.collect::<Vec<_>>().join(", ")
        }
        (None, None) => String::new(),
    };
    format!("    {} {}: {what}", row.model, key.join(" "))
}

/// The values of a row that are not null.
fn values(row: &Value) -> String {
    let columns = row.as_object().into_iter().flatten();
    let columns = columns.filter(|(name, value)| {
        let is_main = *name == "tenant" && value.as_str() == Some("main");
        !value.is_null() && !is_main
    });
    let columns = columns.map(|(name, value)| format!("{name} {}", text(value)));
    columns.collect::<Vec<_>>().join(", ")
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}
