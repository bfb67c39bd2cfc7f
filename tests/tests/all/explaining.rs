//! Why rows are what they are: what single events contributed is added up here, by rules of its own, to
//! the rows in Postgres.
//!
//! Deliberately absent: rows as of a moment, and what is refused (`query_door::why`).

use std::collections::BTreeMap;
use std::future::pending;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kernel::Timestamp;
use query_api::QueryDoor;
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use tests::harness::logs::NewLog;
use tests::harness::stack::{read_models, shop};
use tokio::net::TcpListener;

/// How many rows of each read model are explained.
const ROWS: i64 = 100;
/// How many rows are explained at once.
const AT_ONCE: usize = 4;

/// What contributions add up to: each column of each row of each table.
pub(crate) type Sums = BTreeMap<(String, String), Map<String, Value>>;

/// Whether a value comes before another one of its column.
fn is_less(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_i64() < other.as_i64(),
        (Value::String(one), Value::String(other)) => {
            let time = |text: &str| text.parse::<Timestamp>();
            match (time(one), time(other)) {
                (Ok(one), Ok(other)) => one < other,
                _ => one < other,
            }
        }
        _ => panic!("{one} and {other} have no order"),
    }
}

/// Adds contributions to what there is so far, and checks the values that are said to follow.
pub(crate) fn add_up(sums: &mut Sums, contributions: &Value) {
    for contribution in contributions.as_array().unwrap() {
        let text = |name: &str| contribution[name].as_str().unwrap().to_owned();
        let row = sums.entry((text("table"), text("key"))).or_default();
        if matches!(&*text("effect"), "removed" | "replaced" | "began") {
            row.clear();
        }
        for cell in contribution["cells"].as_array().unwrap() {
            let (column, given) = (cell["column"].as_str().unwrap(), &cell["given"]);
            let held = row.get(column).filter(|held| !held.is_null());
            let sum = match (cell["rule"].as_str().unwrap(), held) {
                ("set", _) | (_, None) => given.clone(),
                ("add", Some(held)) => {
                    let number = |value: &Value| i128::from(value.as_i64().unwrap());
                    json!(i64::try_from(number(held) + number(given)).unwrap())
                }
                ("min", Some(held)) if is_less(given, held) => given.clone(),
                ("max", Some(held)) if is_less(held, given) => given.clone(),
                ("min" | "max", Some(held)) => held.clone(),
                (rule, _) => panic!("no column of the shop has the rule {rule}"),
            };
            assert_eq!(sum, cell["value"], "the value that follows: {contribution}");
            row.insert(column.to_owned(), sum);
        }
    }
}

async fn get(url: &str) -> Value {
    let response = reqwest::get(url).await.unwrap();
    let status = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(status, 200, "{url}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// A text as a part of a path.
pub(crate) fn segment(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let part = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(part).collect()
}

/// All contributions to a row, page by page, added up; and how many there are.
async fn explained(url: &str, model: &str, key: &str) -> (Sums, usize) {
    let (mut sums, mut count, mut after) = (Sums::new(), 0, String::new());
    loop {
        let key = segment(key);
        let page = get(&format!(
            "{url}/v1/read/{model}/{key}/why?limit=1000{after}"
        ))
        .await;
        // In the middle of a search in the log, the row of that moment is not kept.
        let is_middle = page["source"] == "log" && !page["next"].is_null();
        if !is_middle {
            assert_eq!(
                page["adds_up"], true,
                "{model} {key}: {}",
                page["differences"]
            );
        }
        add_up(&mut sums, &page["contributions"]);
        count += page["contributions"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return (sums, count),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a value of Postgres is what was added up: nothing counts as null, 0 and false.
fn is_same(stored: &Value, sum: Option<&Value>) -> bool {
    let sum = sum.unwrap_or(&Value::Null);
    match (stored, sum) {
        (Value::Number(number), Value::Null) => number.as_i64() == Some(0),
        (Value::String(one), Value::String(other)) => {
            let time = |text: &str| text.parse::<Timestamp>().ok();
            one == other || (time(one).is_some() && time(one) == time(other))
        }
        (stored, sum) => stored == sum,
    }
}

/// Explains one row, and compares the sums with the row.
async fn row_adds_up(url: &str, model: &Value, row: &Value) -> usize {
    let name = model["name"].as_str().unwrap();
    let keys: Vec<&str> = model["key"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap())
        .collect();
    let key: Vec<String> = keys.iter().map(|key| plain(&row[*key])).collect();
    let key = key.join(",");
    let (sums, count) = explained(url, name, &key).await;
    let own = &sums[&(name.to_owned(), key.clone())];
    // The payments of an order stand in a table of their own, by currency.
    let joined = format!("{key},{}", plain(&row["currency"]));
    let joined = sums.get(&("order_payment".to_owned(), joined));
    for column in model["columns"].as_array().unwrap() {
        let column = column["name"].as_str().unwrap();
        if keys.contains(&column) || column == "too_large" {
            continue;
        }
        let is_joined = name == "order_summary"
            && ["captured_minor", "refunded_minor", "payment_count"].contains(&column);
        let sum = match is_joined {
            true => joined.and_then(|joined| joined.get(column)),
            false => own.get(column),
        };
        let stored = &row[column];
        assert!(
            is_same(stored, sum),
            "{column} of {name} {key}: {stored} is stored, the contributions give {sum:?}"
        );
    }
    count
}

/// A hundred rows of every read model are what their contributions add up to.
pub(crate) async fn rows_add_up(log: &NewLog, postgres_url: &str, pool: &PgPool) {
    let door = QueryDoor::new(&log.log, postgres_url, &read_models(), shop()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = door::finish(query_api::router(door));
    let server = tokio::spawn(door::serve(listener, routes, pending(), Duration::ZERO));
    let models = get(&format!("{url}/v1/read")).await;
    for model in models["models"].as_array().unwrap() {
        let name = model["name"].as_str().unwrap();
        let began = Instant::now();
        let select = format!(
            "SELECT to_jsonb(v)::text FROM read.\"{name}\" AS v WHERE tenant = 'main' \
             ORDER BY md5(v::text) LIMIT {ROWS}"
        );
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(select))
            .fetch_all(pool)
            .await
            .unwrap();
        let rows = rows.iter().map(|row| serde_json::from_str(row).unwrap());
        let rows: Vec<Value> = rows.collect();
        let counts = futures::stream::iter(&rows)
            .map(|row| row_adds_up(&url, model, row))
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<usize>>()
            .await;
        let count: usize = counts.iter().sum();
        println!(
            "{name}: {} rows are what {count} contributions add up to, asked in {:?}",
            rows.len(),
            began.elapsed()
        );
        assert!(
            !rows.is_empty() || name == "rejections",
            "{name} has no rows"
        );
    }
    server.abort();
}
