//! Rows by key that many want at the same time: each gets its own row, as if it had asked alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::Order;
use domain::order::OrderPlaced;
use futures::StreamExt as _;
use projector::ColumnType::{Bigint, Date, Text};
use projector::{Projection, Rules, Table, Value, View, key, set};
use reqwest::StatusCode;
use serde_json::{Value as Json, json};
use sqlx::{AssertSqlSafe, Connection as _};
use tests::harness::logs::{Kind, NewLog};

use super::{Served, ask};
use crate::write_side::{place, request};

/// A key of several types.
const VISITS: Table = Table {
    name: "visits",
    about: "Who came when.",
    key: &[
        key("day", Date, "The day."),
        key("number", Bigint, "The number of the visit."),
        key("name", Text, "Who."),
    ],
    values: &[set("weight", Bigint, "A number.")],
    view: View::FEW_ROWS,
    ..Table::PLAIN
};

fn visits() -> Arc<dyn Projection> {
    let rules = Rules::new("visits", 1, &[VISITS]);
    Arc::new(rules.on::<Order, OrderPlaced>(|_, event, changes| {
        let number: i64 = event.stream_id().parse().unwrap_or_default();
        let day = event.occurred_at().to_utc().date_naive();
        let key = [day.into(), number.into(), Value::from(event.stream_id())];
        changes.row(&VISITS, key).put("weight", number);
    }))
}

const TENANTS: [&str; 3] = ["main", "acme", "other"];
/// How many rows of each tenant are wanted at once; half of them exist.
const WANTED: i64 = 200;

async fn served() -> (Served, sqlx::PgConnection) {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let served = Served::showing(log, projector::with_general(vec![visits()])).await;
    let placed = served
        .submit(request("order-0", "PlaceOrder", "a", &place()))
        .await;
    let token = placed.position;
    served
        .ok(&format!("/v1/read/visits?min_position={token}"))
        .await;
    let connection = sqlx::PgConnection::connect(&served.postgres_url).await;
    (served, connection.unwrap())
}

/// Adds rows with even numbers, whose weight tells the tenant.
async fn fill(connection: &mut sqlx::PgConnection, from: i64, to: i64) {
    let name = "SELECT 'projection.' || quote_ident(relname) FROM pg_class \
                WHERE relname LIKE 'visits%' AND relkind = 'r'";
    let table: String = sqlx::query_scalar(name)
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    for (place, tenant) in TENANTS.iter().enumerate() {
        let insert = format!(
            "INSERT INTO {table} (tenant, day, number, name, weight) SELECT '{tenant}', \
             date '2020-01-01' + (n % 3)::int, n, 'a,b ' || n, n * 10 + {place} \
             FROM generate_series({from}, {to}, 2) AS n"
        );
        let inserted = sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut *connection);
        inserted.await.unwrap();
    }
}

fn path(number: i64) -> String {
    let day = 1 + number % 3;
    format!("/v1/read/visits/2020-01-{day:02},{number},a%2Cb%20{number}")
}

/// Asks for all rows at once, and asserts that each request got its own.
async fn each_gets_its_own(served: &Served, from: i64) {
    let wanted = (from..from + WANTED).flat_map(|number| [0, 1, 2].map(|place| (number, place)));
    let asked = wanted.map(|(number, place)| async move {
        let request = served.get(&path(number));
        let answer = ask(request.header("Annals-Tenant", TENANTS[place])).await;
        (number, place, answer)
    });
    let mut answers = futures::stream::iter(asked).buffer_unordered(96);
    while let Some((number, place, (status, row))) = answers.next().await {
        let expected = match number % 2 {
            0 => (
                StatusCode::OK,
                &json!(number * 10 + i64::try_from(place).unwrap()),
            ),
            _ => (StatusCode::NOT_FOUND, &Json::Null),
        };
        assert_eq!(
            (status, &row["weight"]),
            expected,
            "{number} of {place}: {row}"
        );
    }
}

/// How many rows of the read model's table were read so far, through an index and otherwise.
async fn rows_read(connection: &mut sqlx::PgConnection) -> [i64; 2] {
    // The connections report what they did at the latest when they have been idle for a second.
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    let read = "SELECT idx_tup_fetch, seq_tup_read FROM pg_stat_user_tables \
                WHERE relname LIKE 'visits%'";
    let clear = sqlx::query("SELECT pg_stat_clear_snapshot()");
    clear.execute(&mut *connection).await.unwrap();
    let (indexed, other): (i64, i64) = sqlx::query_as(read).fetch_one(connection).await.unwrap();
    [indexed, other]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_many_that_ask_at_once_gets_its_own_row_and_no_plan_reads_a_whole_table() {
    let (served, mut connection) = served().await;
    // The statements are prepared while the table is empty but for one row.
    fill(&mut connection, 2, 2 + WANTED).await;
    each_gets_its_own(&served, 2).await;
    fill(&mut connection, 1_000, 200_000).await;
    let before = rows_read(&mut connection).await;
    each_gets_its_own(&served, 50_000).await;
    let read = rows_read(&mut connection).await;
    let [indexed, other] = [read[0] - before[0], read[1] - before[1]];
    // A statement for fewer rows than it has room for reads the last of them again.
    let most = 2 * WANTED * i64::try_from(TENANTS.len()).unwrap();
    println!("{indexed} rows by index, {other} otherwise, of at most {most}");
    assert!(
        indexed > 0 && indexed <= most && other == 0,
        "{indexed}, {other}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_go_away_take_no_answer_with_them() {
    let (served, mut connection) = served().await;
    fill(&mut connection, 2, 2 + WANTED).await;
    // Every request that reads for others may be given up.
    let mut kept = Vec::new();
    let mut gone = BTreeMap::new();
    for number in (2..2 + WANTED).step_by(2) {
        let asked = tokio::spawn(ask(served.get(&path(number))));
        match number % 4 {
            0 => kept.push((number, asked)),
            _ => drop(gone.insert(number, asked)),
        }
        if number % 8 == 6 {
            tokio::task::yield_now().await;
            gone.values().for_each(tokio::task::JoinHandle::abort);
        }
    }
    gone.values().for_each(tokio::task::JoinHandle::abort);
    for (number, asked) in kept {
        let (status, row) = asked.await.unwrap();
        assert_eq!(
            (status, &row["weight"]),
            (StatusCode::OK, &json!(number * 10))
        );
    }
}
