//! An event as a row.
//!
//! Deliberately absent: which events, and the columns made of an event's data (`typed`).

use event_log::commit::EventPart;
use event_log::subscription::Placed;

use crate::cell::{Cell, Column, Kind};
use crate::typed::Typed;

/// The columns that every event has, in order.
const COLUMNS: [(&str, Kind, bool); 19] = [
    ("partition", Kind::Int32, false),
    ("position", Kind::Int64, false),
    ("tenant", Kind::Words, false),
    ("category", Kind::Words, false),
    ("stream", Kind::Text, false),
    ("version", Kind::Int64, false),
    ("event_id", Kind::Text, false),
    ("type", Kind::Words, false),
    ("schema", Kind::Int32, false),
    ("occurred_at", Kind::Moment, false),
    ("recorded_at", Kind::Moment, false),
    ("command_id", Kind::Text, false),
    ("command_type", Kind::Words, false),
    ("actor_kind", Kind::Words, true),
    ("actor_id", Kind::Text, true),
    ("correlation_id", Kind::Text, false),
    ("causation_id", Kind::Text, false),
    ("traceparent", Kind::Text, true),
    ("data", Kind::Json, false),
];

/// The columns of events.
pub(crate) fn columns(typed: Option<&Typed>) -> Vec<Column> {
    let own = COLUMNS.iter().map(|&(name, kind, nullable)| Column {
        name: name.to_owned(),
        kind,
        nullable,
    });
    let typed = typed.into_iter().flat_map(Typed::columns).cloned();
    own.chain(typed).collect()
}

/// The row of a commit's event; `index` is its place in the commit.
///
/// # Errors
/// What does not fit, in words.
pub(crate) fn row<'a>(
    placed: &'a Placed,
    index: u64,
    event: &'a EventPart,
    typed: Option<&Typed>,
) -> Result<Vec<Cell<'a>>, String> {
    let commit = &placed.commit;
    let actor = commit.actor.as_ref();
    let mut cells = Vec::with_capacity(COLUMNS.len());
    cells.extend([
        Cell::Int(placed.partition.0.into()),
        Cell::Int(placed.position.0.cast_signed()),
        Cell::text(commit.tenant.as_str()),
        Cell::text(commit.stream.category()),
        Cell::text(commit.stream.as_str()),
        Cell::Int((commit.from_version + index + 1).cast_signed()),
        Cell::owned(event.id.to_string()),
        Cell::text(event.type_name.as_str()),
        Cell::Int(event.schema.into()),
        Cell::Moment(commit.occurred_at(event).micros()),
        Cell::Moment(commit.recorded_at.micros()),
        Cell::text(commit.command.id.as_str()),
        Cell::text(commit.command.type_name.as_str()),
        Cell::or_null(actor.map(|actor| Cell::text(actor.kind.as_str()))),
        Cell::or_null(actor.map(|actor| Cell::text(&actor.id))),
        Cell::text(commit.correlation_id()),
        Cell::text(commit.causation_id()),
        Cell::or_null(commit.trace.as_deref().map(Cell::text)),
        Cell::text(event.data.get()),
    ]);
    if let Some(typed) = typed {
        let category = commit.stream.category();
        let more = typed.cells(category, event).map_err(|why| {
            format!(
                "the data of event {} of {} at partition {}, position {}: {why}",
                event.type_name, commit.stream, placed.partition, placed.position
            )
        })?;
        cells.extend(more);
    }
    Ok(cells)
}
