//! Columns made of the data of events, as its JSON Schema describes it.
//!
//! Invariant: a column holds what the data says, exactly, or the export ends with an error that names the
//! event. Old shapes of an event are read as the newest one. Objects become one column for each of their
//! members; lists, and what has no one type, stay JSON. Deliberately absent: the data as a whole, which
//! every row has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use event_log::commit::EventPart;
use kernel::Timestamp;
use kernel::registry::{Registry, definitions_of};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cell::{Cell, Column, Kind, day_number};

/// How deep objects in objects become columns; below that they stay JSON.
const DEPTH_MAX: usize = 4;
/// What every such column's name begins with.
const PREFIX: &str = "data";

/// The columns of the data of some types of events.
#[derive(Clone)]
pub struct Typed {
    registry: Registry,
    columns: Vec<Column>,
    /// Where each column's value stands.
    paths: Vec<Vec<String>>,
    /// The category and the type of each event that has them.
    types: Vec<(&'static str, &'static str)>,
}

/// A column that was found.
struct Found {
    path: Vec<String>,
    kind: Kind,
}

impl Typed {
    /// The columns of a type of event, or of all events of a category.
    ///
    /// # Errors
    /// A message with the names that there are.
    pub fn of(registry: &Registry, name: &str) -> Result<Self, String> {
        let found = Self::matching(registry, |category, event| {
            name == category || name == event
        });
        found.map_err(|known| {
            let categories = registry.categories();
            format!(
                "no type of event and no category is named {name:?}; there are the types {known}, \
                 and the categories {categories}"
            )
        })
    }

    /// The columns of one type of event; none if it is not known.
    pub(crate) fn of_event(registry: &Registry, category: &str, event: &str) -> Self {
        let is_it = |one: &str, name: &str| (one, name) == (category, event);
        Self::matching(registry, is_it)
            .unwrap_or_else(|_| Self::made(registry, Vec::new(), Vec::new()))
    }

    /// The columns of the events that match by category and type; else the types that there are.
    fn matching(
        registry: &Registry,
        is_wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<Self, String> {
        let mut generator = Registry::schema_generator("/$defs");
        let mut wanted = Vec::new();
        let mut known = Vec::new();
        for aggregate in registry.iter() {
            let category = aggregate.category();
            for event in aggregate.event_types(&mut generator) {
                known.push(event.name);
                if is_wanted(category, event.name) {
                    wanted.push((category, event.name, event.schema));
                }
            }
        }
        if wanted.is_empty() {
            return Err(known.join(", "));
        }
        let definitions = definitions_of(generator);
        let definitions: BTreeMap<String, Value> = definitions
            .into_iter()
            .map(|(name, schema)| (name, schema.to_value()))
            .collect();
        let mut found: Vec<Found> = Vec::new();
        let mut types = Vec::new();
        for (category, event, schema) in wanted {
            types.push((category, event));
            walk(
                &schema.to_value(),
                &definitions,
                &mut Vec::new(),
                &mut found,
            );
        }
        Ok(Self::made(registry, found, types))
    }

    fn made(
        registry: &Registry,
        found: Vec<Found>,
        types: Vec<(&'static str, &'static str)>,
    ) -> Self {
        let mut columns: Vec<Column> = Vec::new();
        let mut paths: Vec<Vec<String>> = Vec::new();
        for Found { path, kind } in found {
            if let Some(known) = paths.iter().position(|one| *one == path) {
                if columns[known].kind != kind {
                    columns[known].kind = Kind::Json;
                }
                continue;
            }
            let mut name = format!("{PREFIX}_{}", path.join("_"));
            while columns.iter().any(|column| column.name == name) {
                name.push('_');
            }
            columns.push(Column::new(name, kind).nullable());
            paths.push(path);
        }
        Self {
            registry: registry.clone(),
            columns,
            paths,
            types,
        }
    }

    /// Where the value of each column stands in the data.
    pub(crate) fn paths(&self) -> &[Vec<String>] {
        &self.paths
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The values of an event; null for an event of another type.
    pub(crate) fn cells<'a>(
        &self,
        category: &str,
        event: &'a EventPart,
    ) -> Result<Vec<Cell<'a>>, String> {
        let name = event.type_name.as_str();
        if !self.types.contains(&(category, name)) {
            return Ok(vec![Cell::Null; self.columns.len()]);
        }
        let newest = match self.registry.get(category) {
            Some(aggregate) => aggregate
                .newest_event(name, event.schema, &event.data)
                .map_err(|error| error.to_string())?,
            None => return Err(format!("no rules of the category {category} are known")),
        };
        let members = members_of(newest.data.get())?;
        let cells = self.paths.iter().zip(&self.columns).map(|(path, column)| {
            let value = value_at(&members, path)?;
            let cell = value.map(|value| cell_of(value.get(), column.kind));
            cell.unwrap_or(Ok(Cell::Null)).map_err(|()| {
                format!(
                    "{} is no value of the type of column {}",
                    path.join("/"),
                    column.name
                )
            })
        });
        cells.collect()
    }
}

type Members = BTreeMap<String, Box<RawValue>>;

