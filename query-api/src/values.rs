//! The values of columns: read from text as clients write them, bound to statements, and shown.
//!
//! Invariant: amounts are numbers, times RFC 3339 with `Z`, days `YYYY-MM-DD`, bytes hexadecimal, in
//! every form of an answer and in every parameter. Deliberately absent: which column may be asked.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use chrono::{DateTime, NaiveDate, Utc};
use kernel::Timestamp;
use projector::{ColumnType, Finite, Value};
use sqlx::Row as _;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

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
        ColumnType::Boolean => text.parse().ok().map(Value::Boolean),
        ColumnType::Uuid => {
            let id = Uuid::parse_str(text).ok()?;
            let is_plain = id.to_string() == text;
            is_plain.then_some(Value::Uuid(id))
        }
        ColumnType::Double => {
            let number: f64 = text.parse().ok()?;
            Finite::new(number).map(Value::Double)
        }
        // Views show a sum as bigint; the others cannot be asked for.
        ColumnType::Numeric
        | ColumnType::Decimal { .. }
        | ColumnType::Jsonb
        | ColumnType::TextArray => None,
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
        ColumnType::Decimal { .. } => "a decimal number",
        ColumnType::Double => "a number",
        ColumnType::Boolean => "true or false",
        ColumnType::Uuid => "a UUID in lower case, with dashes",
        ColumnType::Jsonb => "a JSON text",
        ColumnType::TextArray => "a list of texts",
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
        Value::Boolean(truth) => query.bind(*truth),
        Value::Uuid(id) => query.bind(*id),
        Value::Double(number) => query.bind(number.get()),
        Value::Numeric(_) | Value::Decimal(_) | Value::Jsonb(_) | Value::TextArray(_) => {
            unreachable!("values of this type are not asked for")
        }
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
    Double(f64),
    Boolean(bool),
    Uuid(Uuid),
    /// A decimal number: a text in JSON, because a client in JavaScript would round a number.
    Decimal(&'r str),
    /// A document of Postgres, to the letter: its numbers may have any size.
    Json(&'r str),
    Texts(Vec<String>),
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
            ColumnType::Decimal { .. } => some(row.try_get(index)?, Cell::Decimal),
            ColumnType::Double => some(row.try_get(index)?, Cell::Double),
            ColumnType::Boolean => some(row.try_get(index)?, Cell::Boolean),
            ColumnType::Uuid => some(row.try_get(index)?, Cell::Uuid),
            ColumnType::Jsonb => some(row.try_get(index)?, Cell::Json),
            ColumnType::TextArray => some(row.try_get(index)?, Cell::Texts),
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
            // A column of the last three types orders no page.
            Self::Null | Self::Decimal(_) | Self::Json(_) | Self::Texts(_) => return None,
            Self::Double(number) => Value::Double(Finite::new(*number)?),
            Self::Boolean(truth) => Value::Boolean(*truth),
            Self::Uuid(id) => Value::Uuid(*id),
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
            Self::Text(text) | Self::Json(text) => Some(Cow::Borrowed(text)),
            Self::Texts(_) => Some(Cow::Owned(self.to_string())),
            Self::Null
            | Self::Bigint(_)
            | Self::Double(_)
            | Self::Boolean(_)
            | Self::Uuid(_)
            | Self::Decimal(_)
            | Self::Moment(_)
            | Self::Day(_)
            | Self::Bytes(_) => None,
        }
    }

    /// Adds the value to a JSON text.
    pub(super) fn write_json(&self, json: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        match self {
            Self::Null => json.extend_from_slice(b"null"),
            Self::Text(text) => serde_json::to_writer(json, text)?,
            Self::Bigint(number) => serde_json::to_writer(json, number)?,
            Self::Double(number) => serde_json::to_writer(json, number)?,
            Self::Boolean(truth) => serde_json::to_writer(json, truth)?,
            Self::Json(text) => json.extend_from_slice(text.as_bytes()),
            Self::Texts(texts) => serde_json::to_writer(json, texts)?,
            Self::Uuid(_) | Self::Decimal(_) | Self::Moment(_) | Self::Day(_) | Self::Bytes(_) => {
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
            Self::Text(text) | Self::Json(text) | Self::Decimal(text) => f.write_str(text),
            Self::Texts(texts) => f.write_str(&serde_json::to_string(texts).unwrap_or_default()),
            Self::Bigint(number) => number.fmt(f),
            Self::Double(number) => number.fmt(f),
            Self::Boolean(truth) => truth.fmt(f),
            Self::Uuid(id) => id.fmt(f),
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
        Value::Double(number) => number.get().to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Uuid(id) => id.to_string(),
        Value::Decimal(_) | Value::Jsonb(_) | Value::TextArray(_) => {
            unreachable!("values of this type are not asked for")
        }
        Value::Timestamptz(moment) => moment.to_string(),
        Value::Date(day) => day.to_string(),
        Value::Bytea(bytes) => hex::encode(bytes),
    }
}
