//! OCEL 2.0: events with the objects that they are about, for process mining.
//!
//! Each stream is an object; which others an event names, and which attributes it sets, is declared with
//! the rules ([`kernel::EventObjects`]). The time of an event is its business time. Invariant: memory is
//! bounded: everything goes into a database file first, which is the SQLite form, and JSON is made of it
//! row by row. Deliberately absent: going on after an interruption, and a manifest; one file is made at
//! once.

mod database;
mod json;

use std::path::Path;
use std::sync::Arc;

use event_log::commit::{Commit, EventPart};
use event_log::log::EventLog;
use kernel::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cell::Kind;
use crate::error::ExportError;
use crate::manifest::Request;
use crate::run::Watch;
use crate::source::{self, Read};
use crate::typed::Typed;
use database::Database;

/// The form of an object-centric event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcelForm {
    /// One JSON document.
    Json,
    /// A relational database in one file.
    Sqlite,
}

/// How much was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OcelCounts {
    /// Events.
    pub events: u64,
    /// Objects.
    pub objects: u64,
    /// Relations between events and objects.
    pub relations: u64,
}

/// A type of event, as OCEL declares it.
struct EventType {
    category: String,
    event: String,
    /// Its name in the log.
    name: String,
    typed: Typed,
    attributes: Vec<Attribute>,
}

/// An attribute of events or objects.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    name: String,
    kind: Kind,
}

/// Writes the wanted events, with their objects, into one file.
///
/// # Errors
/// [`ExportError`].
pub async fn export_ocel(
    log: Arc<dyn EventLog>,
    registry: &Registry,
    request: &Request,
    form: OcelForm,
    file: &Path,
    watch: &mut Watch<'_>,
) -> Result<OcelCounts, ExportError> {
    let is_there = file.exists();
    if is_there {
        let file = file.display();
        return Err(ExportError::Folder(format!(
            "{file} exists already; name a new file"
        )));
    }
    let mut types = types_of(registry);
    let mut database = Database::begin(file).await?;
    for one in &types {
        database.add_event_type(&one.name, &one.attributes).await?;
    }
    for aggregate in registry.iter() {
        let category = aggregate.category();
        database
            .add_object_type(category, &object_attributes(&types, registry, category))
            .await?;
        for related in aggregate.objects().iter().flat_map(|of| of.relates) {
            if registry.get(related.object).is_none() {
                database.add_object_type(related.object, &[]).await?;
            }
        }
    }
    let written = fill(&log, registry, request, &mut types, &mut database, watch).await;
    let counts = match written {
        Ok(()) => database.counts().await,
        Err(error) => Err(error),
    };
    let counts = match counts {
        Ok(counts) => counts,
        Err(error) => {
            database.discard().await;
            return Err(error);
        }
    };
    match form {
        OcelForm::Sqlite => database.appear().await?,
        OcelForm::Json => {
            let made = json::write(&mut database, file).await;
            database.discard().await;
            made?;
        }
    }
    Ok(counts)
}

async fn fill(
    log: &Arc<dyn EventLog>,
    registry: &Registry,
    request: &Request,
    types: &mut Vec<EventType>,
    database: &mut Database,
    watch: &mut Watch<'_>,
) -> Result<(), ExportError> {
    let ranges = source::ranges(&**log, |_| None).await?;
    let total: u64 = ranges.iter().map(|range| range.end.0).sum();
    let mut read = 0;
    let mut reads = source::read(Arc::clone(log), ranges);
    while let Some(next) = reads.recv().await {
        if (watch.is_stopped)() {
            return Err(ExportError::Stopped);
        }
        let Read::Batch(batch) = next? else { continue };
        database.begin_batch().await?;
        for placed in &batch.commits {
            if !request.takes(&placed.commit) {
                continue;
            }
            for event in &placed.commit.events {
                if request.filter.takes_event(event) {
                    add(registry, types, database, &placed.commit, event).await?;
                }
            }
        }
        database.end_batch().await?;
        read += batch.commits.len() as u64;
        (watch.progress)(read, total.max(read));
    }
    Ok(())
}

/// The types of events that the rules know.
fn types_of(registry: &Registry) -> Vec<EventType> {
    let mut types: Vec<EventType> = Vec::new();
    let mut generator = Registry::schema_generator("/$defs");
    for aggregate in registry.iter() {
        for event in aggregate.event_types(&mut generator) {
            let typed = Typed::of_event(registry, aggregate.category(), event.name);
            types.push(EventType::new(
                &types,
                aggregate.category(),
                event.name,
                typed,
            ));
        }
    }
    types
}

impl EventType {
    fn new(others: &[Self], category: &str, event: &str, typed: Typed) -> Self {
        let is_taken = others.iter().any(|one| one.event == event);
        let name = match is_taken {
            true => format!("{category} {event}"),
            false => event.to_owned(),
        };
        let columns = typed.columns().iter().zip(typed.paths());
        let attributes = columns.map(|(column, path)| Attribute {
            name: path.join("_"),
            kind: column.kind,
        });
        Self {
            category: category.to_owned(),
            event: event.to_owned(),
            name,
            attributes: attributes.collect(),
            typed,
        }
    }
}

