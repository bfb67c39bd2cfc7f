//! Rows of tables, read back from Postgres as values.
//!
//! Invariant: what was written is read back as the same values, so that a row that was folded and a
//! row that is stored can be compared. Deliberately absent: what a view shows of them.

use chrono::{DateTime, Utc};
use kernel::{StreamName, Timestamp};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::declare::column_type::ColumnType;
use crate::declare::exact::Exact;
use crate::declare::table::{Merge, Table};
use crate::declare::value::{Finite, Value};
use crate::fold::cell::{Cell, Rank};
use crate::store::sql::{Physical, identifier, owner_column, value_columns};

/// A column in the form in which [`value`] reads it.
fn selected(column: &Physical, of: &str) -> String {
    let name = format!("{of}.{}", identifier(&column.name));
    match column.column_type {
        ColumnType::Numeric | ColumnType::Decimal { .. } | ColumnType::Jsonb => {
            format!("{name}::text")
        }
        _ => name,
    }
}

/// The columns that [`stored`] reads: those of the row `of` behind its key.
pub(super) fn stored_columns(table: &Table, of: &str) -> String {
    let columns = owner_column(table).into_iter().chain(value_columns(table));
    let columns: Vec<String> = columns.map(|column| selected(&column, of)).collect();
    columns.join(", ")
}

/// The cells of a row whose columns begin at `from`, and the stream that it belongs to.
pub(super) fn stored(
    row: &PgRow,
    table: &Table,
    from: usize,
) -> Result<(Option<StreamName>, Box<[Cell]>), sqlx::Error> {
    let mut at = from;
    let owner = match owner_column(table) {
        None => None,
        Some(_) => {
            at += 1;
            let name: String = row.try_get(from)?;
            let name = name.parse().map_err(|error| decoding(from, error))?;
            Some(name)
        }
    };
    let mut cells = Vec::with_capacity(table.values.len());
    for declared in table.values {
        let held = value(row, at, declared.column_type)?;
        at += 1;
        let Merge::Latest { by } = declared.merge else {
            cells.push(held.map_or(Cell::Null, Cell::Value));
            continue;
        };
        let rank = value(row, at, by)?;
        let (partition, position) = (row.try_get(at + 1)?, row.try_get(at + 2)?);
        at += 3;
        cells.push(match (held, rank, partition, position) {
            (Some(held), Some(by), Some(partition), Some(position)) => {
                let rank = Rank {
                    by,
                    partition,
                    position,
                };
                Cell::Latest(held, Box::new(rank))
            }
            _ => Cell::Null,
        });
    }
    Ok((owner, cells.into()))
}

/// The value at this place of a row; absent for null.
pub(super) fn value(
    row: &PgRow,
    index: usize,
    column_type: ColumnType,
) -> Result<Option<Value>, sqlx::Error> {
    let text = || row.try_get::<Option<String>, _>(index);
    let wrong = || decoding(index, "no value of its column");
    Ok(match column_type {
        ColumnType::Text => text()?.map(|text| Value::Text(text.into())),
        ColumnType::Jsonb => text()?.map(|text| Value::Jsonb(text.into())),
        ColumnType::Numeric => match text()? {
            None => None,
            Some(text) => Some(Value::Numeric(text.parse().map_err(|_| wrong())?)),
        },
        ColumnType::Decimal { scale } => match text()? {
            None => None,
            Some(text) => {
                let number = Exact::read(&text).ok_or_else(wrong)?;
                Some(Value::Decimal(Box::new(number.rounded(scale))))
            }
        },
        ColumnType::Bigint => row.try_get::<Option<i64>, _>(index)?.map(Value::Bigint),
        ColumnType::Double => {
            let number = row.try_get::<Option<f64>, _>(index)?;
            match number {
                None => None,
                Some(number) => Some(Value::Double(Finite::new(number).ok_or_else(wrong)?)),
            }
        }
        ColumnType::Boolean => row.try_get::<Option<bool>, _>(index)?.map(Value::Boolean),
        ColumnType::Uuid => row.try_get::<Option<_>, _>(index)?.map(Value::Uuid),
        ColumnType::Timestamptz => {
            let at = row.try_get::<Option<DateTime<Utc>>, _>(index)?;
            match at.map(Timestamp::from_utc) {
                None => None,
                Some(Ok(at)) => Some(Value::Timestamptz(at)),
                Some(Err(error)) => return Err(decoding(index, error)),
            }
        }
        ColumnType::Date => row.try_get::<Option<_>, _>(index)?.map(Value::Date),
        ColumnType::Bytea => {
            let bytes = row.try_get::<Option<Vec<u8>>, _>(index)?;
            bytes.map(|bytes| Value::Bytea(bytes.into()))
        }
        ColumnType::TextArray => {
            let texts = row.try_get::<Option<Vec<String>>, _>(index)?;
            texts.map(|texts| Value::TextArray(texts.into_iter().map(Into::into).collect()))
        }
    })
}

fn decoding(
    index: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: index.to_string(),
        source: error.into(),
    }
}
