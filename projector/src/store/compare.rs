//! Compares the tables of two generations that stand at the same places.
//!
//! Each table is first compared by its number of rows and a digest that does not depend on their
//! order. Only where these differ are rows compared, bucket by bucket, so that memory stays
//! bounded. Deliberately absent: how the two generations come to the same places (`run::conduct`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::declare::table::Table;
use crate::error::RuntimeError;
use crate::store::apart::Apart;
use crate::store::generation::{Generation, Live};
use crate::store::sql::{identifier, qualified_table};

/// Into how many parts the rows of a table are divided to find those that differ.
const BUCKETS: i64 = 4_096;
/// The most buckets whose rows are read.
const BUCKETS_READ_MAX: usize = 16;
/// The most rows of one side that are read.
const ROWS_READ_MAX: i64 = 20_000;
/// The most differences that are listed for a table.
const LISTED_MAX: usize = 20;

/// How a new generation compares with the live one, at the same places of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Whether all tables are equal in the columns that both have.
    pub equal: bool,
    /// The tables.
    pub tables: Vec<TableComparison>,
}

/// How one table compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableComparison {
    /// Its name.
    pub table: String,
    /// The number of rows of the new table.
    pub rows: i64,
    /// The number of rows of the live table.
    pub rows_live: i64,
    /// Whether both have the same rows.
    pub equal: bool,
    /// The columns that were not compared, because only one of the tables has them or their types
    /// differ.
    pub not_compared: Vec<String>,
    /// Some of the differences.
    pub differences: Vec<Difference>,
}

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The key of the row: its columns, the tenant first.
    pub key: String,
    /// The column; absent if one of the tables does not have the row.
    pub column: Option<String>,
    /// The value of the live table; absent if it has no such row.
    pub live: Option<String>,
    /// The value of the new table; absent if it has no such row.
    pub new: Option<String>,
}

/// One side of a comparison.
struct Side<'a> {
    connection: &'a mut PgConnection,
    table: String,
}

/// Compares all tables. `snapshot` sees the live rows, `connection` the new ones; both stand at the
/// same places.
///
/// # Errors
/// `Postgres`.
pub(crate) async fn compare(
    snapshot: &mut PgConnection,
    live: &Live,
    connection: &mut PgConnection,
    building: &Generation,
) -> Result<Comparison, RuntimeError> {
    let mut tables = Vec::new();
    for table in building.projection.tables() {
        let old = live.table_name(table.name);
        if !live.tables.contains(&old) {
            continue;
        }
        let mut live = Side {
            connection: &mut *snapshot,
            table: old,
        };
        let mut new = Side {
            connection: &mut *connection,
            table: building.table_name(table.name),
        };
        tables.push(compare_table(table, &mut live, &mut new).await?);
    }
    Ok(Comparison {
        equal: tables.iter().all(|table| table.equal),
        tables,
    })
}

/// Compares all tables of two schemas that were filled from the same commits.
///
/// # Errors
/// `Postgres`.
pub(crate) async fn compare_apart(
    old: &mut Apart,
    new: &mut Apart,
) -> Result<Comparison, RuntimeError> {
    let mut tables = Vec::new();
    for table in new.generation().projection.tables() {
        let (old_name, new_name) = (
            old.generation().table_name(table.name),
            new.generation().table_name(table.name),
        );
        let mut old = Side {
            connection: old.connection(),
            table: old_name,
        };
        let mut new = Side {
            connection: new.connection(),
            table: new_name,
        };
        tables.push(compare_table(table, &mut old, &mut new).await?);
    }
    Ok(Comparison {
        equal: tables.iter().all(|table| table.equal),
        tables,
    })
}

fn failed() -> impl FnOnce(sqlx::Error) -> RuntimeError {
    RuntimeError::postgres("compare two generations")
}

async fn compare_table(
    table: &Table,
    live: &mut Side<'_>,
    new: &mut Side<'_>,
) -> Result<TableComparison, RuntimeError> {
    let (old_columns, new_columns) = (columns(live).await?, columns(new).await?);
    let same: Vec<&str> = new_columns
        .iter()
        .filter(|(name, kind)| old_columns.get(*name) == Some(kind))
        .map(|(name, _)| name.as_str())
        .collect();
    let all: BTreeSet<&String> = old_columns.keys().chain(new_columns.keys()).collect();
    let not_compared = all.iter().filter(|name| !same.contains(&name.as_str()));
    let not_compared: Vec<String> = not_compared.map(|name| (*name).clone()).collect();
    let mut key = vec!["tenant"];
    key.extend(table.key.iter().map(|key| key.name));
    let is_same_key = key.iter().all(|name| same.contains(name));
    let compared = if is_same_key { &same[..] } else { &[] };
    let (rows_live, old_digest) = digest(live, compared).await?;
    let (rows, new_digest) = digest(new, compared).await?;
    let equal = rows == rows_live && old_digest == new_digest;
    let differences = match equal || !is_same_key {
        true => Vec::new(),
        false => differences(&key, compared, live, new).await?,
    };
    Ok(TableComparison {
        table: table.name.to_owned(),
        rows,
        rows_live,
        equal,
        not_compared,
        differences,
    })
}

