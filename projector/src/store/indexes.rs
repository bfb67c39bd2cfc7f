//! Indexes of a generation's tables beside those of their keys.
//!
//! Invariant: an index is told by its name, which follows from its definition; so an index that is
//! declared otherwise has another name, and indexes that users made are left alone. Deliberately
//! absent: when indexes are made (`generation`, `rebuild`, `indexing`).

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::declare::table::{
    Index, IndexColumn, IndexOrder, IndexTenant, OWNER_COLUMN, RowsOf, Table,
};
use crate::error::RuntimeError;
use crate::store::generation::Generation;
use crate::store::sql::{TABLE_SCHEMA, identifier, qualified_table};

/// How the name of an index begins.
const PREFIX: &str = "ix_";
/// The advisory lock under which one process at a time changes the indexes of live tables.
const CHANGING: &str = "annals.indexes";

/// An index to be made.
struct Declared {
    name: String,
    /// The table and the columns, as in `CREATE INDEX … ON`.
    on: String,
}

impl Declared {
    fn new(physical_table: &str, columns: &[String]) -> Self {
        let table = qualified_table(physical_table);
        Self::on(format!("{table} ({})", columns.join(", ")))
    }

    fn on(on: String) -> Self {
        let digest = hex::encode(Sha256::digest(on.as_bytes()));
        Self {
            name: format!("{PREFIX}{}", &digest[..32]),
            on,
        }
    }

    fn create(&self, how: &str) -> String {
        format!(
            "CREATE INDEX {how} {} ON {}",
            identifier(&self.name),
            self.on
        )
    }
}

/// The statement that makes an index on `on`, as in `CREATE INDEX … ON`: a part of its table.
pub(crate) fn create_named(on: &str) -> String {
    Declared::on(on.to_owned()).create("")
}

fn columns_of(index: &Index) -> Vec<String> {
    let tenant = match index.tenant {
        IndexTenant::First => Some(identifier("tenant")),
        IndexTenant::Absent => None,
    };
    let column = |column: &IndexColumn| match column.order {
        IndexOrder::Ascending => identifier(column.name),
        IndexOrder::Descending => format!("{} DESC", identifier(column.name)),
    };
    tenant
        .into_iter()
        .chain(index.columns.iter().map(column))
        .collect()
}

/// The indexes of a table under its physical name.
fn declared(table: &Table, physical_table: &str) -> Vec<Declared> {
    // A stream finds all of its rows by this one.
    let owner = [identifier("tenant"), identifier(OWNER_COLUMN)];
    let owner = (table.rows == RowsOf::OneStream).then(|| Declared::new(physical_table, &owner));
    let others = table.indexes.iter();
    let others = others.map(|index| Declared::new(physical_table, &columns_of(index)));
    owner.into_iter().chain(others).collect()
}

fn declared_of(generation: &Generation) -> Vec<Declared> {
    let tables = generation.projection.tables().iter();
    let of = |table: &Table| declared(table, &generation.table_name(table.name));
    tables.flat_map(of).collect()
}

/// The statement that makes what a table needs from its first row on: the index by which a stream
/// finds its rows.
pub(crate) fn create_at_once(table: &Table, physical_table: &str) -> String {
    let owned =
        (table.rows == RowsOf::OneStream).then(|| declared(table, physical_table).remove(0));
    owned.map_or_else(String::new, |index| {
        format!("{};", index.create("IF NOT EXISTS"))
    })
}

/// Makes all indexes of a generation that nobody reads or writes meanwhile: a new one, or one whose
/// rows a rebuild has loaded. Does nothing to those that are there.
///
/// # Errors
/// `Postgres`.
pub(crate) async fn make_all(
    connection: &mut PgConnection,
    generation: &Generation,
) -> Result<(), RuntimeError> {
    for index in declared_of(generation) {
        sqlx::raw_sql(AssertSqlSafe(index.create("IF NOT EXISTS")))
            .execute(&mut *connection)
            .await
            .map_err(RuntimeError::postgres("make the indexes of new tables"))?;
    }
    Ok(())
}

