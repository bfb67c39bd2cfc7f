//! SQL made from declarations: tables and views.
//!
//! Invariant: a statement contains only declared names, which are literals of this program and are
//! checked here. Deliberately absent: connections, and how rows are written (`upsert`).

use crate::declare::column_type::ColumnType;
use crate::declare::model::{Model, Source, Sum};
use crate::declare::table::{Merge, OWNER_COLUMN, RowsOf, Table};

pub(crate) const TABLE_SCHEMA: &str = "projection";
pub(crate) const VIEW_SCHEMA: &str = "read";
/// The schema of the views that show the read models as of a moment.
pub(crate) const AS_OF_SCHEMA: &str = "read_as_of";
/// The schema of the views that show every version of a row.
pub(crate) const HISTORY_SCHEMA: &str = "read_history";
/// The schemas of views; the first is that of the present rows.
pub(crate) const VIEW_SCHEMAS: [&str; 3] = [VIEW_SCHEMA, AS_OF_SCHEMA, HISTORY_SCHEMA];
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

/// A view's name with one of the schemas of views.
pub(crate) fn view_in(schema: &str, view: &str) -> String {
    format!("{schema}.{}", identifier(view))
}

/// A table's physical name with its schema: `projection`, unless the name has another one before a
/// point, as tables apart from the live ones have (`apart`).
pub(crate) fn qualified_table(table: &str) -> String {
    match table.split_once('.') {
        None => format!("{TABLE_SCHEMA}.{}", identifier(table)),
        Some((schema, table)) => format!("{}.{}", identifier(schema), identifier(table)),
    }
}

/// A column as stored in Postgres; a `latest` column has three companion columns.
pub(crate) struct Physical {
    pub(crate) name: String,
    pub(crate) column_type: ColumnType,
}

fn physical(name: impl Into<String>, column_type: ColumnType) -> Physical {
    Physical {
        name: name.into(),
        column_type,
    }
}

pub(crate) fn key_columns(table: &Table) -> Vec<Physical> {
    let mut columns = vec![physical("tenant", ColumnType::Text)];
    columns.extend(
        table
            .key
            .iter()
            .map(|key| physical(key.name, key.column_type)),
    );
    columns
}

/// The stream that a row belongs to, if it belongs to one.
pub(super) fn owner_column(table: &Table) -> Option<Physical> {
    match table.rows {
        RowsOf::AnyStream => None,
        RowsOf::OneStream => Some(physical(OWNER_COLUMN, ColumnType::Text)),
    }
}

pub(super) fn value_columns(table: &Table) -> Vec<Physical> {
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

pub(super) fn names_of(columns: &[Physical]) -> String {
    columns
        .iter()
        .map(|column| identifier(&column.name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A column as in `CREATE TABLE`.
pub(super) fn column_definition(column: &Physical, rest: &str) -> String {
    let collation = match column.column_type.is_text() {
        true => " COLLATE \"C\"",
        false => "",
    };
    let name = identifier(&column.name);
    format!("{name} {}{collation}{rest}", column.column_type.sql())
}

/// The statement that creates a table under a physical name.
pub(crate) fn create_table(table: &Table, physical_name: &str) -> String {
    let keys = key_columns(table);
    let needed = |column: &Physical| column_definition(column, " NOT NULL");
    let mut lines: Vec<String> = keys.iter().map(needed).collect();
    lines.extend(owner_column(table).iter().map(needed));
    let values = value_columns(table);
    lines.extend(values.iter().map(|value| column_definition(value, "")));
    lines.push(format!("PRIMARY KEY ({})", names_of(&keys)));
    let lines = lines.join(",\n    ");
    let table = qualified_table(physical_name);
    format!("CREATE TABLE {table} (\n    {lines}\n)")
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
    let source = |table: &str| qualified_table(&physical_of(table));
    let name = identifier(name);
    let select = select_of(model, "", &source);
    format!("CREATE OR REPLACE VIEW {VIEW_SCHEMA}.{name} AS\n{select}")
}

/// What a view shows of the tables that `source_of` names, each as a table or a query in parentheses.
/// `further` are columns behind the view's own.
pub(crate) fn select_of(
    model: &Model,
    further: &str,
    source_of: &dyn Fn(&str) -> String,
) -> String {
    let mut columns = vec!["r.\"tenant\"".to_owned()];
    for column in &model.columns {
        let name = identifier(column.name);
        columns.push(match column.source {
            Source::Same => format!("r.{name}"),
            Source::OrZero => {
                let zero = column.column_type.zero();
                let zero = zero.expect("only numbers and booleans have a zero");
                format!("coalesce(r.{name}, {zero}) AS {name}")
            }
            Source::Sql(expression) => format!("{expression} AS {name}"),
            Source::Sum(sum) => {
                let whole = whole_sum(column.name, sum);
                format!("CASE WHEN {whole} {FITS} THEN ({whole})::bigint END AS {name}")
            }
            Source::TooLarge => format!("{} AS {name}", too_large(model)),
        });
    }
    let sql_only = model.sql_only.iter();
    columns.extend(sql_only.map(|own| format!("{} AS {}", own.expression, identifier(own.name))));
    let columns = columns.join(",\n    ");
    let table = source_of(model.name);
    let mut sql = format!("SELECT {columns}{further}\nFROM {table} AS r");
    if !model.joins.is_empty() {
        sql.push('\n');
        sql.push_str(&joined(model.joins, source_of));
    }
    if let Some(filter) = model.filter {
        sql.push_str("\nWHERE ");
        sql.push_str(filter);
    }
    sql
}

/// The joins of a view, with the tables that `source_of` names.
pub(crate) fn joined(joins: &str, source_of: &dyn Fn(&str) -> String) -> String {
    let (mut sql, mut rest) = (String::new(), joins);
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, behind) = behind.split_once('}').expect("a closed brace");
        sql.push_str(before);
        sql.push_str(&source_of(name));
        rest = behind;
    }
    sql.push_str(rest);
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
        ..Table::PLAIN
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
    }

    #[test]
    fn a_view_shows_a_zero_like_the_other_values() {
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
        let view = create_view(&Model::of(&NOTES), &str::to_owned);
        assert!(
            view.contains(r#"coalesce(r."price", 0.00) AS "price""#),
            "{view}"
        );
        assert!(
            view.contains(r#"coalesce(r."done", false) AS "done""#),
            "{view}"
        );
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
                    computed("more", ColumnType::Bigint, "coalesce(o.more, 0)", "More."),
                    sum_of("paid", "coalesce(o.paid, 0)", "Paid."),
                ],
                ..View::WHOLE
            },
            ..Table::PLAIN
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
