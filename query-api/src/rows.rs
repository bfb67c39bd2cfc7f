//! Rows of views: their SQL, keys, cursors, and their form in JSON.
//!
//! Invariant: a page is a range of the key, so that a late page costs no more than the first, and
//! rows that are added or removed meanwhile do not move other rows across pages. Amounts are
//! numbers, times RFC 3339 with `Z`, days `YYYY-MM-DD`, bytes hexadecimal; JSON members are in the
//! order of the columns.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, NaiveDate, Utc};
use kernel::Timestamp;
use projector::{
    ColumnType, KEY_TEXT_BYTES_MAX, KeyColumn, Model, Projection, Shown, Value, models_of, quoted,
};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::Value as Json;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr as _, SqlStr};

/// A read model that the door shows.
pub(super) struct ShownModel {
    pub(super) model: Arc<Model>,
    pub(super) projection: &'static str,
    /// The most characters that a cursor of it can have.
    pub(super) cursor_length_max: usize,
    first_page: SqlStr,
    next_page: SqlStr,
    one: SqlStr,
}

/// The read models of `projections` that the door shows, in order of name.
pub(super) fn shown_models(projections: &[Arc<dyn Projection>]) -> Vec<ShownModel> {
    let mut shown = Vec::new();
    for projection in projections {
        let models = models_of(&**projection).into_iter();
        let models = models.filter(|model| model.shown == Shown::Everywhere);
        shown.extend(models.map(|model| ShownModel::new(model, projection.name())));
    }
    shown.sort_by_key(|shown| shown.model.name);
    shown
}

impl ShownModel {
    fn new(model: Model, projection: &'static str) -> Self {
        let key = model.key;
        let names = |names: Vec<&str>| {
            let quoted: Vec<String> = names.into_iter().map(quoted).collect();
            quoted.join(", ")
        };
        let columns = names(model.columns.iter().map(|column| column.name).collect());
        let keys = names(key.iter().map(|key| key.name).collect());
        let places: Vec<String> = (0..key.len()).map(|i| format!("${}", i + 2)).collect();
        let places = places.join(", ");
        let limit = key.len() + 2;
        let view = quoted(model.name);
        // Names come from declarations and are checked; values are bound.
        let sql = |rest: String| {
            let sql = format!("SELECT {columns} FROM read.{view} WHERE tenant = $1 {rest}");
            AssertSqlSafe(sql).into_sql_str()
        };
        Self {
            cursor_length_max: cursor_length_max(key),
            model: Arc::new(model),
            projection,
            first_page: sql(format!("ORDER BY {keys} LIMIT $2")),
            next_page: sql(format!(
                "AND ({keys}) > ({places}) ORDER BY {keys} LIMIT ${limit}"
            )),
            one: sql(format!("AND ({keys}) = ({places})")),
        }
    }

