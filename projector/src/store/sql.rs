//! SQL made from declarations: tables, views, and one UNNEST upsert per table.
//!
//! Invariant: a statement contains only declared names, which are literals of this program and are
//! checked here; values are always bound. Deliberately absent: connections.

use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, SqlStr};

use crate::declare::model::{Model, Source, Sum};
use crate::declare::table::{ColumnType, Merge, Table};
use crate::declare::value::Value;
use crate::fold::changes::{Cell, TableFold};
use crate::store::numeric::Numeric;

pub(crate) const TABLE_SCHEMA: &str = "projection";
pub(crate) const VIEW_SCHEMA: &str = "read";
/// The most bytes of an identifier in Postgres.
const IDENTIFIER_LENGTH_MAX: usize = 63;

/// A table's name in the schema `projection`, for one generation of its projection.
pub(crate) fn physical_name(table: &str, version: u32, generation: i32) -> String {
    let name = format!("{table}_v{version}_g{generation}");
    assert!(
        name.len() <= IDENTIFIER_LENGTH_MAX,
        "{name} is too long a name"
    );
    name
}

/// A declared name as an identifier.
///
/// # Panics
/// If it has other characters than a-z, 0-9 and _: a bug of the declaration.
pub fn identifier(name: &str) -> String {
    let well_formed = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    assert!(well_formed && !name.is_empty(), "{name:?} is no name");
    format!("\"{name}\"")
}

/// A view's name with its schema.
pub(crate) fn qualified_view(view: &str) -> String {
    format!("{VIEW_SCHEMA}.{}", identifier(view))
}

/// A table's physical name with its schema.
pub(crate) fn qualified_table(table: &str) -> String {
    format!("{TABLE_SCHEMA}.{}", identifier(table))
}

/// A column as stored in Postgres; a `latest` column has three companion columns.
struct Physical {
    name: String,
    column_type: ColumnType,
}

fn physical(name: impl Into<String>, column_type: ColumnType) -> Physical {
    Physical {
        name: name.into(),
        column_type,
    }
}

fn key_columns(table: &Table) -> Vec<Physical> {
    let mut columns = vec![physical("tenant", ColumnType::Text)];
    columns.extend(
        table
            .key
            .iter()
            .map(|key| physical(key.name, key.column_type)),
    );
    columns
}

fn value_columns(table: &Table) -> Vec<Physical> {
    let mut columns = Vec::with_capacity(table.values.len());
    for value in table.values {
        columns.push(physical(value.name, value.column_type));
        if let Merge::Latest { by } = value.merge {
            columns.push(physical(format!("{}_by", value.name), by));
            columns.push(physical(
                format!("{}_partition", value.name),
                ColumnType::Bigint,
            ));
            columns.push(physical(
                format!("{}_position", value.name),
                ColumnType::Bigint,
            ));
        }
    }
    columns
}

