//! Rows of a test in their form for JSON, and how they differ.
//!
//! Invariant: a value looks as the query door shows it. Deliberately absent: what only Postgres can
//! compute.

use serde_json::{Map, Value as Json};

use crate::declare::column_type::ColumnType;
use crate::declare::projection::Projection;
use crate::declare::table::{Empty, Table};
use crate::declare::value::Value;
use crate::fold::cell::Cell;
use crate::fold::changes;
use crate::fold::stored::{Rows, Stored, StoredRow};

/// The rows of a table. The tenant stands in a row only if it is another than `main`.
pub(super) fn shown(table: &Table, rows: &Rows) -> Vec<Json> {
    let row = |key: &[Value], row: &StoredRow| {
        let mut members = Map::new();
        let tenant = json_of(&key[0]);
        if tenant != kernel::TenantId::MAIN {
            members.insert("tenant".to_owned(), tenant);
        }
        for (declared, value) in table.key.iter().zip(&key[1..]) {
            members.insert(declared.name.to_owned(), json_of(value));
        }
        for (declared, cell) in table.values.iter().zip(&row.cells) {
            let value = match (cell, declared.empty) {
                (Cell::Value(value) | Cell::Latest(value, _), _) => json_of(value),
                (Cell::Null | Cell::Emptied, Empty::Zero) => zero(declared.column_type),
                (Cell::Null | Cell::Emptied, Empty::Null | Empty::Never) => Json::Null,
            };
            members.insert(declared.name.to_owned(), value);
        }
        Json::Object(members)
    };
    rows.iter().map(|(key, value)| row(key, value)).collect()
}

fn zero(column_type: ColumnType) -> Json {
    match column_type {
        ColumnType::Boolean => Json::Bool(false),
        ColumnType::Decimal { .. } => Json::from(column_type.zero().unwrap_or_default()),
        ColumnType::Double => Json::from(0.0),
        _ => Json::from(0),
    }
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::Text(text) => Json::from(&**text),
        Value::Bigint(number) => Json::from(*number),
        // As a view shows it.
        Value::Numeric(sum) => i64::try_from(*sum).map_or(Json::Null, Json::from),
        Value::Decimal(number) => Json::from(number.to_string()),
        Value::Double(number) => Json::from(number.get()),
        Value::Boolean(truth) => Json::from(*truth),
        Value::Uuid(id) => Json::from(id.to_string()),
        Value::Timestamptz(moment) => Json::from(moment.to_string()),
        Value::Date(day) => Json::from(day.to_string()),
        Value::Bytea(bytes) => Json::from(hex::encode(bytes)),
        Value::Jsonb(json) => serde_json::from_str(json).unwrap_or(Json::Null),
        Value::TextArray(texts) => texts.iter().map(|text| Json::from(&**text)).collect(),
    }
}

/// How the rows differ from what a test expects, column by column; absent if they do not.
pub(super) fn difference(table: &Table, found: &[Json], expected: &[Json]) -> Option<String> {
    let listed = |rows: &[Json]| {
        let lines = rows.iter().map(|row| format!("\n  {row}"));
        lines.collect::<String>()
    };
    let whole = |what: String| {
        let (found, expected) = (listed(found), listed(expected));
        Some(format!(
            "{what}; the rows of {} are:{found}\nexpected:{expected}",
            table.name
        ))
    };
    for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
        let Some(members) = expected.as_object() else {
            return whole(format!("row {} is expected to be no object", number + 1));
        };
        for (column, expected) in members {
            match found.get(column) {
                Some(found) if found == expected => {}
                Some(found) => {
                    let row = number + 1;
                    return whole(format!("{column} of row {row} is {found}, not {expected}"));
                }
                None if column == "tenant" && expected == kernel::TenantId::MAIN => {}
                None => return whole(format!("there is no column {column}")),
            }
        }
    }
    if found.len() == expected.len() {
        return None;
    }
    whole(format!(
        "there are {} rows, not {}",
        found.len(),
        expected.len()
    ))
}

/// The first table, row and column in which two folds differ.
pub(super) fn first_difference(
    projection: &dyn Projection,
    expected: &Stored,
    found: &Stored,
) -> Option<String> {
    let tables = projection.tables().iter();
    for (table, (expected, found)) in tables.zip(expected.0.iter().zip(&found.0)) {
        let name = table.name;
        for key in expected.keys().chain(found.keys()) {
            let shown = changes::shown(key);
            let (Some(one), Some(other)) = (expected.get(key), found.get(key)) else {
                return Some(format!(
                    "the row {shown:?} of {name} is there in one order only"
                ));
            };
            let cells = one.cells.iter().zip(&other.cells);
            for (declared, (one, other)) in table.values.iter().zip(cells) {
                if one != other {
                    let column = declared.name;
                    let (one, other) = (cell(one), cell(other));
                    return Some(format!(
                        "{column} in the row {shown:?} of {name} is {one} or {other}"
                    ));
                }
            }
        }
    }
    None
}

fn cell(cell: &Cell) -> Json {
    match cell {
        Cell::Value(value) | Cell::Latest(value, _) => json_of(value),
        Cell::Null | Cell::Emptied => Json::Null,
    }
}
