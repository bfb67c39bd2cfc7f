//! Declarations that only Postgres can judge: what it refuses is named, and never looks as if Postgres
//! were away.

use std::sync::Arc;

use projector::ColumnType::{Bigint, Boolean, Text};
use projector::{
    KeyColumn, Projection, Projector, Rules, RuntimeError, Table, TaskState, ValueColumn, View,
    computed, key, set, try_declarations,
};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::NOW;

use super::{database, scalar, until};
use crate::write_side::start;

const KEY: &[KeyColumn] = &[key("id", Text, "An id.")];
const VALUES: &[ValueColumn] = &[set("number", Bigint, "A number.")];

const fn table(name: &'static str, view: View) -> Table {
    Table {
        name,
        about: "A sample.",
        key: KEY,
        values: VALUES,
        view,
        ..Table::PLAIN
    }
}

const COLUMNS: View = View {
    computed: &[
        computed("twice", Bigint, "r.number * 2", "Twice the number."),
        computed("typo", Bigint, "r.nmber * 2", "A misspelt column."),
        computed("is_even", Bigint, "r.number % 2 = 0", "Has another type."),
    ],
    ..View::WHOLE
};
const TYPES: View = View {
    computed: &[
        computed(
            "is_even",
            Boolean,
            "r.number % 2 = 0",
            "Whether it is even.",
        ),
        computed("shown", Bigint, "r.number::text", "Has another type."),
    ],
    ..View::WHOLE
};
const FILTER: View = View {
    filter: Some("r.number IS NOT NUL"),
    ..View::WHOLE
};
const JOINS: View = View {
    joins: "LEFT JOIN {columns} AS c ON c.idd = r.id",
    ..View::WHOLE
};

const WRONG: &[Table] = &[
    table("columns", COLUMNS),
    table("types", TYPES),
    table("filter", FILTER),
    table("joins", JOINS),
];

fn projections(tables: &'static [Table]) -> Vec<Arc<dyn Projection>> {
    vec![Arc::new(Rules::new("sample", 1, tables))]
}

#[tokio::test]
async fn what_postgres_refuses_is_named_with_its_table_and_column() {
    let postgres = Postgres::start();
    let bare = postgres.create_database().await;
    // Nothing can be tried before the schema is there.
    try_declarations(&bare, &projections(WRONG)).await.unwrap();
    let url = database(&postgres).await;
    let models = tests::harness::stack::read_models();
    try_declarations(&url, &models).await.unwrap();
    let error = try_declarations(&url, &projections(WRONG)).await;
    let Err(RuntimeError::Declared(faults)) = error else {
        panic!("{error:?}");
    };
    let faults: Vec<(Option<&str>, Option<&str>, &str)> = faults
        .0
        .iter()
        .map(|fault| (fault.table, fault.column, fault.reason.as_str()))
        .collect();
    let expected = [
        (
            Some("columns"),
            Some("typo"),
            "Postgres says: column r.nmber does not exist",
        ),
        (
            Some("columns"),
            Some("is_even"),
            "it is declared as bigint, and its SQL is boolean",
        ),
        (
            Some("types"),
            Some("shown"),
            "it is declared as bigint, and its SQL is text",
        ),
        (
            Some("filter"),
            None,
            "Postgres says: syntax error at or near \"NUL\"",
        ),
        (
            Some("joins"),
            None,
            "Postgres says: column c.idd does not exist",
        ),
    ];
    assert_eq!(faults, expected);
    let left = "SELECT count(*) FROM pg_class WHERE relnamespace \
                IN ('read'::regnamespace, 'projection'::regnamespace)";
    assert_eq!(scalar::<i64>(&url, left).await, 0, "nothing stays");
}

#[tokio::test]
async fn a_projector_says_what_is_declared_wrongly_and_does_not_try_again() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    drop(start(&log).await);
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let wrong = projections(WRONG);
    let projector = Projector::spawn(&log.log, &url, &wrong, 1).unwrap();
    until("it has stopped", async || {
        let status = projector.status().remove(0).state;
        assert!(!matches!(status, TaskState::Retrying(_)), "{status:?}");
        matches!(&status, TaskState::Stopped(reason) if reason.contains("column typo"))
    })
    .await;
    let rebuilt = projector::rebuild(&log.log, &url, &wrong, "sample", NOW, Box::new(|_| {}));
    assert!(matches!(rebuilt.await, Err(RuntimeError::Declared(_))));
    let error = projector.stop().await.unwrap_err();
    assert!(matches!(error, RuntimeError::Declared(_)), "{error}");
}