    /// The query of the page after `after`, or of the first page.
    pub(super) fn page<'q>(
        &self,
        tenant: &'q str,
        after: Option<&'q [Value]>,
        limit: i64,
    ) -> Query<'q, Postgres, PgArguments> {
        match after {
            None => sqlx::query(self.first_page.clone())
                .bind(tenant)
                .bind(limit),
            Some(key) => {
                let query = sqlx::query(self.next_page.clone()).bind(tenant);
                key.iter().fold(query, bind).bind(limit)
            }
        }
    }

    /// The query of one row.
    pub(super) fn one<'q>(
        &self,
        tenant: &'q str,
        key: &'q [Value],
    ) -> Query<'q, Postgres, PgArguments> {
        let query = sqlx::query(self.one.clone()).bind(tenant);
        key.iter().fold(query, bind)
    }

    /// The key that a path names, its columns joined by commas; absent if no row can have that key.
    /// A long text may be given as it is, or shortened as the row shows it.
    pub(super) fn key_of_path(&self, text: &str) -> Option<Vec<Value>> {
        let key = self.key_of(text.splitn(self.model.key.len(), ','))?;
        let stored = key.into_iter().map(|value| match value.is_shortened() {
            true => value,
            false => value.into_key(),
        });
        Some(stored.collect())
    }

    /// The key that a cursor names; absent if it is not a cursor of this model.
    pub(super) fn key_of_cursor(&self, cursor: &str) -> Option<Vec<Value>> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        self.key_of(text.split(BETWEEN_COLUMNS))
    }

    fn key_of<'t>(&self, parts: impl Iterator<Item = &'t str>) -> Option<Vec<Value>> {
        let mut columns = self.model.key.iter();
        let mut key = Vec::with_capacity(columns.len());
        for text in parts {
            key.push(value_of(columns.next()?.column_type, text)?);
        }
        columns.next().is_none().then_some(key)
    }

    /// The cursor that names a row: its key, as it is shown.
    pub(super) fn cursor_of(&self, row: &ShownRow) -> String {
        let text = |key: &KeyColumn| match row.column(key.name) {
            Some(Json::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let parts: Vec<String> = self.model.key.iter().map(text).collect();
        URL_SAFE_NO_PAD.encode(parts.join(BETWEEN_COLUMNS))
    }

    /// The row in its form for JSON.
    pub(super) fn show(&self, row: &PgRow) -> Result<ShownRow, sqlx::Error> {
        let mut values = Vec::with_capacity(self.model.columns.len());
        for (index, column) in self.model.columns.iter().enumerate() {
            values.push(json_of(row, index, column.column_type)?);
        }
        Ok(ShownRow {
            model: Arc::clone(&self.model),
            values,
        })
    }
}

/// What stands between the columns of a cursor: no text in Postgres holds it.
const BETWEEN_COLUMNS: &str = "\0";
/// The most bytes of an index entry of Postgres, and so of bytes in a key.
const INDEX_ENTRY_BYTES_MAX: usize = 2_704;

fn cursor_length_max(key: &[KeyColumn]) -> usize {
    let columns = key.iter().map(|key| match key.column_type {
        ColumnType::Text => KEY_TEXT_BYTES_MAX,
        ColumnType::Bigint => "-9223372036854775808".len(),
        ColumnType::Timestamptz => "9999-12-31T23:59:59.999999Z".len(),
        ColumnType::Date => "+262142-12-31".len(),
        // The first cannot be in a key; the second is counted below.
        ColumnType::Numeric | ColumnType::Bytea => 0,
    });
    let mut bytes = columns.sum::<usize>() + key.len().saturating_sub(1);
    // All bytes of a key together fit into an index entry; they are shown as hexadecimal digits.
    if key.iter().any(|key| key.column_type == ColumnType::Bytea) {
        bytes += 2 * INDEX_ENTRY_BYTES_MAX;
    }
    (bytes * 4).div_ceil(3)
}

/// The first day that Postgres knows, in November 4714 BC.
fn is_day_of_postgres(day: NaiveDate) -> bool {
    NaiveDate::from_ymd_opt(-4713, 11, 24).is_some_and(|first| day >= first)
}

/// A key's value from its text; absent if the text is not a value of this type.
fn value_of(column_type: ColumnType, text: &str) -> Option<Value> {
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

fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    value: &'q Value,
) -> Query<'q, Postgres, PgArguments> {
    match value {
        Value::Text(text) => query.bind(&**text),
        Value::Bigint(number) => query.bind(*number),
        Value::Numeric(_) => unreachable!("a sum is no part of a key"),
        Value::Timestamptz(moment) => query.bind(moment.to_utc()),
        Value::Date(day) => query.bind(*day),
        Value::Bytea(bytes) => query.bind(&**bytes),
    }
}

fn json_of(row: &PgRow, index: usize, column_type: ColumnType) -> Result<Json, sqlx::Error> {
    fn shown<T>(value: Option<T>, show: impl FnOnce(T) -> Json) -> Json {
        value.map_or(Json::Null, show)
    }
    Ok(match column_type {
        ColumnType::Text => shown(row.try_get::<Option<String>, _>(index)?, Json::from),
        ColumnType::Bigint | ColumnType::Numeric => {
            shown(row.try_get::<Option<i64>, _>(index)?, Json::from)
        }
        ColumnType::Timestamptz => shown(row.try_get::<Option<DateTime<Utc>>, _>(index)?, |at| {
            Timestamp::from_utc(at).map_or(Json::Null, |at| Json::from(at.to_string()))
        }),
        ColumnType::Date => shown(row.try_get::<Option<NaiveDate>, _>(index)?, |day| {
            Json::from(day.to_string())
        }),
        ColumnType::Bytea => shown(row.try_get::<Option<Vec<u8>>, _>(index)?, |bytes| {
            Json::from(hex::encode(bytes))
        }),
    })
}

/// A row in its form for JSON.
#[derive(Clone, Debug)]
pub(super) struct ShownRow {
    model: Arc<Model>,
    values: Vec<Json>,
}

impl ShownRow {
    fn column(&self, name: &str) -> Option<&Json> {
        let index = self
            .model
            .columns
            .iter()
            .position(|column| column.name == name)?;
        self.values.get(index)
    }
}

impl Serialize for ShownRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len()))?;
        for (column, value) in self.model.columns.iter().zip(&self.values) {
            map.serialize_entry(column.name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
