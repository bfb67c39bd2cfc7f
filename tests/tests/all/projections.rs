//! The read side on a real Postgres: every commit counts once, whatever the number of tasks, the
//! size of batches, and the time of the start.

mod as_of;
mod before_reads;
mod blue_green;
mod declared;
mod extremes;
mod faults;
mod full_disk;
mod indexes;
mod kept;
mod moments;
mod own_sql;
mod parked;
mod processes;
mod removals;
mod replays;
mod samples;
mod stops;
mod troubles;
pub(crate) mod types;
mod versions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Engine;
use engine::command::Request;
use event_log::log::EventLog;
use projector::{
    Changes, ColumnType, Entry, ProjectError, Projection, Projector, Table, Value, add, key,
    latest, max, min,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value as Json, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, places, read_models};

use crate::write_side::{request, start};

const WAIT: Duration = Duration::from_secs(30);
const MODELS: [&str; 11] = [
    "order_summary",
    "daily_sales",
    "seller_sales",
    "customer_orders",
    "payment_mix",
    "delivery_days",
    "rejections",
    "stream_index",
    "stream_commits",
    "commit_index",
    "commit_types",
];

fn at(request: Request, moment: &str) -> Request {
    Request {
        occurred_at: Some(moment.parse().unwrap()),
        ..request
    }
}

fn brl(amount: i64) -> Json {
    json!({"amount_minor": amount, "currency": "BRL"})
}

fn item(line: u32, seller: &str, price: i64, freight: i64) -> Json {
    json!({"line": line, "product": "p", "seller": seller, "price": brl(price),
           "freight": brl(freight)})
}

/// The commands of a shop: orders with their steps, payments, customers, and many commands that are
/// refused.
pub(crate) fn shop_history(seed: u64, orders: u32) -> Vec<Request> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut lines = Vec::new();
    for order in 0..orders {
        let stream = format!("order-{order}");
        let customer = format!("c{}", random.random_range(0..orders / 3 + 1));
        let moment = |hours: u32| {
            let day = 1 + (order + hours / 24) % 28;
            format!(
                "2018-{:02}-{day:02}T{:02}:30:00Z",
                1 + order % 12,
                hours % 24
            )
        };
        let mut push = |stream: &str, command: &str, hours: u32, data: Json| {
            let id = format!("{command}-{}", lines.len());
            lines.push(at(request(stream, command, &id, &data), &moment(hours)));
        };
        if random.random_bool(0.8) {
            let city = format!("city {}", random.random_range(0..5));
            let data = json!({"city": city, "state": "SP", "postcode_prefix": "01"});
            push(&format!("customer-{customer}"), "RegisterCustomer", 0, data);
        }
        let items: Vec<Json> = (0..random.random_range(0..4))
            .map(|line| {
                let seller = format!("s{}", random.random_range(0..7));
                item(
                    line + 1,
                    &seller,
                    random.random_range(1..5_000),
                    random.random_range(0..900),
                )
            })
            .collect();
        let place = json!({"customer": customer, "items": items,
                           "estimated_delivery": "2018-06-28T00:00:00Z"});
        push(&stream, "PlaceOrder", 0, place);
        for sequence in 0..random.random_range(0..3) {
            let method = ["credit_card", "boleto", "voucher"][random.random_range(0..3)];
            let data = json!({"order": order.to_string(), "method": method,
                              "instalments": random.random_range(0..12),
                              "amount": brl(random.random_range(0..9_000))});
            let payment = format!("payment-{order}-{sequence}");
            push(&payment, "CapturePayment", 1, data);
            if random.random_bool(0.2) {
                push(&payment, "RefundPayment", 30, json!({"amount": brl(10)}));
            }
        }
        for (hours, step) in [(2, "ApproveOrder"), (20, "ShipOrder"), (70, "DeliverOrder")] {
            if random.random_bool(0.85) {
                push(&stream, step, hours, json!({}));
            }
        }
        if random.random_bool(0.1) {
            push(
                &stream,
                "CancelOrder",
                90,
                json!({"reason": "changed my mind"}),
            );
        }
        if random.random_bool(0.5) {
            let data = json!({"review": format!("r{order}"), "score": random.random_range(1..6)});
            push(&stream, "ReviewOrder", 100, data);
        }
    }
    lines
}

