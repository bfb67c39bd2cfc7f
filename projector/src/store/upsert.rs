//! One UNNEST upsert for each table, which merges rows by the rules that memory also applies (`cell`).
//!
//! Invariant: a statement contains only declared names; values are always bound. Deliberately absent:
//! connections, and rows that go away (`removal`).

use kernel::StreamName;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, SqlStr};

use crate::declare::column_type::ColumnType;
use crate::declare::table::{Merge, RowsOf, Table};
use crate::declare::value::Value;
use crate::fold::cell::Cell;
use crate::fold::changes::Remaining;
use crate::store::merge::{may_be_emptied, merged};
use crate::store::numeric::Numeric;
use crate::store::removal::Removal;
use crate::store::sql::{
    Physical, identifier, key_columns, names_of, owner_column, qualified_table, value_columns,
};

/// The upsert of one table; it can be bound to any number of folds.
#[derive(Clone)]
pub(crate) struct Upsert {
    sql: SqlStr,
    /// For a table whose rows belong to one stream each.
    pub(crate) removal: Option<Removal>,
    /// For each column that can become empty again, the statement that empties it.
    pub(crate) emptyings: Vec<Option<Emptying>>,
}

/// The statement that makes a column of some rows empty.
#[derive(Clone)]
pub(crate) struct Emptying {
    sql: SqlStr,
}

impl Emptying {
    fn new(table: &Table, column: &str, physical_name: &str) -> Self {
        use sqlx::SqlSafeStr as _;
        let keys = key_columns(table);
        let (names, column) = (names_of(&keys), identifier(column));
        let arrays = keys.iter().enumerate();
        let arrays = arrays.map(|(index, key)| format!("${}::{}[]", index + 1, bound_as(key)));
        let same = keys.iter().map(|key| identifier(&key.name));
        let same = same.map(|name| format!("t.{name} = n.{name}"));
        let sql = format!(
            "UPDATE {} AS t SET {column} = NULL FROM UNNEST({}) AS n({names}) \
             WHERE {}",
            qualified_table(physical_name),
            arrays.collect::<Vec<_>>().join(", "),
            same.collect::<Vec<_>>().join(" AND "),
        );
        Self {
            sql: AssertSqlSafe(sql).into_sql_str(),
        }
    }

    /// The statement with `rows` bound to it.
    pub(crate) fn query<'q>(
        &self,
        table: &Table,
        rows: &[Remaining<'q>],
    ) -> Query<'q, Postgres, PgArguments> {
        bind_keys(sqlx::query(self.sql.clone()), table, rows)
    }
}

impl Upsert {
    /// The upsert of `table` under its physical name.
    pub(crate) fn new(table: &Table, physical_name: &str) -> Self {
        use sqlx::SqlSafeStr as _;
        // Names are checked by `identifier`; values are bound.
        let sql = AssertSqlSafe(upsert(table, physical_name)).into_sql_str();
        let removal = match table.rows {
            RowsOf::AnyStream => None,
            RowsOf::OneStream => Some(Removal::new(table, physical_name)),
        };
        let emptyings = table.values.iter().map(|value| {
            may_be_emptied(value).then(|| Emptying::new(table, value.name, physical_name))
        });
        Self {
            sql,
            removal,
            emptyings: emptyings.collect(),
        }
    }

    /// The statement with `rows` bound to it.
    pub(crate) fn query<'q>(
        &self,
        table: &Table,
        rows: &[Remaining<'q>],
    ) -> Query<'q, Postgres, PgArguments> {
        bind_rows(self.sql.clone(), table, rows)
    }
}

/// A statement on `rows`: all of their columns are bound, each as an array.
pub(super) fn bind_rows<'q>(
    sql: SqlStr,
    table: &Table,
    rows: &[Remaining<'q>],
) -> Query<'q, Postgres, PgArguments> {
    let mut query = bind_keys(sqlx::query(sql), table, rows);
    if table.rows == RowsOf::OneStream {
        let owners = rows.iter().map(|row| row.owner.map(StreamName::as_str));
        query = query.bind(owners.collect::<Vec<_>>());
    }
    for (index, value) in table.values.iter().enumerate() {
        let cells = || rows.iter().map(|row| &row.cells[index]);
        let column = cells().map(|cell| match cell {
            Cell::Null | Cell::Emptied => None,
            Cell::Value(value) | Cell::Latest(value, _) => Some(value),
        });
        query = bind(query, value.column_type, column);
        if let Merge::Latest { by } = value.merge {
            let ranks = || {
                cells().map(|cell| match cell {
                    Cell::Latest(_, rank) => Some(rank),
                    Cell::Null | Cell::Value(_) | Cell::Emptied => None,
                })
            };
            query = bind(query, by, ranks().map(|rank| rank.map(|rank| &rank.by)));
            let partitions = ranks().map(|rank| rank.map(|rank| rank.partition));
            query = query.bind(partitions.collect::<Vec<_>>());
            let positions = ranks().map(|rank| rank.map(|rank| rank.position));
            query = query.bind(positions.collect::<Vec<_>>());
        }
    }
    query
}

