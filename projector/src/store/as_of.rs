//! Views of read models as they were: as of the moment in the setting `annals.as_of`
//! (schema `read_as_of`), and every version of a row (schema `read_history`).
//!
//! Both are the view of the present rows over other tables: each table stands there as of a moment.
//! So a filter, a join or a computed column of a view needs no second form. Deliberately absent: how
//! versions are written (`history`), and when views change (`switch`).

use crate::declare::column_type::ColumnType;
use crate::declare::model::Model;
use crate::declare::table::{Merge, OWNER_COLUMN, RowsOf, Table, ValueColumn};
use crate::store::history::{AT, FIRST, GONE, PARTITION, POSITION, versions_of};
use crate::store::sql::{
    AS_OF_SCHEMA, HISTORY_SCHEMA, identifier, joined, key_columns, names_of, qualified_table,
    select_of, view_in,
};

/// The moment as of which a table is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// That of the session's setting.
    Session,
    /// That of the version `m`.
    OfVersion,
}

impl Moment {
    /// The condition that a version was there in `partition`.
    fn holds(self, version: &str, partition: &str) -> String {
        let [at, position] = [AT, POSITION].map(identifier);
        match self {
            Self::Session => format!(
                "({version}.{at}, {version}.{position}) <= \
                 (annals.as_of_time({partition}), annals.as_of_position({partition}))"
            ),
            Self::OfVersion => format!("{version}.{at} <= m.version_from"),
        }
    }
}

/// The statement that creates or replaces one of the two views of a read model, under a name.
/// `table_of` gives its tables, and `physical_of` their physical names.
pub(crate) fn create_view(
    schema: &str,
    name: &str,
    model: &Model,
    table_of: &dyn Fn(&str) -> &'static Table,
    physical_of: &dyn Fn(&str) -> String,
) -> String {
    let select = match schema {
        AS_OF_SCHEMA => {
            let source = |name: &str| {
                let scan = match name == model.name {
                    true => Scan::OfMany,
                    false => Scan::OfNamed,
                };
                table_as_of(table_of(name), &physical_of(name), Moment::Session, scan)
            };
            select_of(model, "", &|name| format!("({})", source(name)))
        }
        HISTORY_SCHEMA => history(model, table_of, physical_of),
        other => unreachable!("{other} has no views of this kind"),
    };
    let view = view_in(schema, name);
    format!("CREATE OR REPLACE VIEW {view} AS\n{select}")
}

/// A table as of the moment in the session's setting, as a query.
pub(crate) fn table_as_of_setting(table: &Table, physical_table: &str) -> String {
    table_as_of(table, physical_table, Moment::Session, Scan::OfMany)
}

/// How the rows of a table are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// One after the other: many may have to be passed over, because they had not begun.
    OfMany,
    /// By their keys, which others name.
    OfNamed,
}

/// A table as of a moment, as a query.
fn table_as_of(table: &Table, physical_table: &str, moment: Moment, scan: Scan) -> String {
    let versions = qualified_table(&versions_of(physical_table));
    let keys = key_columns(table);
    let [partition, at, position, first] = [PARTITION, AT, POSITION, FIRST].map(identifier);
    let same = |a: &str, b: &str| {
        let same = keys.iter().map(|key| identifier(&key.name));
        let same = same.map(|name| format!("{a}.{name} = {b}.{name}"));
        same.collect::<Vec<_>>().join(" AND ")
    };
    let last = format!(
        "SELECT * FROM {versions} AS v WHERE {} AND v.{partition} = f.{partition} AND {} \
         ORDER BY v.{at} DESC, v.{position} DESC LIMIT 1",
        same("v", "f"),
        moment.holds("v", &format!("f.{partition}")),
    );
    let begun = |version: &str| {
        let holds = moment.holds(version, &format!("{version}.{partition}"));
        format!("{version}.{first} AND {holds}")
    };
    let of_row = |row: &str| {
        let names = keys
            .iter()
            .map(|key| format!("{row}.{}", identifier(&key.name)));
        names.collect::<Vec<_>>().join(", ")
    };
    let list = |columns: Vec<String>| match columns.is_empty() {
        true => String::new(),
        false => format!(", {}", columns.join(", ")),
    };
    if table.rows == RowsOf::OneStream {
        let owner = identifier(OWNER_COLUMN);
        let values = table.values.iter().flat_map(stored);
        let values = list(values.map(|(name, _)| format!("v.{name}")).collect());
        return format!(
            "SELECT {}, v.{owner}{values} FROM {versions} AS f CROSS JOIN LATERAL ({last}) AS v \
             WHERE {} AND NOT v.{}",
            of_row("f"),
            begun("f"),
            identifier(GONE),
        );
    }
    let merged = table.values.iter().flat_map(merged);
    let merged = list(
        merged
            .map(|(name, sql)| format!("{sql} AS {name}"))
            .collect(),
    );
    let values = table.values.iter().flat_map(stored);
    let values = list(values.map(|(name, _)| format!("w.{name}")).collect());
    // An index alone tells which rows had begun: the others are not merged.
    let has_begun = match scan {
        Scan::OfMany => format!(
            " AND EXISTS (SELECT FROM {versions} AS b WHERE {} AND {})",
            same("b", "k"),
            begun("b")
        ),
        Scan::OfNamed => String::new(),
    };
    format!(
        "SELECT {}{values} FROM {} AS k CROSS JOIN LATERAL (\
             SELECT count(*) AS version_count{merged} FROM {versions} AS f \
             CROSS JOIN LATERAL ({last}) AS v WHERE {} AND {}\
         ) AS w WHERE w.version_count > 0{has_begun}",
        of_row("k"),
        qualified_table(physical_table),
        same("f", "k"),
        begun("f"),
    )
}