pub(crate) async fn submit_all(engine: &Engine, lines: Vec<Request>) {
    let mut batch = engine.batch();
    let deadline = Instant::now() + WAIT;
    let mut pending = std::collections::VecDeque::new();
    for line in lines {
        pending.push_back(batch.submit(engine.prepare(line).unwrap(), deadline).await);
        if pending.len() > 500 {
            pending.pop_front().unwrap().await.unwrap();
        }
    }
    for answer in pending {
        answer.await.unwrap();
    }
}

pub(crate) async fn log_of(kind: Kind, lines: Vec<Request>) -> NewLog {
    let log = NewLog::make(kind, 4).await;
    fill(&log, lines).await;
    log
}

async fn fill(log: &NewLog, lines: Vec<Request>) {
    let engine = start(log).await;
    submit_all(&engine, lines).await;
    engine.drain(WAIT).await;
}

pub(crate) async fn database(postgres: &Postgres) -> String {
    let url = postgres.create_database().await;
    projector::migrate(&url).await.unwrap();
    url
}

pub(crate) async fn scalar<T>(url: &str, sql: &str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let mut connection = PgConnection::connect(url).await.unwrap();
    let row = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
    row.fetch_one(&mut connection).await.unwrap()
}

pub(crate) async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// All rows of some views, as text.
async fn rows_of(url: &str, views: &[&str]) -> Vec<String> {
    let mut rows = Vec::new();
    for view in views {
        let sql = format!(
            "SELECT coalesce(string_agg(r::text, E'\\n' ORDER BY r::text), '') FROM read.{view} AS r"
        );
        rows.push(format!("{view}\n{}", scalar::<String>(url, &sql).await));
    }
    rows
}