/// Binds the columns of keys.
fn bind_keys<'q>(
    mut query: Query<'q, Postgres, PgArguments>,
    table: &Table,
    rows: &[Remaining<'q>],
) -> Query<'q, Postgres, PgArguments> {
    for index in 0..=table.key.len() {
        let column_type = match index.checked_sub(1) {
            None => ColumnType::Text,
            Some(index) => table.key[index].column_type,
        };
        query = bind(
            query,
            column_type,
            rows.iter().map(|row| Some(&row.key[index])),
        );
    }
    query
}

/// The rows that are bound, as a query; the names of its columns; how many arguments there are.
pub(super) fn given(table: &Table) -> (String, String, usize) {
    let mut columns = key_columns(table);
    columns.extend(owner_column(table));
    columns.extend(value_columns(table));
    let arrays = columns.iter().enumerate();
    let arrays = arrays.map(|(index, column)| format!("${}::{}[]", index + 1, bound_as(column)));
    let arrays: Vec<String> = arrays.collect();
    let is_bound_as_text = |column: &Physical| bound_as(column) != column.column_type.sql();
    let names = names_of(&columns);
    let (mut selected, mut called) = (vec!["*".to_owned()], String::new());
    if columns.iter().any(is_bound_as_text) {
        let select = |column: &Physical| match is_bound_as_text(column) {
            true => format!("{}::{}", identifier(&column.name), column.column_type.sql()),
            false => identifier(&column.name),
        };
        selected = columns.iter().map(select).collect();
        called = format!(" AS n({names})");
    }
    let (selected, given) = (selected.join(", "), arrays.join(", "));
    let query = format!("SELECT {selected} FROM UNNEST({given}){called}");
    (query, names, arrays.len())
}

/// The rows that are bound with further columns behind their own, as a query with names.
pub(super) fn given_with(table: &Table, further: &[(String, &str)]) -> String {
    let mut columns = key_columns(table);
    columns.extend(owner_column(table));
    columns.extend(value_columns(table));
    let own = columns.iter().map(|column| {
        let name = identifier(&column.name);
        let (bound, kept) = (bound_as(column), column.column_type.sql());
        let selected = match bound == kept {
            true => name.clone(),
            false => format!("{name}::{kept}"),
        };
        (name, bound, selected)
    });
    let further = further.iter();
    let further = further.map(|(name, bound)| (identifier(name), *bound, identifier(name)));
    let (mut names, mut arrays, mut selected) = (Vec::new(), Vec::new(), Vec::new());
    for (name, bound, select) in own.chain(further) {
        arrays.push(format!("${}::{bound}[]", arrays.len() + 1));
        selected.push(format!("{select} AS {name}"));
        names.push(name);
    }
    format!(
        "SELECT {} FROM UNNEST({}) AS n({})",
        selected.join(", "),
        arrays.join(", "),
        names.join(", ")
    )
}

fn upsert(table: &Table, physical_name: &str) -> String {
    let keys = key_columns(table);
    let (given, names, _) = given(table);
    let values = table.values.iter();
    let merged = values.flat_map(|value| merged(value, "t", "EXCLUDED"));
    let mut sets: Vec<String> = merged
        .map(|(name, merged)| format!("{name} = {merged}"))
        .collect();
    let owner = owner_column(table).map(|owner| identifier(&owner.name));
    if let (Some(owner), true) = (&owner, sets.is_empty()) {
        // The row counts as written only if it is updated.
        sets.push(format!("{owner} = EXCLUDED.{owner}"));
    }
    let mut action = if sets.is_empty() {
        "DO NOTHING".to_owned()
    } else {
        format!("DO UPDATE SET\n    {}", sets.join(",\n    "))
    };
    if let Some(owner) = owner {
        action.push_str(&format!("\nWHERE t.{owner} = EXCLUDED.{owner}"));
    }
    format!(
        "INSERT INTO {} AS t ({names})\n{given}\nON CONFLICT ({}) {action}",
        qualified_table(physical_name),
        names_of(&keys),
    )
}

/// The type as which values of a column are bound. Postgres cannot unnest an array of arrays one by
/// one, and JSON is bound as its text.
fn bound_as(column: &Physical) -> &'static str {
    match column.column_type {
        ColumnType::Jsonb | ColumnType::TextArray => "text",
        bound => bound.sql(),
    }
}

