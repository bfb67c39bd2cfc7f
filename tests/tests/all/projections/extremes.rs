//! Whatever one client's accepted commands hold, everybody's read models go on: values at the
//! limits of the commands, up to the rows that Postgres stores.

use std::sync::Arc;

use engine::command::Request;
use projector::{
    Changes, ColumnType, Entry, ProjectError, Projection, Projector, Table, Value, key, set,
};
use serde_json::{Value as Json, json};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;

use super::{MODELS, brl, database, fill, level, rows_of, scalar, until};
use crate::write_side::request;

fn of(tenant: &str, request: Request) -> Request {
    let tenant = tenant.parse().unwrap();
    Request { tenant, ..request }
}

/// A payment of the tenant.
fn payment(tenant: &str, number: usize, amount: i64) -> Request {
    let data = json!({"order": "1", "method": "boleto", "instalments": 0, "amount": brl(amount)});
    let stream = format!("payment-{number}-1");
    of(tenant, request(&stream, "CapturePayment", "c", &data))
}

/// An order of the tenant, of one item.
fn order(tenant: &str, number: usize, amount: i64) -> Request {
    let data = json!({
        "customer": "c", "estimated_delivery": "2030-01-01T00:00:00Z",
        "items": [{"line": 1, "product": "p", "seller": "s", "price": brl(amount), "freight": brl(0)}],
    });
    let stream = format!("order-{number}");
    of(tenant, request(&stream, "PlaceOrder", "c", &data))
}

/// The rows of a view as text, without the places in the log.
async fn shown(url: &str, sql: &str) -> String {
    let sql = format!("SELECT coalesce(string_agg(v::text, '; '), '') FROM ({sql}) AS v");
    scalar::<String>(url, &sql).await
}

#[tokio::test]
async fn sums_beyond_64_bits_stop_nobody_and_are_flagged() {
    const COUNT: usize = 4_500;
    // 2^52 times 4,500 exceeds 2^64; the sum of one batch does not.
    let amount = 1_i64 << 52;
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let mut lines: Vec<Request> = (0..COUNT)
        .map(|number| payment("big", number, amount))
        .collect();
    lines.extend((0..COUNT).map(|number| order("big", number, amount)));
    lines.extend([order("main", 0, 5), payment("main", 0, 7)]);
    fill(&log, lines).await;
    let postgres = Postgres::start();
    let (url, rebuilt) = (database(&postgres).await, database(&postgres).await);
    let all = read_models();
    let projector = Projector::spawn(&log.log, &url, &all, 1).unwrap();
    until("it has caught up", async || level(&log, &url, &all).await).await;
    assert!(projector.ready().is_ok());
    projector.stop().await.unwrap();
    let caught_up = projector::catch_up(&log.log, &rebuilt, &all, Box::new(|_| {}));
    caught_up.await.unwrap();
    assert_eq!(
        rows_of(&url, &MODELS).await,
        rows_of(&rebuilt, &MODELS).await
    );

    let sales = "SELECT tenant, orders, items_minor, freight_minor, too_large FROM read.";
    for view in ["daily_sales", "seller_sales"] {
        let rows = shown(&url, &format!("{sales}{view} ORDER BY tenant")).await;
        assert_eq!(rows, "(big,4500,,0,items_minor); (main,1,5,0,)", "{view}");
    }
    let spent = "SELECT payments, captured_minor, too_large FROM read.payment_mix ORDER BY tenant";
    assert_eq!(shown(&url, spent).await, "(4500,,captured_minor); (1,7,)");
    let paid = "SELECT order_id, captured_minor, too_large FROM read.order_summary \
                WHERE order_id = '1' OR tenant = 'main' ORDER BY tenant";
    assert_eq!(shown(&url, paid).await, "(1,,captured_minor); (0,0,)");
    // The stored sum is exact.
    let kept = "SELECT captured_minor::text FROM projection.payment_mix_v1_g1 WHERE tenant = 'big'";
    let sum = i128::from(amount) * COUNT as i128;
    assert_eq!(scalar::<String>(&url, kept).await, sum.to_string());
}

/// The commands of a case; `None` if the folder of cases does not exist.
fn case(name: &str) -> Option<Vec<Json>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/cases/");
    let text = std::fs::read_to_string(format!("{path}{name}")).ok()?;
    Some(
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

#[tokio::test]
async fn the_orders_of_a_case_stop_nobody() {
    let Some(lines) = case("large-sums.ndjson") else {
        return;
    };
    let text = |line: &Json, name: &str| line[name].as_str().unwrap_or("main").to_owned();
    let lines: Vec<Request> = lines
        .iter()
        .map(|line| {
            let stream = text(line, "stream");
            let one = request(
                &stream,
                &text(line, "command"),
                &text(line, "id"),
                &line["data"],
            );
            of(&text(line, "tenant"), one)
        })
        .chain([order("main", 0, 5)])
        .collect();
    let log = NewLog::make(Kind::Sqlite, 1).await;
    fill(&log, lines).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let models = read_models();
    let caught_up = projector::catch_up(&log.log, &url, &models, Box::new(|_| {}));
    caught_up.await.unwrap();
    let sales = "SELECT items_minor FROM read.daily_sales WHERE tenant = 'main'";
    assert_eq!(scalar::<i64>(&url, sales).await, 5);
}

/// A projection with texts in and beside its keys; the stream's id gives their length.
struct Texts;

const TEXTS: &[Table] = &[Table {
    name: "texts",
    about: "A sample.",
    key: &[
        key("a", ColumnType::Text, "A text."),
        key("b", ColumnType::Text, "A text."),
        key("c", ColumnType::Text, "A text."),
    ],
    values: &[set("text", ColumnType::Text, "A text.")],
    ..Table::PLAIN
}];

impl Projection for Texts {
    fn name(&self) -> &'static str {
        "texts"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        TEXTS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        // The length is the stream's id. The text begins with U+0000 and can hardly be compressed.
        let length: u32 = entry.stream_id().parse().expect("a number");
        let text: String = (0..length)
            .filter_map(|n| char::from_u32(n * 7_919 % 55_000))
            .collect();
        let keys = ["", "b", "c"].map(|one| Value::from(format!("{text}{one}").as_str()));
        changes.row(&TEXTS[0], keys).put("text", text.as_str());
        Ok(())
    }
}

#[tokio::test]
async fn texts_that_postgres_cannot_keep_or_index_stop_nobody() {
    let lines = [1, 200, 600, 900, 3_000, 40_000].map(|length| {
        let data = json!({"city": "c", "state": "s", "postcode_prefix": "1"});
        request(
            &format!("customer-{length}"),
            "RegisterCustomer",
            "c",
            &data,
        )
    });
    let log = NewLog::make(Kind::Sqlite, 1).await;
    fill(&log, lines.to_vec()).await;
    let postgres = Postgres::start();
    let (live, copied) = (database(&postgres).await, database(&postgres).await);
    let texts: Vec<Arc<dyn Projection>> = vec![Arc::new(Texts)];
    let projector = Projector::spawn(&log.log, &live, &texts, 1).unwrap();
    until("it has caught up", async || {
        level(&log, &live, &texts).await
    })
    .await;
    projector.stop().await.unwrap();
    let caught_up = projector::catch_up(&log.log, &copied, &texts, Box::new(|_| {}));
    caught_up.await.unwrap();
    assert_eq!(
        rows_of(&live, &["texts"]).await,
        rows_of(&copied, &["texts"]).await
    );
    let longest =
        "SELECT max(length(text)) > 2704 AND bool_and(octet_length(a) < 600) FROM read.texts";
    assert!(scalar::<bool>(&live, longest).await);
}