pub(crate) async fn caught_up(log: &Arc<dyn EventLog>, url: &str) {
    let all = read_models();
    projector::catch_up(log, url, &all, Box::new(|_| {}))
        .await
        .unwrap();
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !holds().await {
        assert!(
            Instant::now() < deadline,
            "did not become true in {WAIT:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn level(log: &NewLog, url: &str, projections: &[Arc<dyn Projection>]) -> bool {
    let places = places(&*log.log, url, projections).await.unwrap();
    places.iter().all(|place| place.gap == Some(0)) && places.len() >= projections.len()
}

#[tokio::test]
async fn the_rows_say_what_happened() {
    let orders = ["2018-01-31T23:59:59Z", "2018-02-01T00:00:00Z"];
    let mut lines = vec![
        at(
            request(
                "payment-1-1",
                "CapturePayment",
                "early",
                &json!({"order": "1",
            "method": "voucher", "instalments": 1, "amount": brl(300)}),
            ),
            orders[0],
        ),
        at(
            request(
                "payment-9-1",
                "CapturePayment",
                "unplaced",
                &json!({"order": "9",
            "method": "voucher", "instalments": 3, "amount": brl(50)}),
            ),
            orders[0],
        ),
        at(
            request(
                "customer-ann",
                "RegisterCustomer",
                "a",
                &json!({"city": "São Paulo",
            "state": "SP", "postcode_prefix": "01"}),
            ),
            orders[0],
        ),
        at(
            request(
                "customer-bob",
                "RegisterCustomer",
                "a",
                &json!({"city": "Rio",
            "state": "RJ", "postcode_prefix": "02"}),
            ),
            orders[0],
        ),
        at(
            request("order-3", "ShipOrder", "early", &json!({})),
            orders[0],
        ),
    ];
    for (order, placed_at) in [("1", orders[0]), ("2", orders[1])] {
        let data = json!({"customer": "ann", "estimated_delivery": "2018-02-03T00:00:00Z",
            "items": [item(1, "x", 1000, 10), item(2, "y", 200, 0), item(3, "x", 50, 5)]});
        lines.push(at(
            request(&format!("order-{order}"), "PlaceOrder", "p", &data),
            placed_at,
        ));
    }
    for (step, moment) in [
        ("ApproveOrder", "2018-02-01T01:00:00Z"),
        ("ShipOrder", "2018-02-01T02:00:00Z"),
        ("DeliverOrder", "2018-02-03T00:00:01Z"),
    ] {
        lines.push(at(request("order-1", step, step, &json!({})), moment));
    }
    lines.push(at(
        request(
            "payment-1-1",
            "RefundPayment",
            "r",
            &json!({"amount": brl(30)}),
        ),
        orders[1],
    ));
    lines.push(at(
        request(
            "order-1",
            "ReviewOrder",
            "r",
            &json!({"review": "r1", "score": 4}),
        ),
        orders[0],
    ));
    let log = log_of(Kind::Sqlite, lines).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    caught_up(&log.log, &url).await;

    let orders = "SELECT string_agg(concat_ws('|', order_id, customer_id, status, item_count, \
        items_minor, freight_minor, currency, captured_minor, refunded_minor, payment_count, \
        review_count, review_score_sum, version), ' ' ORDER BY order_id) FROM read.order_summary";
    assert_eq!(
        scalar::<String>(&url, orders).await,
        "1|ann|delivered|3|1250|15|BRL|300|30|1|1|4|5 2|ann|placed|3|1250|15|BRL|0|0|0|0|0|1"
    );
    let check = async |view: &str, expected: &str| {
        let columns = match view {
            "daily_sales" => "day, currency, orders, items, items_minor, freight_minor",
            "seller_sales" => "seller_id, currency, orders, items, items_minor, freight_minor",
            "customer_orders" => {
                "customer_id, city, state, orders, spent_minor, \
                                  (first_order_at AT TIME ZONE 'UTC')::date, \
                                  (last_order_at AT TIME ZONE 'UTC')::date"
            }
            "payment_mix" => {
                "method, currency, payments, captured_minor, refunded_minor, instalments_max"
            }
            "delivery_days" => "month, delivered, days_sum, late",
            "rejections" => "command_id, stream, command, code",
            _ => "stream, category, version, events",
        };
        let sql = format!(
            "SELECT string_agg(t, ' ' ORDER BY t) FROM \
             (SELECT concat_ws('|', {columns}) AS t FROM read.{view}) AS rows"
        );
        assert_eq!(scalar::<String>(&url, &sql).await, expected, "{view}");
    };
    check(
        "daily_sales",
        "2018-01-31|BRL|1|3|1250|15 2018-02-01|BRL|1|3|1250|15",
    )
    .await;
    check("seller_sales", "x|BRL|2|4|2100|30 y|BRL|2|2|400|0").await;
    let ann = "ann|São Paulo|SP|2|2530|2018-01-31|2018-02-01";
    check("customer_orders", &format!("{ann} bob|Rio|RJ|0|0")).await;
    check("payment_mix", "voucher|BRL|2|350|30|3").await;
    check("delivery_days", "2018-02-01|1|2|1").await;
    check("rejections", "early|order-3|ShipOrder|order_not_placed").await;
    check(
        "stream_index",
        "customer-ann|customer|1|1 customer-bob|customer|1|1 order-1|order|5|5 order-2|order|1|1 \
         order-3|order|0|0 payment-1-1|payment|2|2 payment-9-1|payment|1|1",
    )
    .await;
}

#[tokio::test]
async fn one_task_four_tasks_and_a_rebuild_give_the_same_rows() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let log = NewLog::make(kind, 4).await;
        let engine = start(&log).await;
        let postgres = Postgres::start();
        let (one, four) = (database(&postgres).await, database(&postgres).await);
        let all = read_models();
        // The projector runs while commands arrive, so that its batches have many sizes.
        let projector = Projector::spawn(&log.log, &four, &all, 4).unwrap();
        submit_all(&engine, shop_history(7, 400)).await;
        engine.drain(WAIT).await;

        caught_up(&log.log, &one).await;
        let expected = rows_of(&one, &MODELS).await;
        assert!(
            expected.iter().all(|rows| rows.lines().count() > 2),
            "{expected:?}"
        );
        until("four tasks have caught up", async || {
            level(&log, &four, &all).await
        })
        .await;
        assert_eq!(rows_of(&four, &MODELS).await, expected);
        projector.ready().unwrap();
        projector.stop().await.unwrap();

        for projection in &all {
            let name = projection.name();
            let rebuilt = projector::rebuild(&log.log, &one, &all, name, NOW, Box::new(|_| {}));
            assert_eq!(rebuilt.await.unwrap().generation, 2);
        }
        assert_eq!(rows_of(&one, &MODELS).await, expected);
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'projection'";
        assert_eq!(
            scalar::<i64>(&one, tables).await,
            20,
            "the old tables are gone: eight of twelve have versions beside them"
        );
    }
}

