//! The rows of read models apart from the live ones that a commit changes, and whether a condition
//! holds for one of them.
//!
//! A commit changes the rows of a view whose own row it changes, and those that join one that it changes.
//! Invariant: what a look costs depends on the rows that changed, and not on the size of the tables.
//! Deliberately absent: when one looks (`run::replay`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr as _, SqlStr};

use crate::declare::model::{Model, models_of};
use crate::declare::projection::Projection;
use crate::declare::table::{OWNER_COLUMN, Table};
use crate::declare::value::Value;
use crate::error::RuntimeError;
use crate::fold::changes::{Changes, TableFold};
use crate::run::replay::condition::Watched;
use crate::store::as_of::joined_tables;
use crate::store::generation::Generation;
use crate::store::sql::{identifier, joined, key_columns, qualified_table, view_in};

/// A row of a read model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowName {
    pub(crate) model: &'static str,
    /// Its key, as JSON.
    pub(crate) key: String,
}

/// Rows as JSON.
pub(crate) type Rows = BTreeMap<RowName, Json>;

/// The statements that look at the rows of a projection.
pub(crate) struct Looks {
    models: Vec<LookAt>,
}

/// The statements for one read model. Each takes keys as a JSON list of objects.
struct LookAt {
    model: Model,
    table: &'static Table,
    /// The rows of the view.
    rows: SqlStr,
    /// The tables that the view joins; one that it joins twice stands twice.
    joined: Vec<Joined>,
    /// The keys of the rows of some streams.
    of_streams: SqlStr,
    /// The rows for which a condition holds; its values are bound behind the keys.
    hits: Option<SqlStr>,
}

/// A table that a view joins.
struct Joined {
    table: &'static Table,
    /// The keys of the view's rows that join one of its rows.
    joining: SqlStr,
    /// The keys of its own rows of some streams.
    of_streams: SqlStr,
}

/// The keys of the rows of a read model, each as JSON.
type Keys = BTreeSet<String>;

impl Looks {
    pub(crate) fn new(generation: &Generation, schema: &str, watched: Option<&Watched>) -> Self {
        let projection: &dyn Projection = &*generation.projection;
        let table_of = |name: &str| {
            let mut tables = projection.tables().iter();
            tables.find(|table| table.name == name)
        };
        let physical = |table: &str| qualified_table(&generation.table_name(table));
        let models = models_of(projection).into_iter().filter_map(|model| {
            let table = table_of(model.name)?;
            let joined = joined_tables(model.joins).into_iter();
            let joined = joined.filter_map(|(name, alias)| {
                let other = table_of(name)?;
                Some(Joined {
                    table: other,
                    joining: safe(joining(&model, table, other, alias, &physical)),
                    of_streams: safe(of_streams(other, &physical(other.name))),
                })
            });
            let hits = watched.filter(|watched| watched.model.name == model.name);
            let view = view_in(&identifier(schema), model.name);
            let rows = rows_of(&view, table, &physical(table.name));
            Some(LookAt {
                table,
                joined: joined.collect(),
                of_streams: safe(of_streams(table, &physical(table.name))),
                hits: hits.map(|watched| safe(format!("{rows} WHERE {}", holds(watched)))),
                rows: safe(rows),
                model,
            })
        });
        Self {
            models: models.collect(),
        }
    }