fn members_of(json: &str) -> Result<Members, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn value_at<'m>(
    members: &'m Members,
    path: &[String],
) -> Result<Option<Cow<'m, RawValue>>, String> {
    let Some((first, rest)) = path.split_first() else {
        return Ok(None);
    };
    let Some(value) = members.get(first) else {
        return Ok(None);
    };
    if rest.is_empty() {
        return Ok(Some(Cow::Borrowed(&**value)));
    }
    if value.get() == "null" {
        return Ok(None);
    }
    let inner = members_of(value.get())?;
    let found = value_at(&inner, rest)?;
    Ok(found.map(|value| Cow::Owned(value.into_owned())))
}

/// A value from its JSON.
fn cell_of(json: &str, kind: Kind) -> Result<Cell<'static>, ()> {
    if json == "null" {
        return Ok(Cell::Null);
    }
    let text = || serde_json::from_str::<String>(json).map_err(|_| ());
    Ok(match kind {
        Kind::Json => Cell::owned(json.to_owned()),
        Kind::Text | Kind::Words => Cell::owned(text()?),
        Kind::Int32 | Kind::Int64 => Cell::Int(json.parse().map_err(|_| ())?),
        Kind::Decimal { .. } => Cell::Decimal(json.parse().map_err(|_| ())?),
        Kind::Double => {
            let number: f64 = json.parse().map_err(|_| ())?;
            Cell::Double(number)
        }
        Kind::Boolean => Cell::Boolean(json.parse().map_err(|_| ())?),
        Kind::Moment => Cell::Moment(text()?.parse::<Timestamp>().map_err(|_| ())?.micros()),
        Kind::Day => {
            let day = chrono::NaiveDate::parse_from_str(&text()?, "%Y-%m-%d");
            Cell::Day(day_number(day.map_err(|_| ())?))
        }
        Kind::Bytes | Kind::Texts => return Err(()),
    })
}

/// Finds the columns of a schema.
fn walk(
    schema: &Value,
    definitions: &BTreeMap<String, Value>,
    path: &mut Vec<String>,
    found: &mut Vec<Found>,
) {
    let schema = resolved(schema, definitions);
    if let Some(members) = schema.get("properties").and_then(Value::as_object)
        && is_plain_object(&schema)
        && path.len() < DEPTH_MAX
    {
        for (name, member) in members {
            path.push(name.clone());
            walk(member, definitions, path, found);
            path.pop();
        }
        return;
    }
    if !path.is_empty() {
        found.push(Found {
            path: path.clone(),
            kind: kind_of(&schema),
        });
    }
}

/// Whether an object has the declared members and no others.
fn is_plain_object(schema: &Value) -> bool {
    let choices = ["oneOf", "anyOf", "allOf"];
    schema
        .get("additionalProperties")
        .is_none_or(|more| *more == Value::Bool(false))
        && choices.iter().all(|choice| schema.get(choice).is_none())
}

/// A schema without references and without null.
fn resolved(schema: &Value, definitions: &BTreeMap<String, Value>) -> Value {
    let mut schema = schema.clone();
    for _ in 0..8 {
        let reference = schema.get("$ref").and_then(Value::as_str);
        if let Some(target) =
            reference.and_then(|path| definitions.get(path.rsplit('/').next().unwrap_or(path)))
        {
            schema = target.clone();
            continue;
        }
        let choice = ["anyOf", "oneOf"]
            .iter()
            .find_map(|name| schema.get(name)?.as_array());
        let one = choice.and_then(|choice| {
            let is_null = |one: &&Value| one.get("type") == Some(&Value::from("null"));
            let mut others = choice.iter().filter(|one| !is_null(one));
            let one = others.next()?;
            others.next().is_none().then(|| one.clone())
        });
        match one {
            Some(one) => schema = one,
            None => break,
        }
    }
    schema
}

fn kind_of(schema: &Value) -> Kind {
    let format = schema
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let named = match schema.get("type") {
        Some(Value::String(name)) => Some(name.as_str()),
        Some(Value::Array(names)) => {
            let mut others = names
                .iter()
                .filter_map(Value::as_str)
                .filter(|name| *name != "null");
            others.next().filter(|_| others.next().is_none())
        }
        _ => None,
    };
    let values = schema.get("enum").and_then(Value::as_array);
    let is_texts = values.is_some_and(|values| values.iter().all(|v| v.is_string() || v.is_null()));
    match (named, format) {
        (Some("string"), "date-time") => Kind::Moment,
        (Some("string"), "date") => Kind::Day,
        (Some("string") | None, _) if is_texts => Kind::Words,
        (Some("string"), _) => Kind::Text,
        (Some("integer"), "uint64" | "uint128" | "int128" | "uint") => {
            let exceeds = schema.get("maximum").and_then(Value::as_i64).is_none();
            if exceeds {
                Kind::Decimal { scale: 0 }
            } else {
                Kind::Int64
            }
        }
        (Some("integer"), _) => Kind::Int64,
        (Some("number"), _) => Kind::Double,
        (Some("boolean"), _) => Kind::Boolean,
        _ => Kind::Json,
    }
}
