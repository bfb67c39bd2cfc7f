//! Compares the rows that one stream gives, folded in memory, with those that a table holds.
//!
//! A table whose rows belong to one stream each is compared whole, rows that should not be there
//! included. In any other table only the columns that one stream writes (`Merge::Set`) can be told
//! from one stream. Deliberately absent: which streams are compared, and how they are read
//! (`run::sample`).

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _, SqlSafeStr as _};

use crate::declare::table::{Merge, OWNER_COLUMN, RowsOf, Table};
use crate::error::RuntimeError;
use crate::fold::changes::TableFold;
use crate::fold::parked::StreamId;
use crate::store::compare::Difference;
use crate::store::sql::{identifier, key_columns, qualified_table, value_columns};
use crate::store::upsert::{bind_rows, given};

/// The most differences of a stream that are listed for a table.
const LISTED_MAX: usize = 20;

/// What one stream can tell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// All of its rows, whole.
    Rows,
    /// These columns of the rows that the stream contributes to.
    Columns(Vec<&'static str>),
    /// Nothing: other streams feed each column.
    Nothing,
}

impl Told {
    pub(crate) fn of(table: &Table) -> Self {
        if table.rows == RowsOf::OneStream {
            return Self::Rows;
        }
        let set = table.values.iter().filter(|v| v.merge == Merge::Set);
        let set: Vec<&'static str> = set.map(|value| value.name).collect();
        match set.is_empty() {
            true => Self::Nothing,
            false => Self::Columns(set),
        }
    }

    /// The columns that are not compared.
    pub(crate) fn not_compared(&self, table: &Table) -> Vec<String> {
        let compared = match self {
            Self::Rows => return Vec::new(),
            Self::Columns(columns) => &columns[..],
            Self::Nothing => &[],
        };
        let all = table.values.iter().map(|value| value.name);
        let others = all.filter(|name| !compared.contains(name));
        others.map(ToOwned::to_owned).collect()
    }
}

/// What the comparison of one stream's rows of one table found.
pub(crate) struct Found {
    /// How many rows differ.
    pub(crate) rows: u64,
    /// Some of the differences.
    pub(crate) differences: Vec<Difference>,
}

/// Compares the rows of one stream, in the connection's snapshot.
///
/// # Errors
/// `Postgres`.
pub(crate) async fn compare(
    connection: &mut PgConnection,
    fold: &TableFold,
    physical_name: &str,
    stream: &StreamId,
) -> Result<Found, RuntimeError> {
    let failed = || RuntimeError::postgres("compare the rows of a stream");
    let (table, told) = (fold.table, Told::of(fold.table));
    let (statement, columns) = match &told {
        Told::Rows => whole(table, physical_name),
        Told::Columns(columns) => columns_of(table, physical_name, columns),
        Told::Nothing => {
            return Ok(Found {
                rows: 0,
                differences: Vec::new(),
            });
        }
    };
    let rows = fold.remaining();
    let statement = AssertSqlSafe(statement).into_sql_str();
    let mut query = bind_rows(statement, table, &rows);
    if told == Told::Rows {
        query = query.bind(&stream.tenant).bind(&stream.stream);
    }
    let differing = query.fetch_all(connection).await.map_err(failed())?;
    let (mut count, mut differences) = (0, Vec::new());
    for row in &differing {
        let row = Differing::of(row).map_err(failed())?;
        count = row.count;
        let Differing {
            key,
            is_held,
            is_given,
            held,
            given,
            ..
        } = row;
        if !is_held || !is_given {
            let there = |is_there: bool| is_there.then(|| "a row".to_owned());
            differences.push(Difference {
                key,
                column: None,
                live: there(is_held),
                new: there(is_given),
            });
            continue;
        }
        for (index, column) in columns.iter().enumerate() {
            // A column that only this stream writes counts if the stream wrote it.
            let is_told = told == Told::Rows || given[index].is_some();
            if is_told && held[index] != given[index] {
                differences.push(Difference {
                    key: key.clone(),
                    column: Some(column.clone()),
                    live: held[index].clone(),
                    new: given[index].clone(),
                });
            }
        }
    }
    differences.truncate(LISTED_MAX);
    Ok(Found {
        rows: u64::try_from(count).unwrap_or_default(),
        differences,
    })
}

