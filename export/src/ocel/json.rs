//! The JSON form of OCEL 2.0, made of the relational one.
//!
//! Invariant: every value is a text, as the published schema has it; its type stands with the type of
//! event or object. Deliberately absent: the whole document in memory.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::Attribute;
use super::database::{Database, Mapped, quoted};
use crate::cell::Kind;
use crate::error::ExportError;
use crate::output::Part;

/// How many events or objects are read at once.
const PAGE: i64 = 1_000;

fn failed() -> impl FnOnce(sqlx::Error) -> ExportError {
    ExportError::database("read the event log again")
}

/// Writes the database as JSON into `file`.
pub(super) async fn write(database: &mut Database, file: &Path) -> Result<(), ExportError> {
    let (part, mut out) = Part::begin(file.with_extension("json-whole"))?;
    let written = document(database, &mut out).await;
    match written {
        Ok(()) => {}
        Err(error) => {
            part.discard();
            return Err(error);
        }
    }
    part.complete(out)?.appear_as(file)
}

async fn document(database: &mut Database, out: &mut impl Write) -> Result<(), ExportError> {
    let types = |mapped: &BTreeMap<String, Mapped>| -> Value {
        let one = |(name, mapped): (&String, &Mapped)| {
            let attributes: Vec<Value> = mapped.attributes.iter().map(declared).collect();
            json!({"name": name, "attributes": attributes})
        };
        mapped.iter().map(one).collect()
    };
    let (events, objects) = (types(&database.events), types(&database.objects));
    put(
        out,
        &format!("{{\"eventTypes\":{events},\n\"objectTypes\":{objects},\n\"events\":["),
    )?;
    each(database, out, Of::Events).await?;
    put(out, "],\n\"objects\":[")?;
    each(database, out, Of::Objects).await?;
    put(out, "]}\n")
}

fn put(out: &mut impl Write, text: &str) -> Result<(), ExportError> {
    out.write_all(text.as_bytes())
        .map_err(|error: io::Error| ExportError::file("write", Path::new("the event log"))(error))
}

/// An attribute as a type declares it.
fn declared(attribute: &Attribute) -> Value {
    let type_name = match attribute.kind {
        Kind::Int32 | Kind::Int64 => "integer",
        Kind::Double => "float",
        Kind::Boolean => "boolean",
        Kind::Moment => "time",
        _ => "string",
    };
    json!({"name": attribute.name, "type": type_name})
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Events,
    Objects,
}

/// Writes all events, or all objects.
async fn each(database: &mut Database, out: &mut impl Write, of: Of) -> Result<(), ExportError> {
    let table = match of {
        Of::Events => "event",
        Of::Objects => "object",
    };
    let select = format!(
        "SELECT rowid, ocel_id, ocel_type FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT {PAGE}"
    );
    let mut behind = 0_i64;
    let mut is_first = true;
    loop {
        let page = sqlx::query(AssertSqlSafe(select.clone())).bind(behind);
        let page = page
            .fetch_all(&mut database.connection)
            .await
            .map_err(failed())?;
        if page.is_empty() {
            return Ok(());
        }
        for row in &page {
            behind = row.try_get(0).map_err(failed())?;
            let id: String = row.try_get(1).map_err(failed())?;
            let name: String = row.try_get(2).map_err(failed())?;
            let value = match of {
                Of::Events => event(database, &id, &name).await?,
                Of::Objects => object(database, &id, &name).await?,
            };
            put(out, if is_first { "\n" } else { ",\n" })?;
            is_first = false;
            put(out, &value.to_string())?;
        }
    }
}

/// The columns of attributes, each as a text.
fn texts(attributes: &[Attribute]) -> String {
    let text = |attribute: &Attribute| {
        let name = quoted(&attribute.name);
        match attribute.kind {
            Kind::Boolean => format!(", CASE {name} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END"),
            _ => format!(", CAST({name} AS TEXT)"),
        }
    };
    attributes.iter().map(text).collect()
}

fn text(row: &SqliteRow, index: usize) -> Result<Option<String>, ExportError> {
    row.try_get(index).map_err(failed())
}

async fn event(database: &mut Database, id: &str, name: &str) -> Result<Value, ExportError> {
    let Some(mapped) = database.events.get(name).cloned() else {
        return Ok(Value::Null);
    };
    let (columns, table) = (texts(&mapped.attributes), quoted(&mapped.table));
    let select = format!("SELECT ocel_time{columns} FROM {table} WHERE ocel_id = ?");
    let row = sqlx::query(AssertSqlSafe(select)).bind(id);
    let row = row
        .fetch_one(&mut database.connection)
        .await
        .map_err(failed())?;
    let mut attributes = Vec::new();
    for (index, attribute) in (1..).zip(&mapped.attributes) {
        if let Some(value) = text(&row, index)? {
            attributes.push(json!({"name": attribute.name, "value": value}));
        }
    }
    let select = "SELECT ocel_object_id, ocel_qualifier FROM event_object WHERE ocel_event_id = ? \
                  ORDER BY 1, 2";
    let relationships = relationships(database, select, id).await?;
    Ok(json!({
        "id": id, "type": name, "time": text(&row, 0)?,
        "attributes": attributes, "relationships": relationships,
    }))
}

async fn object(database: &mut Database, id: &str, name: &str) -> Result<Value, ExportError> {
    let Some(mapped) = database.objects.get(name).cloned() else {
        return Ok(Value::Null);
    };
    let (columns, table) = (texts(&mapped.attributes), quoted(&mapped.table));
    let select = format!(
        "SELECT ocel_time, ocel_changed_field{columns} FROM {table} WHERE ocel_id = ? ORDER BY rowid"
    );
    let rows = sqlx::query(AssertSqlSafe(select)).bind(id);
    let rows = rows
        .fetch_all(&mut database.connection)
        .await
        .map_err(failed())?;
    let mut attributes = Vec::new();
    for row in &rows {
        let changed = text(row, 1)?;
        for (index, attribute) in (2..).zip(&mapped.attributes) {
            let is_of_row = changed.as_ref().is_none_or(|name| *name == attribute.name);
            if let (true, Some(value)) = (is_of_row, text(row, index)?) {
                attributes.push(json!({
                    "name": attribute.name, "value": value, "time": text(row, 0)?,
                }));
            }
        }
    }
    let select = "SELECT ocel_target_id, ocel_qualifier FROM object_object WHERE ocel_source_id = ? \
                  ORDER BY 1, 2";
    let relationships = relationships(database, select, id).await?;
    Ok(json!({
        "id": id, "type": name, "attributes": attributes, "relationships": relationships,
    }))
}

async fn relationships(
    database: &mut Database,
    select: &'static str,
    id: &str,
) -> Result<Vec<Value>, ExportError> {
    let rows = sqlx::query(select)
        .bind(id)
        .fetch_all(&mut database.connection)
        .await;
    let mut relationships = Vec::new();
    for row in rows.map_err(failed())? {
        let (object, qualifier) = (text(&row, 0)?, text(&row, 1)?);
        relationships.push(json!({"objectId": object, "qualifier": qualifier}));
    }
    Ok(relationships)
}
