//! Every intent counts: commands that differ only in their ids, sent in one burst, from the doors
//! to the read models.
//!
//! Invariant tested: an intent is its command id. The first command wins, and every other client
//! that asked for the same is told so. No command that changed nothing is answered as accepted.

use std::collections::BTreeMap;

use event_log::commit::Commit;
use event_log::record::{NewRecord, Record};
use futures::future::join_all;
use kernel::Timestamp;
use position::{Offset, Partition};
use serde_json::{Value, json};
use tests::harness::case;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::Stack;

use crate::history::Scribe;
use crate::query_door::Served;
use crate::raw_log::{RawLog, read_all};
use crate::write_side::{place, request};

/// How many workers send the same command.
const WORKERS: usize = 16;

fn line(stream: &str, command: &str, id: &str, data: &Value) -> String {
    json!({"stream": stream, "command": command, "id": id, "data": data}).to_string()
}

/// A payment, and five refunds of the same amount without a business time.
fn same_moment() -> Vec<String> {
    if let Some(file) = case("same-moment.ndjson") {
        let text = std::fs::read_to_string(file).unwrap();
        return text.lines().map(str::to_owned).collect();
    }
    let real = |minor: i64| json!({"amount_minor": minor, "currency": "BRL"});
    let capture = json!({
        "order": "same", "method": "boleto", "instalments": 1, "amount": real(1_000),
    });
    let refund = json!({"amount": real(10)});
    let refunds = ["r1", "r2", "r3", "r4", "r5"];
    let refunds = refunds.map(|id| line("payment-same-1", "RefundPayment", id, &refund));
    let captured = line("payment-same-1", "CapturePayment", "c", &capture);
    [captured].into_iter().chain(refunds).collect()
}

/// All commits of the log, by partition, in order.
async fn commits(log: &NewLog) -> Vec<Vec<Commit>> {
    let mut partitions = Vec::new();
    for partition in (0..log.log.partition_count()).map(Partition) {
        let records = read_all(&*log.log, partition).await;
        let commits = records.iter().filter_map(|record| {
            let (key, value) = (record.key.as_ref()?, record.value.as_ref()?);
            Some(Commit::read(key, value).unwrap())
        });
        partitions.push(commits.collect());
    }
    partitions
}

async fn assert_recorded_one_after_the_other(log: &NewLog) {
    for commits in commits(log).await {
        for pair in commits.windows(2) {
            assert!(pair[0].recorded_at < pair[1].recorded_at);
        }
    }
}

