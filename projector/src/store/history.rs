//! The versions of rows in Postgres: a table beside each table whose past is kept.
//!
//! A version holds what the commits of one partition, up to one of them, made of a row. The row as of a
//! moment is what the last version of each partition up to that moment merges to, by the rules of its
//! columns; a row that belongs to one stream is its last version. So nothing that was written changes
//! because another partition comes later, and to see a row as of a moment needs one look into an index
//! for each partition that contributed to it.
//!
//! Invariant: versions change in the transaction of the rows. Deliberately absent: the fold
//! (`fold::history`), and views (`as_of`).

use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr as _, SqlStr};

use crate::declare::history::History;
use crate::declare::table::{OWNER_COLUMN, RowsOf, Table, ValueColumn};
use crate::declare::value::Value;
use crate::fold::cell::Cell;
use crate::fold::changes::Remaining;
use crate::fold::history::{Cleared, RowVersion, Versions};
use crate::store::merge::{may_be_emptied, merged};
use crate::store::sql::{
    column_definition, identifier, key_columns, names_of, owner_column, qualified_table,
    value_columns,
};
use crate::store::upsert::{bind_rows, given_with};
use crate::store::{describe, indexes};

/// The partition whose commits made a version.
pub(crate) const PARTITION: &str = "version_partition";
/// From when on a version is seen.
pub(crate) const AT: &str = "version_at";
/// The position of the commit that left it.
pub(crate) const POSITION: &str = "version_position";
/// Whether it is the first one of its partition.
pub(crate) const FIRST: &str = "version_first";
/// Whether the row went away, in a table whose rows belong to one stream each.
pub(crate) const GONE: &str = "version_gone";

/// The columns of a version beside those of its row.
const OWN: [&str; 5] = [PARTITION, AT, POSITION, FIRST, GONE];
/// How the names begin that a declared column may not have.
pub(crate) const TAKEN: &str = "version_";

/// When the versions of a batch are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Behind all versions of their partitions.
    Behind,
    /// Among others: commits of a stream that was parked are taken up later than those behind them.
    Among,
}

/// The name of the table with the versions of a physical table's rows.
pub(crate) fn versions_of(physical_table: &str) -> String {
    format!("{physical_table}_history")
}

/// The statements that create the table of versions under a physical table's name.
pub(crate) fn create_versions(table: &Table, physical_table: &str) -> String {
    let name = versions_of(physical_table);
    let keys = key_columns(table);
    let mut lines: Vec<String> = keys
        .iter()
        .map(|key| column_definition(key, " NOT NULL"))
        .collect();
    lines.push(format!("{} integer NOT NULL", identifier(PARTITION)));
    lines.push(format!("{} timestamptz NOT NULL", identifier(AT)));
    lines.push(format!("{} bigint NOT NULL", identifier(POSITION)));
    lines.push(format!("{} boolean NOT NULL", identifier(FIRST)));
    if let Some(owner) = owner_column(table) {
        lines.push(format!("{} boolean NOT NULL", identifier(GONE)));
        lines.push(column_definition(&owner, " NOT NULL"));
    }
    let values = value_columns(table);
    lines.extend(values.iter().map(|value| column_definition(value, "")));
    let names = names_of(&keys);
    let (partition, at, position) = (identifier(PARTITION), identifier(AT), identifier(POSITION));
    lines.push(format!(
        "PRIMARY KEY ({names}, {partition}, {at}, {position})"
    ));
    let lines = lines.join(",\n    ");
    let qualified = qualified_table(&name);
    let first = identifier(FIRST);
    // It alone tells which rows had begun by a moment.
    let index = indexes::create_named(&format!(
        "{qualified} ({names}, {partition}, {at}, {position}) WHERE {first}"
    ));
    let described = describe::describe_versions(table, &name);
    format!("CREATE TABLE {qualified} (\n    {lines}\n);\n{index};\n{described}")
}