/// Gives a live generation the indexes that it lacks, and drops those that are declared no more or
/// that an interruption left unfinished, while its tables are read and written. Must not run in a
/// transaction. Returns how many were made and dropped; nothing if another process is at it.
///
/// # Errors
/// `Postgres`; what was done stays, and the next call goes on.
pub(crate) async fn bring_up_to_date(
    connection: &mut PgConnection,
    generation: &Generation,
) -> Result<Option<(usize, usize)>, RuntimeError> {
    let failed = || RuntimeError::postgres("bring indexes up to date");
    // Held by the session, since what runs concurrently cannot be in one transaction; and not waited
    // for, since the statement of the one who waits would hold up the other's.
    let lock = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))";
    let unlock = "SELECT pg_advisory_unlock(hashtextextended($1, 0))";
    let hold = sqlx::query_scalar(lock).bind(CHANGING);
    let is_held: bool = hold.fetch_one(&mut *connection).await.map_err(failed())?;
    if !is_held {
        return Ok(None);
    }
    let outcome = change(connection, generation).await;
    let release = sqlx::query(unlock).bind(CHANGING);
    release.execute(&mut *connection).await.map_err(failed())?;
    outcome.map(Some).map_err(failed())
}

async fn change(
    connection: &mut PgConnection,
    generation: &Generation,
) -> Result<(usize, usize), sqlx::Error> {
    let wanted = declared_of(generation);
    let names: BTreeSet<&str> = wanted.iter().map(|index| index.name.as_str()).collect();
    let tables = generation.projection.tables().iter();
    let tables: Vec<String> = tables
        .map(|table| generation.table_name(table.name))
        .collect();
    let mut whole = BTreeSet::new();
    let mut dropped = 0;
    for (name, is_valid) in present(connection, &tables).await? {
        if is_valid && names.contains(name.as_str()) {
            whole.insert(name);
            continue;
        }
        let name = identifier(&name);
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {TABLE_SCHEMA}.{name}");
        sqlx::raw_sql(AssertSqlSafe(drop))
            .execute(&mut *connection)
            .await?;
        dropped += 1;
    }
    let mut made = 0;
    for index in wanted.iter().filter(|index| !whole.contains(&index.name)) {
        let create = index.create("CONCURRENTLY IF NOT EXISTS");
        sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&mut *connection)
            .await?;
        made += 1;
    }
    Ok((made, dropped))
}

/// The indexes of this runtime on some tables, and whether each is finished.
async fn present(
    connection: &mut PgConnection,
    tables: &[String],
) -> Result<Vec<(String, bool)>, sqlx::Error> {
    let select = "SELECT i.relname::text, x.indisvalid FROM pg_index AS x \
        JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_class AS t ON t.oid = x.indrelid \
        WHERE t.relnamespace = to_regnamespace($1) AND t.relname = ANY ($2::text[]) \
            AND starts_with(i.relname, $3) ORDER BY 1";
    sqlx::query_as(select)
        .bind(TABLE_SCHEMA)
        .bind(tables)
        .bind(PREFIX)
        .fetch_all(connection)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::column_type::ColumnType;
    use crate::declare::table::{asc, desc, index, key, set};

    #[test]
    fn an_index_begins_with_the_tenant_and_its_name_follows_from_its_definition() {
        const LOANS: Table = Table {
            name: "loans",
            key: &[key("loan", ColumnType::Bigint, "")],
            values: &[set("due", ColumnType::Timestamptz, "")],
            rows: RowsOf::OneStream,
            indexes: &[
                index(&[desc("due"), asc("loan")]),
                index(&[asc("due")]).over_all_tenants(),
            ],
            ..Table::PLAIN
        };
        let all = declared(&LOANS, "loans_v1_g2");
        let on: Vec<&str> = all.iter().map(|index| index.on.as_str()).collect();
        let expected = [
            r#"projection."loans_v1_g2" ("tenant", "of_stream")"#,
            r#"projection."loans_v1_g2" ("tenant", "due" DESC, "loan")"#,
            r#"projection."loans_v1_g2" ("due")"#,
        ];
        assert_eq!(on, expected);
        let names: BTreeSet<&str> = all.iter().map(|index| index.name.as_str()).collect();
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|name| name.len() <= 63));
        let other = declared(&LOANS, "loans_v1_g3");
        assert!(
            other
                .iter()
                .all(|index| !names.contains(index.name.as_str()))
        );
    }
}