fn names(columns: &[Physical]) -> String {
    columns
        .iter()
        .map(|column| identifier(&column.name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The statement that creates a table under a physical name.
pub(crate) fn create_table(table: &Table, physical_name: &str) -> String {
    let keys = key_columns(table);
    let column = |column: &Physical, rest: &str| {
        let collation = match column.column_type {
            ColumnType::Text => " COLLATE \"C\"",
            ColumnType::Bigint
            | ColumnType::Numeric
            | ColumnType::Timestamptz
            | ColumnType::Date
            | ColumnType::Bytea => "",
        };
        let name = identifier(&column.name);
        format!("{name} {}{collation}{rest}", column.column_type.sql())
    };
    let mut lines: Vec<String> = keys.iter().map(|key| column(key, " NOT NULL")).collect();
    lines.extend(value_columns(table).iter().map(|value| column(value, "")));
    lines.push(format!("PRIMARY KEY ({})", names(&keys)));
    let lines = lines.join(",\n    ");
    let table = identifier(physical_name);
    format!("CREATE TABLE {TABLE_SCHEMA}.{table} (\n    {lines}\n)")
}

/// The statement that creates or replaces a view over a generation's tables.
pub(crate) fn create_view(model: &Model, physical_of: &dyn Fn(&str) -> String) -> String {
    create_view_as(model.name, model, physical_of)
}

/// The same view under another name.
pub(crate) fn create_view_as(
    name: &str,
    model: &Model,
    physical_of: &dyn Fn(&str) -> String,
) -> String {
    let qualified = |table: &str| format!("{TABLE_SCHEMA}.{}", identifier(&physical_of(table)));
    let mut columns = vec!["r.\"tenant\"".to_owned()];
    for column in &model.columns {
        let name = identifier(column.name);
        columns.push(match column.source {
            Source::Same => format!("r.{name}"),
            Source::OrZero => format!("coalesce(r.{name}, 0) AS {name}"),
            Source::Sql(expression) => format!("{expression} AS {name}"),
            Source::Sum(sum) => {
                let whole = whole_sum(column.name, sum);
                format!("CASE WHEN {whole} {FITS} THEN ({whole})::bigint END AS {name}")
            }
            Source::TooLarge => format!("{} AS {name}", too_large(model)),
        });
    }
    let columns = columns.join(",\n    ");
    let table = qualified(model.name);
    let mut sql = format!(
        "CREATE OR REPLACE VIEW {VIEW_SCHEMA}.{} AS\nSELECT {columns}\nFROM {table} AS r",
        identifier(name)
    );
    let mut rest = model.joins;
    if !rest.is_empty() {
        sql.push('\n');
    }
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, behind) = behind.split_once('}').expect("a closed brace");
        sql.push_str(before);
        sql.push_str(&qualified(name));
        rest = behind;
    }
    sql.push_str(rest);
    if let Some(filter) = model.filter {
        sql.push_str("\nWHERE ");
        sql.push_str(filter);
    }
    sql
}

/// The condition on a number that it fits in 64 bits.
const FITS: &str = "BETWEEN -9223372036854775808 AND 9223372036854775807";

/// The full value of a view's sum, of any size.
fn whole_sum(name: &str, sum: Sum) -> String {
    match sum {
        Sum::Same => format!("coalesce(r.{}, 0)", identifier(name)),
        Sum::Sql(expression) => expression.to_owned(),
    }
}

/// The SQL for the names of a row's sums that do not fit in 64 bits.
fn too_large(model: &Model) -> String {
    let names = model.columns.iter().filter_map(|column| {
        let Source::Sum(sum) = column.source else {
            return None;
        };
        let whole = whole_sum(column.name, sum);
        Some(format!(
            "CASE WHEN {whole} NOT {FITS} THEN '{}' END",
            column.name
        ))
    });
    let names = names.collect::<Vec<_>>().join(", ");
    format!("nullif(concat_ws(', ', {names}), '')")
}

/// The upsert of one table; it can be bound to any number of folds.
#[derive(Clone)]
pub(crate) struct Upsert {
    sql: SqlStr,
}

impl Upsert {
    /// The upsert of `table` under its physical name.
    pub(crate) fn new(table: &Table, physical_name: &str) -> Self {
        use sqlx::SqlSafeStr as _;
        // Names are checked by `identifier`; values are bound.
        let sql = AssertSqlSafe(upsert(table, physical_name)).into_sql_str();
        Self { sql }
    }

    /// The statement with the rows of `fold` bound to it.
    pub(crate) fn query<'q>(&self, fold: &'q TableFold) -> Query<'q, Postgres, PgArguments> {
        let table = fold.table;
        let mut query = sqlx::query(self.sql.clone());
        for index in 0..=table.key.len() {
            let column_type = match index.checked_sub(1) {
                None => ColumnType::Text,
                Some(index) => table.key[index].column_type,
            };
            let column = fold.rows.keys().map(|key| Some(&key[index]));
            query = bind(query, column_type, column);
        }
        for (index, value) in table.values.iter().enumerate() {
            let cells = || fold.rows.values().map(|cells| &cells[index]);
            let column = cells().map(|cell| match cell {
                Cell::Null => None,
                Cell::Value(value) | Cell::Latest(value, _) => Some(value),
            });
            query = bind(query, value.column_type, column);
            if let Merge::Latest { by } = value.merge {
                let ranks = || {
                    cells().map(|cell| match cell {
                        Cell::Latest(_, rank) => Some(rank),
                        Cell::Null | Cell::Value(_) => None,
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
}

fn upsert(table: &Table, physical_name: &str) -> String {
    let keys = key_columns(table);
    let mut columns = key_columns(table);
    columns.extend(value_columns(table));
    let arrays: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| format!("${}::{}[]", index + 1, column.column_type.sql()))
        .collect();
    let mut sets = Vec::new();
    for value in table.values {
        let name = identifier(value.name);
        let (held, given) = (format!("t.{name}"), format!("EXCLUDED.{name}"));
        sets.push(match value.merge {
            Merge::Set => format!("{name} = coalesce({given}, {held})"),
            // Adding null would give null.
            Merge::Add => format!("{name} = coalesce({held} + {given}, {held}, {given})"),
            // LEAST and GREATEST ignore nulls.
            Merge::Min => format!("{name} = LEAST({held}, {given})"),
            Merge::Max => format!("{name} = GREATEST({held}, {given})"),
            Merge::Latest { .. } => latest(value.name),
        });
    }
    let action = if sets.is_empty() {
        "DO NOTHING".to_owned()
    } else {
        format!("DO UPDATE SET\n    {}", sets.join(",\n    "))
    };
    format!(
        "INSERT INTO {TABLE_SCHEMA}.{} AS t ({})\nSELECT * FROM UNNEST({})\nON CONFLICT ({}) {action}",
        identifier(physical_name),
        names(&columns),
        arrays.join(", "),
        names(&keys),
    )
}

fn latest(column: &str) -> String {
    let part = |suffix: &str| identifier(&format!("{column}{suffix}"));
    let rank = |row: &str| {
        let [by, partition, position] = [part("_by"), part("_partition"), part("_position")];
        format!("({row}.{by}, {row}.{partition}, {row}.{position})")
    };
    let by = part("_by");
    let newer = format!(
        "EXCLUDED.{by} IS NOT NULL AND (t.{by} IS NULL OR {} >= {})",
        rank("EXCLUDED"),
        rank("t")
    );
    ["", "_by", "_partition", "_position"]
        .map(|suffix| {
            let name = part(suffix);
            format!("{name} = CASE WHEN {newer} THEN EXCLUDED.{name} ELSE t.{name} END")
        })
        .join(",\n    ")
}

fn bind<'q>(
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
        ColumnType::Numeric => bind!(Numeric, number => Numeric(*number)),
        ColumnType::Timestamptz => bind!(Timestamptz, moment => moment.to_utc()),
        ColumnType::Date => bind!(Date, day => *day),
        ColumnType::Bytea => bind!(Bytea, bytes => &**bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::model::{computed, sum_of};
    use crate::declare::table::{View, add, key, latest, max, min, set, tally};

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
        view: View::WHOLE,
    };

    #[test]
    fn the_statements_follow_from_the_declaration() {
        assert_eq!(
            create_table(&TABLE, "sample_v1_g2"),
            r#"CREATE TABLE projection."sample_v1_g2" (
    "tenant" text COLLATE "C" NOT NULL,
    "day" date NOT NULL,
    "name" text COLLATE "C",
    "total" numeric,
    "first_at" timestamptz,
    "last_at" timestamptz,
    "state" text COLLATE "C",
    "state_by" timestamptz,
    "state_partition" bigint,
    "state_position" bigint,
    PRIMARY KEY ("tenant", "day")
)"#
        );
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
    fn a_view_shows_the_live_tables_and_hides_what_is_not_whole() {
        const SHOWN: Table = Table {
            name: "sample",
            about: "What isn't shown.",
            key: &[key("day", ColumnType::Date, "The day.")],
            values: &[
                tally("number", "How many."),
                add("total", "How much."),
                set("late_at", ColumnType::Timestamptz, "When.").nullable(),
            ],
            view: View {
                joins: "LEFT JOIN {other} AS o ON o.day = r.day",
                filter: Some("r.name IS NOT NULL"),
                computed: &[
                    computed("more", "coalesce(o.more, 0)", "More."),
                    sum_of("paid", "coalesce(o.paid, 0)", "Paid."),
                ],
                ..View::WHOLE
            },
        };
        let model = Model::of(&SHOWN);
        assert_eq!(
            create_view(&model, &|table| physical_name(table, 1, 2)),
            r#"CREATE OR REPLACE VIEW read."sample" AS
SELECT r."tenant",
    r."day",
    coalesce(r."number", 0) AS "number",
    CASE WHEN coalesce(r."total", 0) BETWEEN -9223372036854775808 AND 9223372036854775807 THEN (coalesce(r."total", 0))::bigint END AS "total",
    r."late_at",
    coalesce(o.more, 0) AS "more",
    CASE WHEN coalesce(o.paid, 0) BETWEEN -9223372036854775808 AND 9223372036854775807 THEN (coalesce(o.paid, 0))::bigint END AS "paid",
    nullif(concat_ws(', ', CASE WHEN coalesce(r."total", 0) NOT BETWEEN -9223372036854775808 AND 9223372036854775807 THEN 'total' END, CASE WHEN coalesce(o.paid, 0) NOT BETWEEN -9223372036854775808 AND 9223372036854775807 THEN 'paid' END), '') AS "too_large"
FROM projection."sample_v1_g2" AS r
LEFT JOIN projection."other_v1_g2" AS o ON o.day = r.day
WHERE r.name IS NOT NULL"#
        );
    }
}