/// The statements on the versions of one table.
#[derive(Clone)]
pub(crate) struct HistorySql {
    behind: SqlStr,
    among: SqlStr,
    clear: Option<SqlStr>,
    thin: Option<SqlStr>,
}

impl HistorySql {
    pub(crate) fn new(table: &Table, physical_table: &str, history: History) -> Self {
        let sql = |sql: String| AssertSqlSafe(sql).into_sql_str();
        let writer = Writer::new(table, physical_table);
        let thins = !matches!(history, History::Full | History::Off);
        Self {
            behind: sql(writer.insert("")),
            among: sql(writer.insert(&writer.later())),
            clear: (table.rows == RowsOf::OneStream).then(|| sql(writer.clear(physical_table))),
            thin: thins.then(|| sql(writer.thin())),
        }
    }

    /// Writes the versions that a batch leaves. Call it before the rows are written: it reads which
    /// rows streams had.
    pub(crate) async fn write(
        &self,
        tx: &mut PgConnection,
        table: &Table,
        versions: &Versions,
        order: Order,
    ) -> Result<(), sqlx::Error> {
        let rows = &versions.versions;
        if !rows.is_empty() {
            let insert = match order {
                Order::Behind => &self.behind,
                Order::Among => &self.among,
            };
            bind_versions(insert.clone(), table, rows)
                .execute(&mut *tx)
                .await?;
        }
        if let (Some(clear), false) = (&self.clear, versions.clears.is_empty()) {
            bind_clears(clear.clone(), &versions.clears)
                .execute(&mut *tx)
                .await?;
        }
        if let (Some(thin), false) = (&self.thin, rows.is_empty()) {
            bind_versions(thin.clone(), table, rows)
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    }
}

/// The name of the argument that says whether a column was emptied.
fn emptied(value: &ValueColumn) -> String {
    format!("{}_emptied", value.name)
}

struct Writer<'t> {
    table: &'t Table,
    versions: String,
    /// The rows that are bound, as a query.
    given: String,
    /// The conditions that two versions are of one row and partition.
    same: String,
}

impl<'t> Writer<'t> {
    fn new(table: &'t Table, physical_table: &str) -> Self {
        let mut extra = vec![
            (PARTITION.to_owned(), "integer"),
            (AT.to_owned(), "timestamptz"),
            (POSITION.to_owned(), "bigint"),
            (FIRST.to_owned(), "boolean"),
        ];
        if table.rows == RowsOf::OneStream {
            extra.push((GONE.to_owned(), "boolean"));
            extra.push(("version_reset".to_owned(), "boolean"));
        }
        let values = table.values.iter().filter(|value| may_be_emptied(value));
        extra.extend(values.map(|value| (emptied(value), "boolean")));
        let keys = key_columns(table);
        let names = keys.iter().map(|key| identifier(&key.name));
        let names = names.chain([identifier(PARTITION)]);
        let same: Vec<String> = names.map(|name| format!("b.{name} = n.{name}")).collect();
        Self {
            table,
            versions: qualified_table(&versions_of(physical_table)),
            given: given_with(table, &extra),
            same: same.join(" AND "),
        }
    }

    fn is_owned(&self) -> bool {
        self.table.rows == RowsOf::OneStream
    }

    /// The columns of the version `n`, merged with those of the version `b` before it.
    fn merged(&self) -> Vec<(String, String)> {
        let values = self.table.values.iter();
        let merged = values.flat_map(|value| {
            let mut columns = merged(value, "b", "n");
            if may_be_emptied(value) {
                let emptied = identifier(&emptied(value));
                for (_, sql) in &mut columns {
                    *sql = format!("CASE WHEN n.{emptied} THEN NULL ELSE {sql} END");
                }
            }
            columns
        });
        merged.collect()
    }

