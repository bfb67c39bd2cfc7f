//! Indexes: made with new tables, built last in a rebuild, and brought up to date on live tables
//! without a new version.

use std::sync::Arc;

use domain::Order;
use domain::order::OrderPlaced;
use projector::ColumnType::{Bigint, Text};
use projector::{
    Index, KeyColumn, Projection, Projector, Rules, Table, Value, ValueColumn, asc, desc, index,
    key, set,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tests::harness::logs::Kind;
use tests::harness::postgres::Postgres;
use tests::harness::stack::NOW;

use super::{database, execute, log_of, scalar, shop_history, until};

const KEY: &[KeyColumn] = &[key("order_id", Text, "The order.")];
const VALUES: &[ValueColumn] = &[
    set("items", Bigint, "How many items."),
    set("customer", Text, "The customer.").shortened(),
];
const BEFORE: &[Index] = &[index(&[asc("customer"), desc("items")])];
const AFTER: &[Index] = &[
    index(&[asc("customer"), desc("items")]),
    index(&[asc("items")]).over_all_tenants(),
];
const OTHER: &[Index] = &[index(&[desc("items")])];

const fn placed(indexes: &'static [Index]) -> Table {
    Table {
        name: "placed",
        about: "A sample.",
        key: KEY,
        values: VALUES,
        indexes,
        ..Table::PLAIN
    }
}

const TABLES: [&[Table]; 3] = [&[placed(BEFORE)], &[placed(AFTER)], &[placed(OTHER)]];

fn with(tables: &'static [Table]) -> Vec<Arc<dyn Projection>> {
    let rules = Rules::new("placed", 1, tables);
    vec![Arc::new(rules.on::<Order, OrderPlaced>(
        |placed, event, changes| {
            changes
                .row(&TABLES[0][0], [Value::from(event.stream_id())])
                .put("items", projector::count_of(placed.items.len()))
                .put("customer", placed.customer.as_str());
        },
    ))]
}

/// The columns of the finished indexes beside that of the key.
const COLUMNS: &str = "SELECT coalesce(string_agg(regexp_replace(pg_get_indexdef(indexrelid), \
    '.*\\((.*)\\)', '\\1'), ' | ' ORDER BY pg_get_indexdef(indexrelid, 1, true), \
    pg_get_indexdef(indexrelid)), '') FROM pg_index \
    JOIN pg_class AS t ON t.oid = indrelid WHERE t.relname LIKE 'placed_v%' AND t.relname NOT LIKE '%_history' \
    AND NOT indisprimary AND indisvalid";

async fn until_columns(url: &str, expected: &str) {
    until(expected, async || {
        scalar::<String>(url, COLUMNS).await == expected
    })
    .await;
}

#[tokio::test]
async fn indexes_follow_their_declarations_without_a_new_version() {
    let log = log_of(Kind::Sqlite, shop_history(2, 30)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let before = with(TABLES[0]);
    let caught_up = projector::catch_up(&log.log, &url, &before, Box::new(|_| {}));
    caught_up.await.unwrap();
    let first = "tenant, customer, items DESC";
    assert_eq!(scalar::<String>(&url, COLUMNS).await, first);

    // A declared index is made, and that of a user stays.
    execute(
        &url,
        "CREATE INDEX mine ON projection.placed_v1_g1 (customer)",
    )
    .await;
    let after = with(TABLES[1]);
    let projector = Projector::spawn(&log.log, &url, &after, 1).unwrap();
    until_columns(&url, &format!("customer | items | {first}")).await;
    projector.stop().await.unwrap();

    // An index that an interruption left unfinished is made again.
    let name = "SELECT i.relname::text FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid \
        WHERE i.relname LIKE 'ix_%' AND pg_get_indexdef(indexrelid, 1, true) = 'items'";
    let name = scalar::<String>(&url, name).await;
    execute(&url, &format!("DROP INDEX projection.{name}")).await;
    // Several orders have the same number of items.
    let unique =
        format!("CREATE UNIQUE INDEX CONCURRENTLY {name} ON projection.placed_v1_g1 (items)");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let unique = sqlx::raw_sql(AssertSqlSafe(unique));
    unique.execute(&mut connection).await.unwrap_err();
    let unfinished = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(scalar::<i64>(&url, unfinished).await, 1);
    let projector = Projector::spawn(&log.log, &url, &after, 1).unwrap();
    until_columns(&url, &format!("customer | items | {first}")).await;
    projector.stop().await.unwrap();

    // Those that are declared no more go away.
    let other = with(TABLES[2]);
    let projector = Projector::spawn(&log.log, &url, &other, 1).unwrap();
    until_columns(&url, "customer | tenant, items DESC").await;
    projector.stop().await.unwrap();

    // A rebuild makes them with the new table; what a user made on the old one is in its way.
    execute(&url, "DROP INDEX projection.mine").await;
    let rebuilt = projector::rebuild(&log.log, &url, &after, "placed", NOW, Box::new(|_| {}));
    rebuilt.await.unwrap();
    assert_eq!(
        scalar::<String>(&url, COLUMNS).await,
        format!("items | {first}")
    );
    assert_eq!(scalar::<i64>(&url, unfinished).await, 0);
}