/// A projection with every merge rule over all orders, in ten rows.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) fails_at: Option<&'static str>,
}

const SAMPLE: &[Table] = &[Table {
    name: "sample",
    about: "A sample.",
    key: &[key("tenth", ColumnType::Bigint, "A tenth of the orders.")],
    values: &[
        add("total", "How many."),
        min("first", ColumnType::Text, "The first."),
        max("last_at", ColumnType::Timestamptz, "The last time."),
        latest(
            "latest",
            ColumnType::Text,
            ColumnType::Timestamptz,
            "The last.",
        ),
    ],
    ..Table::PLAIN
}];

impl Projection for Sample {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn tables(&self) -> &'static [Table] {
        SAMPLE
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        if entry.category() != "order" || entry.commit().events.is_empty() {
            return Ok(());
        }
        let stream = entry.commit().stream.as_str();
        assert_ne!(Some(stream), self.fails_at, "the sample cannot take this");
        let tenth = stream.bytes().map(i64::from).sum::<i64>() % 10;
        changes
            .row(&SAMPLE[0], [Value::from(tenth)])
            .put("total", 1_i64)
            .put("first", stream)
            .put("last_at", entry.commit().asked_at())
            .put_latest("latest", stream, entry.commit().asked_at());
        Ok(())
    }
}

#[tokio::test]
async fn merging_in_postgres_and_in_memory_is_the_same() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let (apart, at_once) = (database(&postgres).await, database(&postgres).await);
    let sample: Vec<Arc<dyn Projection>> = vec![Arc::new(Sample {
        name: "sample",
        version: 1,
        fails_at: None,
    })];
    let projector = Projector::spawn(&log.log, &apart, &sample, 4).unwrap();
    for lines in shop_history(5, 120).chunks(40) {
        submit_all(&engine, lines.to_vec()).await;
        until("it has caught up", async || {
            level(&log, &apart, &sample).await
        })
        .await;
    }
    projector.stop().await.unwrap();
    let caught_up = projector::catch_up(&log.log, &at_once, &sample, Box::new(|_| {}));
    caught_up.await.unwrap();
    let rows = rows_of(&apart, &["sample"]).await;
    assert_eq!(rows[0].lines().count(), 11, "{rows:?}");
    assert_eq!(rows, rows_of(&at_once, &["sample"]).await);
}

#[tokio::test]
async fn the_database_says_what_each_read_model_and_each_of_its_columns_is() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    drop(start(&log).await);
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    caught_up(&log.log, &url).await;
    let described = "SELECT string_agg(concat_ws('.', c.relname, a.attname), ', ') \
        FROM pg_class AS c LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 \
        WHERE c.relnamespace = 'read'::regnamespace AND NOT (\
            coalesce(col_description(c.oid, a.attnum), '') LIKE '_%.' \
            AND coalesce(obj_description(c.oid), '') LIKE '_%.')";
    assert_eq!(scalar::<Option<String>>(&url, described).await, None);
    let counted = "SELECT count(*) FROM pg_class WHERE relnamespace = 'read'::regnamespace";
    assert_eq!(scalar::<i64>(&url, counted).await, 11);
}

#[tokio::test]
async fn a_projection_that_comes_later_takes_up_everything_once() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let some = read_models()[..5].to_vec();
    submit_all(&engine, shop_history(1, 80)).await;
    let caught_up_some = projector::catch_up(&log.log, &url, &some, Box::new(|_| {}));
    caught_up_some.await.unwrap();
    submit_all(&engine, shop_history(2, 100)).await;
    caught_up(&log.log, &url).await;
    let fresh = database(&postgres).await;
    caught_up(&log.log, &fresh).await;
    assert_eq!(rows_of(&url, &MODELS).await, rows_of(&fresh, &MODELS).await);
}

#[tokio::test]
async fn migrations_are_applied_once_and_shown() {
    let postgres = Postgres::start();
    let url = postgres.create_database().await;
    let before = projector::migration_status(&url).await.unwrap();
    assert!(before.iter().all(|migration| !migration.applied));
    let after = projector::migrate(&url).await.unwrap();
    assert!(after.iter().all(|migration| migration.applied));
    assert_eq!(projector::migrate(&url).await.unwrap(), after);
}
