//! Every fault of a declaration is named.

use super::*;
use crate::declare::model::computed;
use crate::declare::rules::Rules;
use crate::declare::table::{
    KeyColumn, View, add, asc, desc, index, key, latest, max, min, set, tally,
};
use crate::models::general::with_general;

fn faults(tables: &'static [Table]) -> Vec<String> {
    let projection: Arc<dyn Projection> = Arc::new(Rules::new("sample", 1, tables));
    match check_declarations(&[projection]) {
        Ok(()) => Vec::new(),
        Err(faults) => faults.0.iter().map(ToString::to_string).collect(),
    }
}

const KEY: &[KeyColumn] = &[key("id", ColumnType::Text, "An id.")];
const ABOUT: &str = "A sample.";

#[test]
fn the_general_read_models_are_declared_well() {
    assert_eq!(check_declarations(&with_general(vec![])), Ok(()));
}

#[test]
fn all_faults_are_listed_at_once() {
    const WRONG: &[Table] = &[
        Table {
            name: "a",
            about: " ",
            key: KEY,
            values: &[
                ValueColumn {
                    column_type: ColumnType::Double,
                    ..add("sum", ABOUT)
                },
                ValueColumn {
                    column_type: ColumnType::Jsonb,
                    ..min("least", ColumnType::Text, ABOUT)
                },
                ValueColumn {
                    merge: Merge::Latest {
                        by: ColumnType::Jsonb,
                    },
                    ..set("last", ColumnType::Text, ABOUT)
                },
                set("whole", ColumnType::Numeric, ABOUT),
                ValueColumn {
                    empty: Empty::Zero,
                    ..set("none", ColumnType::Text, ABOUT)
                },
                set("id", ColumnType::Text, ABOUT),
                set("tenant", ColumnType::Text, ABOUT),
                set("last_by", ColumnType::Text, ""),
                set("Bad", ColumnType::Text, ABOUT),
            ],
            indexes: &[
                index(&[asc("gone"), desc("none"), asc("least")]),
                index(&[]),
            ],
            ..Table::PLAIN
        },
        Table {
            name: "b",
            about: ABOUT,
            key: &[KeyColumn {
                column_type: ColumnType::Double,
                ..key("id", ColumnType::Text, ABOUT)
            }],
            values: &[set("of_stream", ColumnType::Text, ABOUT)],
            rows: RowsOf::OneStream,
            view: View {
                joins: "LEFT JOIN {c} AS c ON true",
                computed: &[computed("id", ColumnType::Bigint, "1", ABOUT)],
                ..View::WHOLE
            },
            ..Table::PLAIN
        },
        Table {
            name: "b",
            about: ABOUT,
            values: &[tally("number", ABOUT)],
            view: View {
                filter: Some("true"),
                ..View::NONE
            },
            ..Table::PLAIN
        },
    ];
    let expected = [
        "table a: it has no description",
        "table a, column sum: a sum cannot have the type double precision",
        "table a, column least: a least value cannot have the type jsonb",
        "table a, column last: a by-value cannot have the type jsonb",
        "table a, column whole: numeric is for sums; use Decimal",
        "table a, column none: there is no zero of the type text",
        "table a, column id: the table has another column of this name",
        "table a, column tenant: the tenant has this name",
        "table a, column last_by: it has no description",
        "table a, column last_by: what a latest column keeps of its own has this name",
        "table a, column Bad: its name may have a-z, 0-9 and _ only",
        "table a, column gone: an index names it, and it does not exist",
        "table a, column none: long texts do not fit into an index: declare it as shortened()",
        "table a, column least: an index cannot have the type jsonb",
        "table a: one of its indexes has no columns",
        "table b, column id: a key cannot have the type double precision",
        "table b, column of_stream: the stream that a row belongs to has this name",
        "table b, column id: the table has another column of this name",
        "table b: its joins name c, which is no table of the projection",
        "table b: the projection sample has a table of the same name",
        "table b: it has no key",
        "table b: it has no view, and the declaration of one",
    ];
    let expected: Vec<String> = expected
        .iter()
        .map(|fault| format!("projection sample, {fault}"))
        .collect();
    assert_eq!(faults(WRONG), expected);
}

#[test]
fn names_belong_to_one_projection_and_one_table() {
    const ONE: &[Table] = &[Table {
        name: "one",
        about: ABOUT,
        key: KEY,
        values: &[latest("last", ColumnType::Uuid, ColumnType::Boolean, ABOUT)],
        indexes: &[index(&[asc("id"), desc("last")]).over_all_tenants()],
        ..Table::PLAIN
    }];
    const OTHER: &[Table] = &[Table {
        name: "one",
        about: ABOUT,
        key: KEY,
        values: &[max("last", ColumnType::TextArray, ABOUT)],
        ..Table::PLAIN
    }];
    assert_eq!(faults(ONE), [""; 0]);
    let of = |name, version, tables| -> Arc<dyn Projection> {
        Arc::new(Rules::new(name, version, tables))
    };
    let all = [of("a", 1, ONE), of("a", 2, &[]), of("b", 0, OTHER)];
    let error = check_declarations(&all).unwrap_err().to_string();
    let expected = "the read models are declared wrongly:\n  \
        projection a: another projection has the same name\n  \
        projection b: its version must be a number from 1 on\n  \
        projection b, table one: the projection a has a table of the same name";
    assert_eq!(error, expected);
}
