//! Keys and cursors, however odd: a page's cursor can be sent back, and what no row can have is
//! answered with 404.

use std::sync::Arc;

use domain::Order;
use domain::order::OrderCanceled;
use projector::ColumnType::{Bigint, Text};
use projector::{Projection, Rules, Table, Value, key, tally};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRng, TestRunner};
use reqwest::Url;
use serde_json::json;
use tests::harness::logs::{Kind, NewLog};

use super::{Served, ask};
use crate::write_side::{place, request};

const REASONS: Table = Table {
    name: "reasons",
    about: "Why orders were canceled, three times over.",
    key: &[
        key("reason", Text, "The reason."),
        key("length", Bigint, "The number of its characters."),
        key("again", Text, "The reason again."),
        key("reversed", Text, "The reason, last character first."),
    ],
    values: &[tally("orders", "How many orders.")],
    ..Table::PLAIN
};

fn reasons() -> Arc<dyn Projection> {
    let rules = Rules::new("reasons", 1, &[REASONS]);
    Arc::new(rules.on::<Order, OrderCanceled>(|canceled, _, changes| {
        let reason = canceled.reason.to_string();
        let reversed: String = reason.chars().rev().collect();
        let length = i64::try_from(reason.chars().count()).unwrap_or_default();
        let [text, again] = [(); 2].map(|()| Value::from(reason.as_str()));
        changes
            .row(
                &REASONS,
                [text, length.into(), again, Value::from(reversed.as_str())],
            )
            .put("orders", 1_i64);
    }))
}

/// Texts as people write them, and texts that take much room in some escaped form.
fn texts(count: usize) -> Vec<String> {
    let seed = std::env::var("ANNALS_TESTS_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1_u8);
    let rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let odd = prop_oneof![
        Just('"'),
        Just('\\'),
        Just('😀'),
        Just(','),
        Just('…'),
        Just('/')
    ];
    let text = prop_oneof![
        "\\PC{1,40}",
        (odd, 1..=1_000_usize).prop_map(|(odd, count)| String::from_iter(vec![odd; count])),
        "[a-f…]{500,1000}",
    ];
    let all = (0..count).map(|_| text.new_tree(&mut runner).unwrap().current());
    all.collect()
}

#[tokio::test]
async fn every_pages_cursor_can_be_sent_back() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let served = Served::showing(log, projector::with_general(vec![reasons()])).await;
    let mut last: Option<position::PositionToken> = None;
    let mut canceled = std::collections::BTreeSet::new();
    for (number, reason) in texts(40).into_iter().enumerate() {
        let stream = format!("order-{number}");
        served
            .submit(request(&stream, "PlaceOrder", "a", &place()))
            .await;
        let cancel = request(&stream, "CancelOrder", "b", &json!({"reason": reason}));
        // What the domain takes for no reason is refused as malformed.
        if served.engine.prepare(cancel.clone()).is_err() {
            continue;
        }
        let position = served.submit(cancel).await.position;
        canceled.insert(reason);
        last = Some(match last {
            Some(last) => last.merge(&position).unwrap(),
            None => position,
        });
    }
    let mut path = format!("/v1/read/reasons?limit=1&min_position={}", last.unwrap());
    let mut seen = Vec::new();
    loop {
        let page = served.ok(&path).await;
        let rows = page["rows"].as_array().unwrap();
        for row in rows {
            let key = [
                &row["reason"],
                &row["length"],
                &row["again"],
                &row["reversed"],
            ];
            seen.push(json!(key));
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/read/reasons?limit=1&after={next}");
    }
    let distinct: std::collections::BTreeSet<_> = seen.iter().map(ToString::to_string).collect();
    assert_eq!(
        (seen.len(), distinct.len()),
        (canceled.len(), canceled.len())
    );
    assert!(seen.len() > 30, "{} reasons", seen.len());
}

#[tokio::test]
async fn a_key_that_no_row_can_have_is_not_found() {
    let served = Served::start(Kind::Sqlite).await;
    let placed = served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let models = served.ok("/v1/read").await;
    let names = models["models"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|model| model["name"].as_str().unwrap()).collect();
    for name in &names {
        let path = format!("/v1/read/{name}?min_position={}", placed.position);
        served.ok(&path).await;
    }
    let odd = [
        "-262143-01-01,BRL",
        "-4713-11-23,BRL",
        "-4713-11-24,BRL",
        "0000-01-01",
        "+262142-12-31,BRL",
        "+262142-12-31",
        "2018-01-01",
        "9223372036854775807",
        "order-1,9223372036854775808",
        "order-1,-9223372036854775808",
        "order-1,+1",
        "order-1,01",
        "\u{1}",
        "\u{7f}",
        "%",
        ",",
        ",,",
        "a\0b",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
    ];
    let long = "x".repeat(6_000);
    let keys = odd
        .into_iter()
        .map(str::to_owned)
        .chain([long])
        .chain(texts(20));
    for key in keys {
        for model in &names {
            let mut url: Url = served.url.parse().unwrap();
            url.path_segments_mut()
                .unwrap()
                .extend(["v1", "read", model, &key]);
            let (status, body) = ask(served.client.get(url)).await;
            let code = &body["code"];
            assert_eq!(
                (status.as_u16(), code),
                (404, &json!("row_not_found")),
                "{model} {key:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_found_yet_says_how_to_wait_for_it() {
    let served = Served::start(Kind::Sqlite).await;
    let placed = served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let waits = format!("min_position={}", placed.position);
    served
        .ok(&format!("/v1/read/order_summary/1?{waits}"))
        .await;
    served
        .ok(&format!("/v1/streams/order-1/state?{waits}"))
        .await;
    for (path, waiting, advice) in [
        ("/v1/read/order_summary/2", false, true),
        ("/v1/read/order_summary/2", true, false),
        ("/v1/read/daily_sales/2018-02-30,BRL", false, false),
        ("/v1/streams/order-2/events", false, true),
        ("/v1/streams/order-2/events", true, false),
        ("/v1/streams/order-2/state", false, true),
        // No command can write to it.
        ("/v1/streams/nothing-2/state", false, false),
        ("/v1/streams/nothing-2/events", false, false),
    ] {
        let path = if waiting {
            format!("{path}?{waits}")
        } else {
            path.to_owned()
        };
        let (status, problem) = ask(served.get(&path)).await;
        let detail = problem["detail"].as_str().unwrap();
        let names = ["min_position", "Annals-Min-Position"];
        let gives = names.map(|name| detail.contains(name));
        assert_eq!(
            (status.as_u16(), gives),
            (404, [advice; 2]),
            "{path}: {detail}"
        );
    }
}