/// A row that differs.
struct Differing {
    key: String,
    /// Whether the table has it, and whether the log gives it.
    is_held: bool,
    is_given: bool,
    held: Vec<Option<String>>,
    given: Vec<Option<String>>,
    /// How many such rows there are.
    count: i64,
}

impl Differing {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            key: row.try_get(0)?,
            is_held: row.try_get(1)?,
            is_given: row.try_get(2)?,
            held: row.try_get(3)?,
            given: row.try_get(4)?,
            count: row.try_get(5)?,
        })
    }
}

/// The columns of `of` as a list of texts.
fn texts(of: &str, columns: &[String]) -> String {
    let text = |name: &String| format!("{of}.{}::text", identifier(name));
    let texts: Vec<String> = columns.iter().map(text).collect();
    format!("ARRAY[{}]::text[]", texts.join(", "))
}

fn same_key(table: &Table) -> String {
    let keys = key_columns(table);
    let keys = keys.iter().map(|key| identifier(&key.name));
    let same: Vec<String> = keys.map(|key| format!("e.{key} = h.{key}")).collect();
    same.join(" AND ")
}

/// The rows of a stream, and those that it should have.
fn whole(table: &Table, physical_name: &str) -> (String, Vec<String>) {
    let (given, names, count) = given(table);
    let columns = value_columns(table).into_iter().map(|column| column.name);
    let columns: Vec<String> = columns.collect();
    let keys = key_columns(table);
    let key = keys.iter().map(|key| {
        let name = identifier(&key.name);
        format!("coalesce(e.{name}, h.{name})")
    });
    let differs = columns.iter().map(|name| {
        let name = identifier(name);
        format!(" OR e.{name} IS DISTINCT FROM h.{name}")
    });
    let (tenant, owner) = (identifier("tenant"), identifier(OWNER_COLUMN));
    let statement = format!(
        "WITH e ({names}) AS ({given}), \
         h AS (SELECT * FROM {} AS t WHERE t.{tenant} = ${} AND t.{owner} = ${}) \
         SELECT ROW({})::text, h.{tenant} IS NOT NULL, e.{tenant} IS NOT NULL, {}, {}, \
             count(*) OVER () \
         FROM e FULL JOIN h ON {} \
         WHERE h.{tenant} IS NULL OR e.{tenant} IS NULL{} ORDER BY 1 LIMIT {LISTED_MAX}",
        qualified_table(physical_name),
        count + 1,
        count + 2,
        key.collect::<Vec<_>>().join(", "),
        texts("h", &columns),
        texts("e", &columns),
        same_key(table),
        differs.collect::<String>(),
    );
    (statement, columns)
}

/// The rows that a stream contributes to, and its columns in them.
fn columns_of(
    table: &Table,
    physical_name: &str,
    columns: &[&'static str],
) -> (String, Vec<String>) {
    let (given, names, _) = given(table);
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let keys = key_columns(table);
    let key = keys
        .iter()
        .map(|key| format!("e.{}", identifier(&key.name)));
    let differs = columns.iter().map(|name| {
        let name = identifier(name);
        format!(" OR (e.{name} IS NOT NULL AND e.{name} IS DISTINCT FROM h.{name})")
    });
    let tenant = identifier("tenant");
    let statement = format!(
        "WITH e ({names}) AS ({given}) \
         SELECT ROW({})::text, h.{tenant} IS NOT NULL, true, {}, {}, count(*) OVER () \
         FROM e LEFT JOIN {} AS h ON {} \
         WHERE h.{tenant} IS NULL{} ORDER BY 1 LIMIT {LISTED_MAX}",
        key.collect::<Vec<_>>().join(", "),
        texts("h", &columns),
        texts("e", &columns),
        qualified_table(physical_name),
        same_key(table),
        differs.collect::<String>(),
    );
    (statement, columns)
}