/// The stored columns of a value, with their types.
fn stored(value: &ValueColumn) -> Vec<(String, ColumnType)> {
    let mut columns = vec![(identifier(value.name), value.column_type)];
    if let Merge::Latest { by } = value.merge {
        let part = |suffix: &str| identifier(&format!("{}{suffix}", value.name));
        columns.push((part("_by"), by));
        columns.push((part("_partition"), ColumnType::Bigint));
        columns.push((part("_position"), ColumnType::Bigint));
    }
    columns
}

/// The stored columns of a value as the versions `v` of all partitions merge to.
fn merged(value: &ValueColumn) -> Vec<(String, String)> {
    let name = identifier(value.name);
    let column = format!("v.{name}");
    let first = |column: &str, column_type: ColumnType, order: &str, there: &str| {
        // A list of lists has no lists as elements.
        let (as_text, back) = match column_type {
            ColumnType::TextArray => ("::text", "::text[]"),
            _ => ("", ""),
        };
        format!(
            "((array_agg({column}{as_text}{order}) FILTER (WHERE {there} IS NOT NULL))[1]){back}"
        )
    };
    let one = |order: &str| first(&column, value.column_type, order, &column);
    let merged = match value.merge {
        // Only one stream, and so one partition, gives values.
        Merge::Set => one(""),
        Merge::Add => format!("sum({column})::{}", value.column_type.sql()),
        Merge::Min => one(&format!(" ORDER BY {column}")),
        Merge::Max => one(&format!(" ORDER BY {column} DESC")),
        Merge::Latest { .. } => {
            let part =
                |suffix: &str| format!("v.{}", identifier(&format!("{}{suffix}", value.name)));
            let [by, partition, position] = ["_by", "_partition", "_position"].map(part);
            let order = format!(" ORDER BY {by} DESC, {partition} DESC, {position} DESC");
            let columns = stored(value).into_iter();
            return columns
                .map(|(name, column_type)| {
                    let merged = first(&format!("v.{name}"), column_type, &order, &by);
                    (name, merged)
                })
                .collect();
        }
    };
    vec![(name, merged)]
}

/// Every version of a view's rows.
fn history(
    model: &Model,
    table_of: &dyn Fn(&str) -> &'static Table,
    physical_of: &dyn Fn(&str) -> String,
) -> String {
    let table = table_of(model.name);
    let keys = key_columns(table);
    let names = names_of(&keys);
    let row_of = |row: &str| {
        let names = keys
            .iter()
            .map(|key| format!("{row}.{}", identifier(&key.name)));
        names.collect::<Vec<_>>().join(", ")
    };
    let [partition, at, position] = [PARTITION, AT, POSITION].map(identifier);
    let place = |row: &str| format!("{row}.{at}, {row}.{partition}, {row}.{position}");
    let versions = |name: &str| qualified_table(&versions_of(&physical_of(name)));
    // A row of the view changes with its own row and with those that it joins.
    let mut moments = vec![format!(
        "SELECT {}, {} FROM {} AS r",
        row_of("r"),
        place("r"),
        versions(model.name)
    )];
    for alias in aliases(model.joins) {
        moments.push(format!(
            "SELECT {}, {} FROM {} AS r {} WHERE {alias}.{at} IS NOT NULL",
            row_of("r"),
            place(alias),
            versions(model.name),
            joined(model.joins, &versions),
        ));
    }
    let moments = moments.join(" UNION ALL ");
    let each = format!(
        "SELECT DISTINCT ON ({names}, {at}) * FROM ({moments}) AS m \
         ORDER BY {names}, {at}, {partition} DESC, {position} DESC"
    );
    let next = |column: &str| format!("lead({column}) OVER of_row");
    let moments = format!(
        "SELECT {names}, {at} AS version_from, {} AS version_until, \
             {partition} AS version_partition, {position} AS version_position, \
             {} AS version_ended_partition, {} AS version_ended_position \
         FROM ({each}) AS m WINDOW of_row AS (PARTITION BY {names} ORDER BY {at})",
        next(&at),
        next(&partition),
        next(&position),
    );
    let source = |name: &str| {
        let (table, physical) = (table_of(name), physical_of(name));
        table_as_of(table, &physical, Moment::OfVersion, Scan::OfNamed)
    };
    let same = keys.iter().map(|key| identifier(&key.name));
    let same = same.map(|name| format!("q.{name} = m.{name}"));
    let same = same.collect::<Vec<_>>().join(" AND ");
    let sources = |name: &str| match name == model.name {
        true => format!(
            "({moments}) AS m CROSS JOIN LATERAL (SELECT q.* FROM ({}) AS q WHERE {same})",
            source(name)
        ),
        false => format!("LATERAL ({})", source(name)),
    };
    let further = ",\n    m.version_from, m.version_until, m.version_partition, m.version_position, \
                   m.version_ended_partition, m.version_ended_position";
    select_of(model, further, &sources)
}

/// The names that joined tables have in a view.
fn aliases(joins: &str) -> Vec<&str> {
    let joined = joined_tables(joins).into_iter();
    joined.map(|(_, alias)| alias).collect()
}

/// The tables that a view joins, each with its name there.
pub(crate) fn joined_tables(joins: &str) -> Vec<(&str, &str)> {
    let behind = joins.split('{').skip(1);
    let joined = behind.filter_map(|text| {
        let (table, text) = text.split_once('}')?;
        let mut words = text.split_whitespace();
        let alias = match words.next()? {
            word if word.eq_ignore_ascii_case("as") => words.next()?,
            word => word,
        };
        Some((table, alias))
    });
    joined.collect()
}