    /// The same; of a row that belongs to one stream, only what the same row was before counts.
    fn gone_on(&self) -> Vec<String> {
        let owner = identifier(OWNER_COLUMN);
        let goes_on = format!(
            "NOT n.\"version_reset\" AND NOT b.{} AND b.{owner} = n.{owner}",
            identifier(GONE)
        );
        let columns = self.merged().into_iter();
        let columns = columns.map(|(name, merged)| match self.is_owned() {
            true => format!("CASE WHEN {goes_on} THEN {merged} ELSE n.{name} END"),
            false => merged,
        });
        columns.collect()
    }

    /// Adds versions, each merged with the last one before it. `beside` are further changes, which see
    /// the table as it was.
    fn insert(&self, beside: &str) -> String {
        let (keys, values) = (key_columns(self.table), value_columns(self.table));
        let [partition, at, position, first, gone] = OWN.map(identifier);
        let mut names = vec![
            names_of(&keys),
            partition.clone(),
            at.clone(),
            position.clone(),
            first.clone(),
        ];
        let mut selected: Vec<String> = keys
            .iter()
            .map(|key| format!("n.{}", identifier(&key.name)))
            .collect();
        selected.extend([&partition, &at, &position].map(|name| format!("n.{name}")));
        // It is also the first if it takes the place of the first one in its interval.
        selected.push(format!(
            "n.{first} AND (b.{at} IS NULL OR b.{first} AND b.{at} = n.{at})"
        ));
        if let Some(owner) = owner_column(self.table) {
            names.extend([gone.clone(), identifier(&owner.name)]);
            selected.extend([
                format!("n.{gone}"),
                format!("n.{}", identifier(&owner.name)),
            ]);
        }
        if !values.is_empty() {
            names.push(names_of(&values));
            selected.extend(self.gone_on());
        }
        let (names, selected) = (names.join(", "), selected.join(",\n    "));
        let Self {
            versions,
            given,
            same,
            ..
        } = self;
        format!(
            "WITH n AS MATERIALIZED ({given}){beside}\n\
             INSERT INTO {versions} ({names})\nSELECT {selected}\nFROM n LEFT JOIN LATERAL (\
                 SELECT * FROM {versions} AS b WHERE {same} \
                     AND (b.{at}, b.{position}) < (n.{at}, n.{position}) \
                 ORDER BY b.{at} DESC, b.{position} DESC LIMIT 1) AS b ON true"
        )
    }

    /// Merges what is added into the versions that stand behind it. A row that belongs to one stream has
    /// none: the stream was parked.
    fn later(&self) -> String {
        if self.is_owned() {
            return String::new();
        }
        let [partition, at, position, first, _] = OWN.map(identifier);
        let keys = key_columns(self.table);
        let mut names: Vec<String> = keys.iter().map(|key| identifier(&key.name)).collect();
        names.push(partition);
        let of_row = |a: &str, b: &str| {
            let same = names.iter().map(|name| format!("{a}.{name} = {b}.{name}"));
            same.collect::<Vec<_>>().join(" AND ")
        };
        let mut sets = vec![format!("{first} = false")];
        let merged = self.merged().into_iter();
        sets.extend(merged.map(|(name, merged)| format!("{name} = {merged}")));
        let versions = &self.versions;
        let (sets, row) = (sets.join(",\n    "), names.join(", "));
        format!(
            ",\nk AS (SELECT DISTINCT {row} FROM n),\n\
             later AS (UPDATE {versions} AS b SET {sets}\nFROM (\
                 SELECT v.ctid AS of_version, n.* FROM k JOIN {versions} AS v ON {} \
                 CROSS JOIN LATERAL (SELECT * FROM n WHERE {} \
                     AND (n.{at}, n.{position}) < (v.{at}, v.{position}) \
                     ORDER BY n.{at} DESC, n.{position} DESC LIMIT 1) AS n\
             ) AS n WHERE b.ctid = n.of_version)",
            of_row("v", "k"),
            of_row("n", "v"),
        )
    }