    /// The keys of the rows that contributions change, as far as the present rows tell.
    pub(crate) async fn touched(
        &self,
        connection: &mut PgConnection,
        changes: &Changes,
        only: Option<&Watched>,
    ) -> Result<BTreeMap<&'static str, Keys>, RuntimeError> {
        let failed = || RuntimeError::postgres("find the rows that a commit changes");
        let mut touched = BTreeMap::new();
        for one in &self.models {
            if only.is_some_and(|watched| watched.model.name != one.model.name) {
                continue;
            }
            let mut keys = Keys::new();
            for fold in changes.tables() {
                if fold.table.name == one.table.name {
                    keys.extend(own_keys(fold));
                    if !fold.clears.0.is_empty() {
                        let cleared = cleared(connection, &one.of_streams, fold).await;
                        keys.extend(cleared.map_err(failed())?);
                    }
                }
                for joined in &one.joined {
                    if joined.table.name != fold.table.name || fold.is_empty() {
                        continue;
                    }
                    let mut others: Keys = own_keys(fold).collect();
                    if !fold.clears.0.is_empty() {
                        let cleared = cleared(connection, &joined.of_streams, fold).await;
                        others.extend(cleared.map_err(failed())?);
                    }
                    let found: Vec<String> = sqlx::query_scalar(joined.joining.clone())
                        .bind(list(others.into_iter()))
                        .fetch_all(&mut *connection)
                        .await
                        .map_err(failed())?;
                    keys.extend(found);
                }
            }
            if !keys.is_empty() {
                touched.insert(one.model.name, keys);
            }
        }
        Ok(touched)
    }

    /// The rows with these keys.
    pub(crate) async fn rows(
        &self,
        connection: &mut PgConnection,
        keys: &BTreeMap<&'static str, Keys>,
    ) -> Result<Rows, RuntimeError> {
        let mut all = Rows::new();
        for one in &self.models {
            let Some(keys) = keys.get(one.model.name) else {
                continue;
            };
            let query = sqlx::query_as(one.rows.clone()).bind(list(keys.iter().cloned()));
            let found = query.fetch_all(&mut *connection).await;
            let found = found.map_err(RuntimeError::postgres("read rows"))?;
            all.extend(named(one.model.name, found));
        }
        Ok(all)
    }

    /// Those of the rows with these keys for which a condition holds.
    pub(crate) async fn hits(
        &self,
        connection: &mut PgConnection,
        watched: &Watched,
        keys: &BTreeMap<&'static str, Keys>,
    ) -> Result<Rows, RuntimeError> {
        let model = self.models.iter().find(|one| one.hits.is_some());
        let Some((one, sql)) = model.and_then(|one| Some((one, one.hits.as_ref()?))) else {
            return Ok(Rows::new());
        };
        let Some(keys) = keys.get(one.model.name) else {
            return Ok(Rows::new());
        };
        let mut query = sqlx::query_as(sql.clone()).bind(list(keys.iter().cloned()));
        query = query.bind(watched.value.clone());
        for key in &watched.keys {
            query = query.bind(key.text.clone());
        }
        let found = query.fetch_all(connection).await;
        let found = found.map_err(RuntimeError::postgres("ask whether a condition holds"))?;
        Ok(named(one.model.name, found).collect())
    }

    /// The rows whose key begins with these values after the tenant, as texts; a few of them.
    pub(crate) async fn with_key(
        &self,
        connection: &mut PgConnection,
        schema: &str,
        parts: &[&str],
    ) -> Result<Rows, RuntimeError> {
        let mut all = Rows::new();
        for one in &self.models {
            let key = one.table.key;
            if parts.is_empty() || parts.len() > key.len() {
                continue;
            }
            let view = view_in(&identifier(schema), one.model.name);
            let select = rows_from(&view, one.table, "");
            let same = key.iter().take(parts.len()).enumerate();
            let same =
                same.map(|(at, key)| format!("v.{}::text = ${}", identifier(key.name), at + 1));
            let same = same.collect::<Vec<_>>().join(" AND ");
            let sql = format!("{select} WHERE {same} LIMIT {WITH_KEY_MAX}");
            let mut query = sqlx::query_as(AssertSqlSafe(sql));
            for part in parts {
                query = query.bind((*part).to_owned());
            }
            let found = query.fetch_all(&mut *connection).await;
            let found = found.map_err(RuntimeError::postgres("read rows"))?;
            all.extend(named(one.model.name, found));
        }
        Ok(all)
    }
}

/// The most rows of a read model that are shown for a part of a key.
const WITH_KEY_MAX: u32 = 20;

/// The keys of the rows that go away because their streams remove all of theirs.
async fn cleared(
    connection: &mut PgConnection,
    of_streams: &SqlStr,
    fold: &TableFold,
) -> Result<Vec<String>, sqlx::Error> {
    let (mut tenants, mut owners) = (Vec::new(), Vec::new());
    for (tenant, owner) in fold.clears.0.keys() {
        if let Value::Text(tenant) = tenant {
            tenants.push(tenant.to_string());
            owners.push(owner.as_str().to_owned());
        }
    }
    sqlx::query_scalar(of_streams.clone())
        .bind(tenants)
        .bind(owners)
        .fetch_all(connection)
        .await
}

/// Makes Postgres go from the keys to the rows, whatever it believes of tables that were empty when a
/// statement was planned.
pub(crate) async fn prepare(connection: &mut PgConnection) -> Result<(), RuntimeError> {
    let settings =
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";
    sqlx::raw_sql(settings)
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("prepare to look at rows"))?;
    Ok(())
}

fn safe(sql: String) -> SqlStr {
    // Names are checked by `identifier`; values are bound.
    AssertSqlSafe(sql).into_sql_str()
}

