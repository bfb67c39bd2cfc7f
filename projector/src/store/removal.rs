//! Statements for tables whose rows belong to one stream each: rows that go away, and rows that belong
//! to another stream than the one that changes them.
//!
//! Invariant: rows go away before those of the batch are written, and no stream changes a row of
//! another stream, not even for the length of a batch. Deliberately absent: which rows go away
//! (`fold::ownership`).

use kernel::StreamName;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Row as _, SqlSafeStr as _, SqlStr};

use crate::declare::column_type::ColumnType;
use crate::declare::table::{OWNER_COLUMN, Table};
use crate::declare::value::Value;
use crate::fold::changes::{Remaining, TableFold, shown};
use crate::fold::ownership::Step;
use crate::store::sql::{identifier, qualified_table};
use crate::store::upsert::bind;

/// A row that a stream changes although it belongs to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    key: String,
    owner: String,
    stream: String,
}

impl Foreign {
    /// What is wrong, in a sentence.
    pub(crate) fn explained(&self, table: &str) -> String {
        let Self { key, owner, stream } = self;
        format!(
            "the row {key:?} of {table} belongs to the stream {owner}, and {stream} changes it; the \
             rows of this table belong to one stream each"
        )
    }
}

/// The statements of one table.
#[derive(Clone)]
pub(crate) struct Removal {
    /// The rows that belong to another stream than the given one.
    foreign: SqlStr,
    /// The same, and the others go away.
    reset: SqlStr,
    /// All rows of some streams go away.
    clear: SqlStr,
}

/// A row and the stream that it should belong to.
type Owned<'a> = (&'a [Value], &'a StreamName, Step);

impl Removal {
    pub(crate) fn new(table: &Table, physical_name: &str) -> Self {
        let held = qualified_table(physical_name);
        let (mut arrays, mut names, mut same) = (Vec::new(), Vec::new(), Vec::new());
        let keys = table.key.iter().map(|key| (key.name, key.column_type));
        for (name, column_type) in [("tenant", ColumnType::Text)].into_iter().chain(keys) {
            arrays.push(format!("${}::{}[]", arrays.len() + 1, column_type.sql()));
            let name = identifier(name);
            same.push(format!("t.{name} = n.{name}"));
            names.push(name);
        }
        arrays.push(format!("${}::text[]", arrays.len() + 1));
        let owner = identifier(OWNER_COLUMN);
        names.push(owner.clone());
        let (arrays, names, same) = (arrays.join(", "), names.join(", "), same.join(" AND "));
        let given = format!("UNNEST({arrays}) WITH ORDINALITY AS n({names}, n)");
        let others = format!(
            "SELECT n.n, t.{owner} FROM {held} AS t JOIN n ON {same} WHERE t.{owner} <> n.{owner}"
        );
        let sql = |sql: String| AssertSqlSafe(sql).into_sql_str();
        Self {
            foreign: sql(format!("WITH n AS (SELECT * FROM {given})\n{others}")),
            reset: sql(format!(
                "WITH n AS (SELECT * FROM {given}),\n\
                 gone AS (DELETE FROM {held} AS t USING n WHERE {same} AND t.{owner} = n.{owner})\n\
                 {others}"
            )),
            clear: sql(format!(
                "DELETE FROM {held} AS t USING UNNEST($1::text[], $2::text[]) AS n(tenant, owner) \
                 WHERE t.tenant = n.tenant AND t.{owner} = n.owner"
            )),
        }
    }

    /// Lets the rows go away that `fold` removes. Returns a row that belongs to another stream than
    /// the one that changes it, if there is any: then nothing may be committed.
    pub(crate) async fn run(
        &self,
        connection: &mut PgConnection,
        fold: &TableFold,
    ) -> Result<Option<Foreign>, sqlx::Error> {
        if let Some(last) = fold.clears.last() {
            // A row that was met before a stream removed all of its rows must not be that stream's.
            let met: Vec<Owned<'_>> = owned(fold).filter(|(.., since)| *since < last).collect();
            let found = found(&self.foreign, connection, fold.table, &met).await?;
            for (index, owner) in found {
                let (key, _, since) = met[index];
                if !fold.clears.is_before(&key[0], &owner, since) {
                    return Ok(Some(foreign(met[index], owner)));
                }
            }
            let cleared = || fold.clears.0.keys();
            let tenants = cleared().map(|(tenant, _)| match tenant {
                Value::Text(tenant) => &**tenant,
                _ => unreachable!("a tenant is a text"),
            });
            sqlx::query(self.clear.clone())
                .bind(tenants.collect::<Vec<_>>())
                .bind(
                    cleared()
                        .map(|(_, stream)| stream.as_str())
                        .collect::<Vec<_>>(),
                )
                .execute(&mut *connection)
                .await?;
        }
        let reset = fold.rows.iter().filter_map(|(key, row)| {
            let life = row.life.as_ref().filter(|life| life.is_reset)?;
            Some((&**key, &life.first, life.since))
        });
        let reset: Vec<Owned<'_>> = reset.collect();
        let found = found(&self.reset, connection, fold.table, &reset).await?;
        let first = found.into_iter().next();
        Ok(first.map(|(index, owner)| foreign(reset[index], owner)))
    }

    /// One of `rows` that belongs to another stream than the one that changes it.
    pub(crate) async fn foreign(
        &self,
        connection: &mut PgConnection,
        table: &Table,
        rows: &[Remaining<'_>],
    ) -> Result<Option<Foreign>, sqlx::Error> {
        let rows = rows.iter().filter_map(|row| Some((row.key, row.owner?, 0)));
        let rows: Vec<Owned<'_>> = rows.collect();
        let found = found(&self.foreign, connection, table, &rows).await?;
        let first = found.into_iter().next();
        Ok(first.map(|(index, owner)| foreign(rows[index], owner)))
    }
}

/// The rows that a batch met, each with the stream that met it first, and when.
fn owned(fold: &TableFold) -> impl Iterator<Item = Owned<'_>> {
    fold.rows.iter().filter_map(|(key, row)| {
        let life = row.life.as_ref()?;
        Some((&**key, &life.first, life.since))
    })
}

fn foreign((key, stream, _): Owned<'_>, owner: String) -> Foreign {
    Foreign {
        key: shown(key),
        owner,
        stream: stream.to_string(),
    }
}

/// The answers of a statement about `rows`: the index of a row, and the stream that it belongs to.
async fn found(
    sql: &SqlStr,
    connection: &mut PgConnection,
    table: &Table,
    rows: &[Owned<'_>],
) -> Result<Vec<(usize, String)>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut query: Query<'_, Postgres, PgArguments> = sqlx::query(sql.clone());
    for index in 0..=table.key.len() {
        let column_type = match index.checked_sub(1) {
            None => ColumnType::Text,
            Some(index) => table.key[index].column_type,
        };
        query = bind(
            query,
            column_type,
            rows.iter().map(|(key, ..)| Some(&key[index])),
        );
    }
    let owners: Vec<&str> = rows.iter().map(|(_, owner, _)| owner.as_str()).collect();
    let found = query.bind(owners).fetch_all(connection).await?;
    found
        .iter()
        .map(|row| {
            let number: i64 = row.try_get(0)?;
            let index = usize::try_from(number - 1);
            let index = index.map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok((index, row.try_get(1)?))
        })
        .collect()
}