async fn on_both_logs(test: impl AsyncFn(&Stack)) {
    let postgres = Postgres::start();
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let stack = Stack::start(kind, postgres.create_database().await, 4).await;
        test(&stack).await;
        assert_recorded_one_after_the_other(&stack.log).await;
        let log = stack.stop().await;
        let shop = crate::write_side::shop();
        let report = event_log::verify::verify(&*log.log, &shop, &[], |_, _| {});
        assert!(report.await.unwrap().is_clean());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_refunds_of_one_moment_are_five() {
    on_both_logs(async |stack| {
        let lines = same_moment();
        let answers = stack.send(lines.clone()).await;
        assert_eq!(answers, [("200".to_owned(), 6)].into());
        stack.caught_up().await;
        let refunded = "SELECT refunded_minor FROM read.payment_mix WHERE method = 'boleto'";
        let refunded_minor = async || -> i64 {
            let query = sqlx::query_scalar(refunded);
            query.fetch_one(&stack.pool).await.unwrap()
        };
        assert_eq!(refunded_minor().await, 50);
        // The same ids are the same intents.
        assert_eq!(stack.send(lines).await, answers);
        stack.caught_up().await;
        assert_eq!(refunded_minor().await, 50);
        let events = commits(&stack.log).await.into_iter().flatten();
        let events: Vec<usize> = events.map(|commit| commit.events.len()).collect();
        assert_eq!(events, [1; 6]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_changed_forth_and_back_in_one_moment_ends_as_the_last_one() {
    on_both_logs(async |stack| {
        let address = |city: &str| json!({"city": city, "state": "PR", "postcode_prefix": "1"});
        let mut lines = vec![line("customer-1", "RegisterCustomer", "r", &address("old"))];
        for (id, city) in [("a", "new"), ("b", "old"), ("c", "new"), ("d", "old")] {
            lines.push(line("customer-1", "CorrectAddress", id, &address(city)));
        }
        let answers = stack.send(lines).await;
        assert_eq!(answers, [("200".to_owned(), 5)].into());
        stack.caught_up().await;
        let (city, version): (String, i64) = sqlx::query_as(
            "SELECT city, version FROM read.customer_orders \
             JOIN read.stream_index ON stream = 'customer-' || customer_id",
        )
        .fetch_one(&stack.pool)
        .await
        .unwrap();
        assert_eq!((city.as_str(), version), ("old", 5));
    })
    .await;
}

/// Sends a single command; returns its status or code, and the number of its events.
async fn send_one(stack: &Stack, stream: &str, command: &str, id: &str) -> (String, usize) {
    let response = reqwest::Client::new()
        .post(format!("{}/v1/streams/{stream}/{command}", stack.url))
        .header("Idempotency-Key", id)
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16().to_string();
    let answer: Value = response.json().await.unwrap();
    let events = answer["events"].as_array().map_or(0, Vec::len);
    let code = answer["code"].as_str().map(str::to_owned);
    (code.unwrap_or(status), events)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixteen_workers_that_ship_one_order_one_does() {
    on_both_logs(async |stack| {
        let mut lines = Vec::new();
        let orders: Vec<String> = (0..8).map(|number| format!("order-{number}")).collect();
        for order in &orders {
            lines.push(line(order, "PlaceOrder", "p", &place()));
            lines.push(line(order, "ApproveOrder", "a", &json!({})));
        }
        stack.send(lines).await;
        for order in &orders {
            let ids = (0..WORKERS).map(|worker| format!("ship-{worker}"));
            let workers = ids.map(async |id| send_one(stack, order, "ShipOrder", &id).await);
            let mut outcomes = BTreeMap::new();
            for outcome in join_all(workers).await {
                *outcomes.entry(outcome).or_insert(0) += 1;
            }
            let refused = ("order_already_shipped".to_owned(), 0);
            let expected = [(("200".to_owned(), 1), 1), (refused, WORKERS - 1)];
            assert_eq!(outcomes, expected.into(), "{order}");
        }
        stack.caught_up().await;
        let refusals: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM read.rejections WHERE code = 'order_already_shipped'",
        )
        .fetch_one(&stack.pool)
        .await
        .unwrap();
        assert_eq!(refusals, 8 * (WORKERS as i64 - 1));
    })
    .await;
}

fn new(record: Record) -> NewRecord {
    let Record {
        key,
        value,
        headers,
        ..
    } = record;
    NewRecord {
        key,
        value,
        headers,
    }
}

/// A log whose last commit was recorded with a clock that was far ahead.
async fn log_that_is_ahead(kind: Kind, until: Timestamp) -> NewLog {
    let log = NewLog::make(kind, 1).await;
    let chunk = log.log.read(Partition(0), Offset(0)).await.unwrap();
    let records: Vec<_> = chunk.records.into_iter().map(new).collect();
    let mut scribe = Scribe::behind(&records);
    let value = scribe.value("order-ahead", 0);
    let mut commit: Commit = serde_json::from_slice(&value).unwrap();
    commit.recorded_at = until;
    commit.events.clear();
    let value = commit.to_value().unwrap();
    let record = scribe.record_of("main/order-ahead", value, |_| {});
    RawLog::of(&log).write(Partition(0), &[record]).await;
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_log_that_is_ahead_events_occur_at_the_time_of_the_clock() {
    let until: Timestamp = "2099-01-01T00:00:00Z".parse().unwrap();
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let served = Served::over(log_that_is_ahead(kind, until).await).await;
        let mut by_the_clock = request("order-1", "PlaceOrder", "a", &place());
        by_the_clock.occurred_at = None;
        let placed = served.submit(by_the_clock.clone()).await;
        let found = commits(&served.log).await.remove(0).pop().unwrap();
        assert_eq!(found.recorded_at.micros(), until.micros() + 1);
        assert_eq!(found.command.occurred_at, None);
        let happened_at = found.occurred_at(&found.events[0]);
        assert!(happened_at < until);
        let position = format!("min_position={}", placed.position);
        let ask = async |path: &str| served.ok(&format!("{path}?{position}")).await;
        let events = ask("/v1/streams/order-1/events").await;
        assert_eq!(events["events"][0]["occurred_at"], json!(happened_at));
        assert_eq!(events["events"][0]["recorded_at"], json!(found.recorded_at));
        let state = ask("/v1/streams/order-1/state").await;
        assert_eq!(state["state"]["placed"]["at"], json!(happened_at));
        let row = ask("/v1/read/order_summary/1").await;
        assert_eq!(row["placed_at"], json!(happened_at));
        // A node that folds the log again knows the same time, and that no client gave it.
        let Served { engine, log, .. } = served;
        engine.drain(std::time::Duration::from_secs(10)).await;
        drop(engine);
        std::fs::remove_dir_all(log.store()).unwrap();
        let served = Served::over(log).await;
        let mut alike = request("order-1", "PlaceOrder", "b", &place());
        alike.occurred_at = Some(happened_at);
        let alike = served.submit(alike).await;
        assert_eq!((alike.version, alike.repeated), (1, false));
        assert_eq!(served.submit(by_the_clock).await.position, placed.position);
    }
}