/// The columns of a table with their types.
async fn columns(side: &mut Side<'_>) -> Result<BTreeMap<String, String>, RuntimeError> {
    let select = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
                  WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
    let columns: Vec<(String, String)> = sqlx::query_as(select)
        .bind(qualified_table(&side.table))
        .fetch_all(&mut *side.connection)
        .await
        .map_err(failed())?;
    Ok(columns.into_iter().collect())
}

/// A row as text.
fn row_of(columns: &[&str]) -> String {
    let columns: Vec<String> = columns.iter().map(|name| identifier(name)).collect();
    format!("ROW({})::text", columns.join(", "))
}

/// The number of rows, and the sum of their hashes.
async fn digest(side: &mut Side<'_>, columns: &[&str]) -> Result<(i64, String), RuntimeError> {
    let (table, row) = (qualified_table(&side.table), row_of(columns));
    let select = format!(
        "SELECT count(*), coalesce(sum(hashtextextended({row}, 1)::numeric), 0)::text FROM {table}"
    );
    sqlx::query_as(AssertSqlSafe(select))
        .fetch_one(&mut *side.connection)
        .await
        .map_err(failed())
}

async fn differences(
    key: &[&str],
    columns: &[&str],
    live: &mut Side<'_>,
    new: &mut Side<'_>,
) -> Result<Vec<Difference>, RuntimeError> {
    let (old, own) = (
        buckets(live, key, columns).await?,
        buckets(new, key, columns).await?,
    );
    let all: BTreeSet<&i64> = old.keys().chain(own.keys()).collect();
    let differing = all.into_iter().filter(|b| old.get(b) != own.get(b));
    let differing: Vec<i64> = differing.copied().take(BUCKETS_READ_MAX).collect();
    let old = rows(live, key, columns, &differing).await?;
    let own = rows(new, key, columns, &differing).await?;
    let mut found = Vec::new();
    let keys: BTreeSet<&String> = old.keys().chain(own.keys()).collect();
    // Where one side was cut, the other one's further rows are not missing.
    let last_read = [&old, &own].into_iter().filter_map(|side| {
        let is_cut = i64::try_from(side.len()).is_ok_and(|count| count >= ROWS_READ_MAX);
        side.keys().next_back().filter(|_| is_cut)
    });
    let last_read = last_read.min();
    for key in keys {
        if last_read.is_some_and(|last| key > last) {
            break;
        }
        match (old.get(key), own.get(key)) {
            (Some(live), Some(new)) => {
                for (index, column) in columns.iter().enumerate() {
                    if live[index] != new[index] {
                        found.push(Difference {
                            key: key.clone(),
                            column: Some((*column).to_owned()),
                            live: live[index].clone(),
                            new: new[index].clone(),
                        });
                    }
                }
            }
            (live, new) => {
                let there = |side: Option<&Vec<_>>| side.map(|_| "a row".to_owned());
                found.push(Difference {
                    key: key.clone(),
                    column: None,
                    live: there(live),
                    new: there(new),
                });
            }
        }
        if found.len() >= LISTED_MAX {
            break;
        }
    }
    found.truncate(LISTED_MAX);
    Ok(found)
}

fn bucket_of(key: &[&str]) -> String {
    format!(
        "mod(hashtextextended({}, 0) & 9223372036854775807, {BUCKETS})",
        row_of(key)
    )
}

/// The digest of each bucket.
async fn buckets(
    side: &mut Side<'_>,
    key: &[&str],
    columns: &[&str],
) -> Result<BTreeMap<i64, String>, RuntimeError> {
    let (table, row, bucket) = (
        qualified_table(&side.table),
        row_of(columns),
        bucket_of(key),
    );
    let select = format!(
        "SELECT {bucket} AS bucket, count(*) || ' ' || sum(hashtextextended({row}, 1)::numeric) \
         FROM {table} GROUP BY 1"
    );
    let buckets: Vec<(i64, String)> = sqlx::query_as(AssertSqlSafe(select))
        .fetch_all(&mut *side.connection)
        .await
        .map_err(failed())?;
    Ok(buckets.into_iter().collect())
}

/// The rows of some buckets, by their keys.
async fn rows(
    side: &mut Side<'_>,
    key: &[&str],
    columns: &[&str],
    buckets: &[i64],
) -> Result<BTreeMap<String, Vec<Option<String>>>, RuntimeError> {
    let (table, bucket, key) = (qualified_table(&side.table), bucket_of(key), row_of(key));
    let values: Vec<String> = columns
        .iter()
        .map(|name| format!("{}::text", identifier(name)))
        .collect();
    let select = format!(
        "SELECT {key}, ARRAY[{}] FROM {table} WHERE {bucket} = ANY($1) ORDER BY {key} COLLATE \"C\" LIMIT {ROWS_READ_MAX}",
        values.join(", ")
    );
    let rows: Vec<(String, Vec<Option<String>>)> = sqlx::query_as(AssertSqlSafe(select))
        .bind(buckets)
        .fetch_all(&mut *side.connection)
        .await
        .map_err(failed())?;
    Ok(rows.into_iter().collect())
}
