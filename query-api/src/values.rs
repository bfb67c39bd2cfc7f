//! The values of columns: read from text as clients write them, bound to statements, and shown.
//!
//! Invariant: amounts are numbers, times RFC 3339 with `Z`, days `YYYY-MM-DD`, bytes hexadecimal, in
//! every form of an answer and in every parameter. Deliberately absent: which column may be asked.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use chrono::{DateTime, NaiveDate, Utc};
use kernel::Timestamp;
use projector::{ColumnType, Value};
use sqlx::Row as _;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;

/// The first day that Postgres knows, in November 4714 BC.
pub(super) fn is_day_of_postgres(day: NaiveDate) -> bool {
    NaiveDate::from_ymd_opt(-4713, 11, 24).is_some_and(|first| day >= first)
}

/// A column's value from its text; absent if the text is not a value of this type.
pub(super) fn value_of(column_type: ColumnType, text: &str) -> Option<Value> {
    match column_type {
        ColumnType::Text => (!text.contains('\0')).then(|| Value::from(text)),
        ColumnType::Bigint => {
            let number: i64 = text.parse().ok()?;
            let is_plain = number.to_string() == text;
            is_plain.then_some(Value::Bigint(number))
        }
        // A sum cannot be in a key, and views show it as bigint.
        ColumnType::Numeric => None,
        ColumnType::Timestamptz => text.parse().ok().map(Value::Timestamptz),
        ColumnType::Date => {
            let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            let is_plain = day.to_string() == text && is_day_of_postgres(day);
            is_plain.then_some(Value::Date(day))
        }
        ColumnType::Bytea => hex::decode(text)
            .ok()
            .map(|bytes| Value::Bytea(bytes.into())),
    }
}

/// How a client writes a value of this type.
pub(super) fn form_of(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Text => "a text",
        ColumnType::Bigint | ColumnType::Numeric => "an integer of 64 bits",
        ColumnType::Timestamptz => "a time such as 2018-01-31T12:00:00Z",
        ColumnType::Date => "a day such as 2018-01-31",
        ColumnType::Bytea => "bytes as hexadecimal digits",
    }
}

pub(super) fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    value: &'q Value,
) -> Query<'q, Postgres, PgArguments> {
    match value {
        Value::Text(text) => query.bind(&**text),
        Value::Bigint(number) => query.bind(*number),
        Value::Numeric(_) => unreachable!("views show a sum as bigint"),
        Value::Timestamptz(moment) => query.bind(moment.to_utc()),
        Value::Date(day) => query.bind(*day),
        Value::Bytea(bytes) => query.bind(&**bytes),
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell<'r> {
    Null,
    Text(&'r str),
    Bigint(i64),
    Moment(Timestamp),
    Day(NaiveDate),
    Bytes(&'r [u8]),
}

impl<'r> Cell<'r> {
    /// The value at this place of a row.
    pub(super) fn of(
        row: &'r PgRow,
        index: usize,
        column_type: ColumnType,
    ) -> Result<Self, sqlx::Error> {
        fn some<'r, T>(value: Option<T>, cell: impl FnOnce(T) -> Cell<'r>) -> Cell<'r> {
            value.map_or(Cell::Null, cell)
        }
        Ok(match column_type {
            ColumnType::Text => some(row.try_get(index)?, Cell::Text),
            ColumnType::Bigint | ColumnType::Numeric => some(row.try_get(index)?, Cell::Bigint),
            ColumnType::Timestamptz => {
                some(row.try_get::<Option<DateTime<Utc>>, _>(index)?, |at| {
                    Timestamp::from_utc(at).map_or(Cell::Null, Cell::Moment)
                })
            }
            ColumnType::Date => some(row.try_get(index)?, Cell::Day),
            ColumnType::Bytea => some(row.try_get(index)?, Cell::Bytes),
        })
    }

    /// The value as it can be bound again; absent for null.
    pub(super) fn value(&self) -> Option<Value> {
        Some(match self {
            Self::Null => return None,
            Self::Text(text) => Value::from(*text),
            Self::Bigint(number) => Value::Bigint(*number),
            Self::Moment(moment) => Value::Timestamptz(*moment),
            Self::Day(day) => Value::Date(*day),
            Self::Bytes(bytes) => Value::Bytea((*bytes).into()),
        })
    }

    /// The value if it is a text, which may hold anything.
    pub(super) fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Null | Self::Bigint(_) | Self::Moment(_) | Self::Day(_) | Self::Bytes(_) => None,
        }
    }

    /// Adds the value to a JSON text.
    pub(super) fn write_json(&self, json: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        match self {
            Self::Null => json.extend_from_slice(b"null"),
            Self::Text(text) => serde_json::to_writer(json, text)?,
            Self::Bigint(number) => serde_json::to_writer(json, number)?,
            Self::Moment(_) | Self::Day(_) | Self::Bytes(_) => {
                // No character of these needs an escape.
                json.push(b'"');
                let mut text = String::new();
                write!(text, "{self}").unwrap_or_default();
                json.extend_from_slice(text.as_bytes());
                json.push(b'"');
            }
        }
        Ok(())
    }
}

impl fmt::Display for Cell<'_> {
    /// The value as text; null is empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Bigint(number) => number.fmt(f),
            Self::Moment(moment) => moment.fmt(f),
            Self::Day(day) => day.fmt(f),
            Self::Bytes(bytes) => f.write_str(&hex::encode(bytes)),
        }
    }
}

/// A value as text, which [`value_of`] reads again.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        Value::Bigint(number) => number.to_string(),
        Value::Numeric(number) => number.to_string(),
        Value::Timestamptz(moment) => moment.to_string(),
        Value::Date(day) => day.to_string(),
        Value::Bytea(bytes) => hex::encode(bytes),
    }
}