pub(super) fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    column_type: ColumnType,
    column: impl Iterator<Item = Option<&'q Value>>,
) -> Query<'q, Postgres, PgArguments> {
    // The value's type was checked when it was contributed, so this match loses no value.
    macro_rules! bind {
        ($variant:ident, $value:ident => $bound:expr) => {
            query.bind(
                column
                    .map(|value| match value {
                        Some(Value::$variant($value)) => Some($bound),
                        Some(_) | None => None,
                    })
                    .collect::<Vec<_>>(),
            )
        };
    }
    match column_type {
        ColumnType::Text => bind!(Text, text => &**text),
        ColumnType::Bigint => bind!(Bigint, number => *number),
        ColumnType::Numeric => bind!(Numeric, number => Numeric::from(*number)),
        ColumnType::Decimal { .. } => bind!(Decimal, number => Numeric::from(&**number)),
        ColumnType::Double => bind!(Double, number => number.get()),
        ColumnType::Boolean => bind!(Boolean, truth => *truth),
        ColumnType::Uuid => bind!(Uuid, id => *id),
        ColumnType::Timestamptz => bind!(Timestamptz, moment => moment.to_utc()),
        ColumnType::Date => bind!(Date, day => *day),
        ColumnType::Bytea => bind!(Bytea, bytes => &**bytes),
        ColumnType::Jsonb => bind!(Jsonb, json => &**json),
        ColumnType::TextArray => bind!(TextArray, texts => array_literal(texts)),
    }
}

/// A list of texts as an array in SQL (the PostgreSQL manual, "Array Input and Output Syntax").
fn array_literal(texts: &[Box<str>]) -> String {
    let mut literal = String::from("{");
    for (index, text) in texts.iter().enumerate() {
        literal.push_str(if index == 0 { "\"" } else { ",\"" });
        for one in text.chars() {
            if matches!(one, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(one);
        }
        literal.push('"');
    }
    literal.push('}');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::table::{add, key, latest, max, min, set};

    const TABLE: Table = Table {
        name: "sample",
        about: "A sample.",
        key: &[key("day", ColumnType::Date, "")],
        values: &[
            set("name", ColumnType::Text, ""),
            add("total", ""),
            min("first_at", ColumnType::Timestamptz, ""),
            max("last_at", ColumnType::Timestamptz, ""),
            latest("state", ColumnType::Text, ColumnType::Timestamptz, ""),
        ],
        ..Table::PLAIN
    };

    #[test]
    fn the_upsert_follows_from_the_declaration() {
        let sql = upsert(&TABLE, "sample_v1_g2");
        let head = r#"INSERT INTO projection."sample_v1_g2" AS t ("tenant", "day", "name", "total", "first_at", "last_at", "state", "state_by", "state_partition", "state_position")
SELECT * FROM UNNEST($1::text[], $2::date[], $3::text[], $4::numeric[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::timestamptz[], $9::bigint[], $10::bigint[])
ON CONFLICT ("tenant", "day") DO UPDATE SET
    "name" = coalesce(EXCLUDED."name", t."name"),
    "total" = coalesce(t."total" + EXCLUDED."total", t."total", EXCLUDED."total"),
    "first_at" = LEAST(t."first_at", EXCLUDED."first_at"),
    "last_at" = GREATEST(t."last_at", EXCLUDED."last_at"),
    "state" = CASE WHEN EXCLUDED."state_by" IS NOT NULL AND "#;
        assert!(sql.starts_with(head), "{sql}");
    }

    #[test]
    fn values_that_cannot_be_unnested_are_bound_as_text() {
        const NOTES: Table = Table {
            name: "notes",
            about: "Notes.",
            key: &[key("id", ColumnType::Uuid, "")],
            values: &[
                set("data", ColumnType::Jsonb, ""),
                max("tags", ColumnType::TextArray, ""),
                set("price", ColumnType::Decimal { scale: 2 }, "").or_zero(),
                set("done", ColumnType::Boolean, "").or_false(),
            ],
            ..Table::PLAIN
        };
        let sql = upsert(&NOTES, "notes_v1_g1");
        let head = r#"INSERT INTO projection."notes_v1_g1" AS t ("tenant", "id", "data", "tags", "price", "done")
SELECT "tenant", "id", "data"::jsonb, "tags"::text[], "price", "done" FROM UNNEST($1::text[], $2::uuid[], $3::text[], $4::text[], $5::numeric[], $6::boolean[]) AS n("tenant", "id", "data", "tags", "price", "done")
ON CONFLICT ("tenant", "id") DO UPDATE SET"#;
        assert!(sql.starts_with(head), "{sql}");
        let texts = ["", "a,b", "\"\\", "NULL", "é"].map(Box::from);
        assert_eq!(array_literal(&texts), r#"{"","a,b","\"\\","NULL","é"}"#);
        assert_eq!(array_literal(&[]), "{}");
    }
}