fn named(
    model: &'static str,
    found: Vec<(String, String)>,
) -> impl Iterator<Item = (RowName, Json)> {
    found.into_iter().map(move |(key, row)| {
        let row = serde_json::from_str(&row).unwrap_or(Json::Null);
        (RowName { model, key }, row)
    })
}

/// The condition that a row of the view `v` fulfils.
fn holds(watched: &Watched) -> String {
    let compared = |name: &str, sign: &str, column_type: &str, parameter: usize| {
        let collation = match column_type {
            "text" => " COLLATE \"C\"",
            _ => "",
        };
        let name = identifier(name);
        format!("v.{name}{collation} {sign} (${parameter}::text)::{column_type}")
    };
    let (sign, of) = (watched.comparison.sql(), watched.column_type.sql());
    let mut all = vec![compared(watched.column, sign, of, 2)];
    for (number, key) in watched.keys.iter().enumerate() {
        all.push(compared(key.name, "=", key.column_type.sql(), number + 3));
    }
    all.join(" AND ")
}

/// The keys of the rows that a fold writes or removes.
fn own_keys(fold: &TableFold) -> impl Iterator<Item = String> {
    fold.rows.keys().map(|key| key_json(fold.table, key))
}

fn list(keys: impl Iterator<Item = String>) -> String {
    format!("[{}]", keys.collect::<Vec<_>>().join(","))
}

fn key_json(table: &Table, key: &Arc<[Value]>) -> String {
    let names = key_columns(table).into_iter().map(|column| column.name);
    let values = key.iter().map(|value| match value {
        Value::Text(text) => Json::from(&**text),
        Value::Bigint(number) => Json::from(*number),
        Value::Boolean(truth) => Json::from(*truth),
        Value::Uuid(id) => Json::from(id.to_string()),
        Value::Timestamptz(at) => Json::from(at.to_string()),
        Value::Date(day) => Json::from(day.to_string()),
        Value::Bytea(bytes) => Json::from(format!("\\x{}", hex::encode(bytes))),
        Value::Numeric(_)
        | Value::Decimal(_)
        | Value::Double(_)
        | Value::Jsonb(_)
        | Value::TextArray(_) => unreachable!("these are in no key"),
    });
    let object: serde_json::Map<String, Json> = names.zip(values).collect();
    Json::Object(object).to_string()
}

/// The columns of a key under the name of a row, as JSON.
fn key_of(row: &str, table: &Table) -> String {
    let columns = key_columns(table);
    let columns = columns
        .iter()
        .map(|key| format!("{row}.{}", identifier(&key.name)));
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!("row_to_json((SELECT k FROM (SELECT {columns}) AS k))::text")
}

/// That two rows have the same key.
fn same(one: &str, other: &str, table: &Table) -> String {
    let columns = key_columns(table);
    let names = columns.iter().map(|key| identifier(&key.name));
    let same = names.map(|name| format!("{one}.{name} = {other}.{name}"));
    same.collect::<Vec<_>>().join(" AND ")
}

/// The keys that are bound as JSON, as rows `n` of a table.
fn given(physical_table: &str) -> String {
    format!("jsonb_populate_recordset(NULL::{physical_table}, $1::jsonb) AS n")
}

fn rows_from(view: &str, table: &Table, rest: &str) -> String {
    format!(
        "SELECT {}, row_to_json(v)::text FROM {view} AS v{rest}",
        key_of("v", table)
    )
}

fn rows_of(view: &str, table: &Table, physical_table: &str) -> String {
    let rest = format!(
        " JOIN {} ON {}",
        given(physical_table),
        same("v", "n", table)
    );
    rows_from(view, table, &rest)
}

fn joining(
    model: &Model,
    table: &Table,
    other: &Table,
    alias: &str,
    physical: &dyn Fn(&str) -> String,
) -> String {
    format!(
        "SELECT {} FROM {} AS r {} JOIN {} ON {}",
        key_of("r", table),
        physical(table.name),
        joined(model.joins, physical),
        given(&physical(other.name)),
        same(alias, "n", other),
    )
}

fn of_streams(table: &Table, physical_table: &str) -> String {
    format!(
        "SELECT {} FROM {physical_table} AS r \
         JOIN UNNEST($1::text[], $2::text[]) AS n(tenant, owner) \
         ON r.tenant = n.tenant AND r.{} = n.owner",
        key_of("r", table),
        identifier(OWNER_COLUMN),
    )
}
