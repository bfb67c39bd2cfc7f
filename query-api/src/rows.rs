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
use projector::{ColumnType, KeyColumn, Model, Projection, Shown, Value, models_of, quoted};
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
    pub(super) fn key_of_path(&self, text: &str) -> Option<Vec<Value>> {
        let parts: Vec<&str> = text.splitn(self.model.key.len(), ',').collect();
        self.key_of(&parts)
    }

    /// The key that a cursor names; absent if it is not a cursor of this model.
    pub(super) fn key_of_cursor(&self, cursor: &str) -> Option<Vec<Value>> {
        let json = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let parts: Vec<String> = serde_json::from_slice(&json).ok()?;
        self.key_of(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn key_of(&self, parts: &[&str]) -> Option<Vec<Value>> {
        if parts.len() != self.model.key.len() {
            return None;
        }
        let values = self.model.key.iter().zip(parts);
        values
            .map(|(key, text)| value_of(key.column_type, text).map(Value::into_key))
            .collect()
    }

    /// The cursor that names a row.
    pub(super) fn cursor_of(&self, row: &ShownRow) -> String {
        let text = |key: &KeyColumn| match row.column(key.name) {
            Some(Json::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let parts: Vec<String> = self.model.key.iter().map(text).collect();
        URL_SAFE_NO_PAD.encode(Json::from(parts).to_string())
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

/// A key's value from its text; absent if the text is not a value of this type.
fn value_of(column_type: ColumnType, text: &str) -> Option<Value> {
    match column_type {
        ColumnType::Text => (!text.contains('\0')).then(|| Value::from(text)),
        ColumnType::Bigint => text.parse().ok().map(Value::Bigint),
        // A sum cannot be in a key, and views show it as bigint.
        ColumnType::Numeric => None,
        ColumnType::Timestamptz => text.parse().ok().map(Value::Timestamptz),
        ColumnType::Date => {
            let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            let is_plain = day.to_string() == text;
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
mod tests {
    use projector::{Rejections, Rules, StreamIndex, Table, View, key, tally};

    use super::*;

    const DAYS: Table = Table {
        name: "days",
        about: "Days.",
        key: &[
            key("day", ColumnType::Date, "The day."),
            key("currency", ColumnType::Text, "The currency."),
        ],
        values: &[tally("orders", "How many orders.")],
        view: View::WHOLE,
    };

    fn all() -> Vec<ShownModel> {
        shown_models(&[
            Arc::new(StreamIndex),
            Arc::new(Rejections),
            Arc::new(Rules::new("days", 1, &[DAYS])),
        ])
    }

    fn model(name: &str) -> ShownModel {
        all()
            .into_iter()
            .find(|shown| shown.model.name == name)
            .unwrap()
    }

    #[test]
    fn a_key_is_read_by_its_columns_types() {
        let sales = model("days");
        let key = sales.key_of_path("2018-01-31,BRL").unwrap();
        let day = NaiveDate::from_ymd_opt(2018, 1, 31).unwrap();
        assert_eq!(key, vec![Value::Date(day), Value::from("BRL")]);
        for text in [
            "",
            "2018-01-31",
            "2018-02-30,BRL",
            "+2018-01-31,BRL",
            "x,BRL",
            "2018-01-31,\0",
        ] {
            assert_eq!(sales.key_of_path(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_cursor_names_the_row_it_was_made_of() {
        let refusals = model("rejections");
        let row = ShownRow {
            model: Arc::clone(&refusals.model),
            values: [Json::from("order-1"), Json::from(17)]
                .into_iter()
                .chain(["i", "c", "c", "d", "o", "r"].map(Json::from))
                .chain([Json::from(3)])
                .collect(),
        };
        let key = refusals.key_of_cursor(&refusals.cursor_of(&row)).unwrap();
        assert_eq!(key, vec![Value::from("order-1"), Value::from(17_i64)]);
        for cursor in ["", "x", "W10", "WyJhIl0", "bnVsbA", "!"] {
            assert_eq!(refusals.key_of_cursor(cursor), None, "{cursor}");
        }
    }

    #[test]
    fn only_read_models_for_people_are_shown() {
        let shown = all();
        let names: Vec<&str> = shown.iter().map(|shown| shown.model.name).collect();
        // `stream_commits` is for SQL only.
        assert_eq!(names, ["days", "rejections", "stream_index"]);
    }
}
