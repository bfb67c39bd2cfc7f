//! Which columns of tables stand behind a column of a read model.

use super::*;
use crate::declare::column_type::ColumnType::{Bigint, Text};
use crate::declare::model::{computed, sum_of};
use crate::declare::table::{View, add, key, set, tally};

const ORDERS: Table = Table {
    name: "orders",
    key: &[key("id", Text, "")],
    values: &[
        set("currency", Text, ""),
        tally("count", ""),
        add("total", ""),
    ],
    view: View {
        joins: "LEFT JOIN {payments} AS p ON p.tenant = r.tenant AND p.id = r.id \
                LEFT JOIN {notes} n ON n.id = r.id",
        computed: &[
            sum_of("open", "coalesce(r.total, 0) - coalesce(p.paid, 0)", ""),
            computed("notes", Bigint, "coalesce(n.count, 0)", ""),
        ],
        ..View::WHOLE
    },
    ..Table::PLAIN
};

#[test]
fn a_column_leads_to_the_columns_of_tables_that_it_shows() {
    let model = Model::of(&ORDERS);
    for (column, expected) in [
        ("id", Some(vec![])),
        ("currency", Some(vec!["orders.currency"])),
        ("count", Some(vec!["orders.count"])),
        ("total", Some(vec!["orders.total"])),
        ("open", Some(vec!["orders.total", "payments.paid"])),
        ("notes", Some(vec!["notes.count"])),
        (
            "too_large",
            Some(vec!["orders.total", "orders.total", "payments.paid"]),
        ),
        ("paid", None),
    ] {
        let found = why_columns(&model, column);
        let found = found.map(|columns| {
            let columns = columns.into_iter();
            columns
                .map(|(table, column)| format!("{table}.{column}"))
                .collect::<Vec<_>>()
        });
        let expected = expected.map(|columns| columns.into_iter().map(str::to_owned).collect());
        assert_eq!(found, expected, "{column}");
    }
}

#[test]
fn a_document_is_the_same_however_it_is_written() {
    let json = |text: &str| Cell::Value(Value::Jsonb(text.into()));
    assert!(is_same(
        &json(r#"{"a":1,"b":[]}"#),
        &json(r#"{"b": [], "a": 1}"#)
    ));
    assert!(!is_same(&json("{}"), &json("[]")));
    assert!(!is_same(&json("{}"), &Cell::Null));
}