    /// Adds that stored rows of streams went away.
    fn clear(&self, physical_table: &str) -> String {
        let [partition, at, position, first, gone] = OWN.map(identifier);
        let (keys, owner) = (key_columns(self.table), identifier(OWNER_COLUMN));
        let held = qualified_table(physical_table);
        let (names, versions) = (names_of(&keys), &self.versions);
        let of_row = keys
            .iter()
            .map(|key| format!("t.{}", identifier(&key.name)));
        let of_row = of_row.collect::<Vec<_>>().join(", ");
        format!(
            "INSERT INTO {versions} ({names}, {partition}, {at}, {position}, {first}, {gone}, {owner})\n\
             SELECT {of_row}, n.partition, n.at, n.position, false, true, t.{owner} \
             FROM {held} AS t JOIN UNNEST($1::text[], $2::text[], $3::integer[], $4::timestamptz[], \
                 $5::bigint[]) AS n(tenant, owner, partition, at, position) \
             ON t.tenant = n.tenant AND t.{owner} = n.owner\nON CONFLICT DO NOTHING"
        )
    }

    /// Removes the versions whose intervals got later ones.
    fn thin(&self) -> String {
        let [_, at, position, ..] = OWN.map(identifier);
        let Self {
            versions,
            given,
            same,
            ..
        } = self;
        format!(
            "WITH n AS MATERIALIZED ({given})\nDELETE FROM {versions} AS b USING n \
             WHERE {same} AND b.{at} = n.{at} AND b.{position} < n.{position}"
        )
    }
}

fn bind_versions<'q>(
    sql: SqlStr,
    table: &Table,
    versions: &'q [RowVersion],
) -> Query<'q, Postgres, PgArguments> {
    let rows: Vec<Remaining<'q>> = versions.iter().map(RowVersion::as_row).collect();
    let places = || versions.iter().map(|version| version.place);
    let partitions = places().map(|place| place.partition.0.cast_signed());
    let positions = places().map(|place| place.position.0.cast_signed());
    let mut query = bind_rows(sql, table, &rows)
        .bind(partitions.collect::<Vec<_>>())
        .bind(places().map(|place| place.at.to_utc()).collect::<Vec<_>>())
        .bind(positions.collect::<Vec<_>>())
        .bind(versions.iter().map(|v| v.is_first).collect::<Vec<_>>());
    if table.rows == RowsOf::OneStream {
        let lives = || versions.iter().map(|version| version.life.as_ref());
        let is_gone = lives().map(|life| life.is_some_and(|life| life.is_gone));
        let is_reset = lives().map(|life| life.is_some_and(|life| life.is_reset));
        query = query
            .bind(is_gone.collect::<Vec<_>>())
            .bind(is_reset.collect::<Vec<_>>());
    }
    for (index, value) in table.values.iter().enumerate() {
        if may_be_emptied(value) {
            let emptied = versions.iter();
            let emptied = emptied.map(|version| version.cells[index] == Cell::Emptied);
            query = query.bind(emptied.collect::<Vec<_>>());
        }
    }
    query
}

fn bind_clears<'q>(sql: SqlStr, clears: &'q [Cleared]) -> Query<'q, Postgres, PgArguments> {
    let tenants = clears.iter().map(|cleared| match &cleared.tenant {
        Value::Text(tenant) => &**tenant,
        _ => unreachable!("a tenant is a text"),
    });
    let owners = clears.iter().map(|cleared| cleared.owner.as_str());
    let places = || clears.iter().map(|cleared| cleared.place);
    let partitions = places().map(|place| place.partition.0.cast_signed());
    let positions = places().map(|place| place.position.0.cast_signed());
    sqlx::query(sql)
        .bind(tenants.collect::<Vec<_>>())
        .bind(owners.collect::<Vec<_>>())
        .bind(partitions.collect::<Vec<_>>())
        .bind(places().map(|place| place.at.to_utc()).collect::<Vec<_>>())
        .bind(positions.collect::<Vec<_>>())
}

impl RowVersion {
    fn as_row(&self) -> Remaining<'_> {
        Remaining {
            key: &self.key,
            cells: &self.cells,
            owner: self.life.as_ref().map(|life| &life.owner),
        }
    }
}