/// The attributes of the objects that are a category's streams.
fn object_attributes(types: &[EventType], registry: &Registry, category: &str) -> Vec<Attribute> {
    let mut attributes: Vec<Attribute> = Vec::new();
    let declared = registry
        .get(category)
        .map_or(&[][..], |aggregate| aggregate.objects());
    for of in declared {
        for set in of.sets {
            let kind = types
                .iter()
                .find(|one| one.category == category && one.event == of.event)
                .and_then(|one| {
                    let mut paths = one.typed.paths().iter().zip(one.typed.columns());
                    let found = paths.find(|(path, _)| path.join("/") == set.field);
                    found.map(|(_, column)| column.kind)
                });
            if !attributes.iter().any(|one| one.name == set.attribute) {
                attributes.push(Attribute {
                    name: set.attribute.to_owned(),
                    kind: kind.unwrap_or(Kind::Text),
                });
            }
        }
    }
    attributes
}

async fn add(
    registry: &Registry,
    types: &mut Vec<EventType>,
    database: &mut Database,
    commit: &Commit,
    event: &EventPart,
) -> Result<(), ExportError> {
    let (category, name) = (commit.stream.category(), event.type_name.as_str());
    let is_it = |one: &EventType| one.category == category && one.event == name;
    let place = match types.iter().position(is_it) {
        Some(place) => place,
        None => {
            // A type of rules that this program does not have: it is known by its stream alone.
            let typed = Typed::of_event(registry, category, name);
            let added = EventType::new(types, category, name, typed);
            database
                .add_event_type(&added.name, &added.attributes)
                .await?;
            database.add_object_type(category, &[]).await?;
            types.push(added);
            types.len() - 1
        }
    };
    let unreadable = |why: String| ExportError::Format {
        what: format!("the data of event {name} of {}", commit.stream),
        format: "OCEL",
        reason: why,
    };
    let one = &types[place];
    let cells = one.typed.cells(category, event).map_err(unreadable)?;
    let id = event.id.to_string();
    let at = commit.occurred_at(event).micros();
    database
        .add_event(&id, &one.name, at, &one.attributes, &cells)
        .await?;
    let own = object_id(commit, commit.stream.as_str());
    database.add_object(&own, category).await?;
    database.relate(&id, &own, category).await?;
    let declared = registry
        .get(category)
        .map_or(&[][..], |aggregate| aggregate.objects());
    let Some(of) = declared.iter().find(|of| of.event == name) else {
        return Ok(());
    };
    let data = registry
        .get(category)
        .map(|aggregate| aggregate.newest_event(name, event.schema, &event.data));
    let Some(Ok(data)) = data else { return Ok(()) };
    let data: Value =
        serde_json::from_str(data.data.get()).map_err(|error| unreadable(error.to_string()))?;
    for related in of.relates {
        let mut ids = Vec::new();
        named(&data, related.field, &mut ids);
        ids.dedup();
        for named in ids {
            let object = object_id(commit, &format!("{}-{named}", related.object));
            database.add_object(&object, related.object).await?;
            database.relate(&id, &object, related.qualifier).await?;
            database.link(&own, &object, related.qualifier).await?;
        }
    }
    for set in of.sets {
        let place = one
            .typed
            .paths()
            .iter()
            .position(|path| path.join("/") == set.field);
        let Some(place) = place else { continue };
        database
            .set(&own, category, set.attribute, at, &cells[place])
            .await?;
    }
    Ok(())
}

/// The id of an object: other tenants have objects of the same names.
fn object_id(commit: &Commit, name: &str) -> String {
    match commit.tenant.is_main() {
        true => name.to_owned(),
        false => format!("{}/{name}", commit.tenant),
    }
}

/// The names that a field holds.
fn named(value: &Value, field: &str, names: &mut Vec<String>) {
    let Some((first, rest)) = field.split_once('/').or(Some((field, ""))) else {
        return;
    };
    match (first, value) {
        ("", Value::String(name)) => names.push(name.clone()),
        ("", Value::Number(number)) => names.push(number.to_string()),
        ("", _) => {}
        ("*", Value::Array(elements)) => {
            for element in elements {
                named(element, rest, names);
            }
        }
        (name, _) => {
            if let Some(member) = value.get(name) {
                named(member, rest, names);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_names_objects_also_in_lists() {
        let data = json!({"a": "x", "b": {"c": 7}, "d": [{"e": "y"}, {}, {"e": "z"}], "n": null});
        let names = |field: &str| {
            let mut names = Vec::new();
            named(&data, field, &mut names);
            names
        };
        assert_eq!(names("a"), ["x"]);
        assert_eq!(names("b/c"), ["7"]);
        assert_eq!(names("d/*/e"), ["y", "z"]);
        for none in ["n", "b", "a/b", "nothing", "*"] {
            assert_eq!(names(none), [""; 0], "{none}");
        }
    }
}
