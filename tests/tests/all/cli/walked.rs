//! The real orders at every version and at random moments: the server, the commands and an independent
//! fold of the exported log agree.

use std::collections::BTreeMap;

use domain::{Customer, Order, Payment};
use kernel::{Decider, Message as _, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::program::{Server, assert_exit, call, folder, stderr, stdout, until};
use crate::main_job::{lines, real_orders};
use crate::query_door::life::applied;

/// Where the demo has its log.
const LOG: &str = "sqlite:.annals/demo/log.db";
/// How many commands of the real orders are sent to it.
const REAL_COMMANDS: usize = 4_000;
/// How many streams of each category are walked.
const STREAMS: usize = 12;

/// An event of the export: its type, shape and data, and both of its times.
struct Told {
    type_name: String,
    schema: u16,
    data: String,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
}

/// The events of each stream in an export.
fn streams(export: &str) -> BTreeMap<String, Vec<Told>> {
    let mut streams: BTreeMap<String, Vec<Told>> = BTreeMap::new();
    for line in export.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let commit = &line["commit"];
        let time = |value: &Value| {
            value
                .as_str()
                .map(|text| text.parse::<Timestamp>().unwrap())
        };
        let recorded_at = time(&commit["recorded_at"]).unwrap();
        let asked_at = time(&commit["command"]["occurred_at"]).unwrap_or(recorded_at);
        for event in commit["events"].as_array().into_iter().flatten() {
            let stream = commit["stream"].as_str().unwrap().to_owned();
            streams.entry(stream).or_default().push(Told {
                type_name: event["type"].as_str().unwrap().to_owned(),
                schema: u16::try_from(event["schema"].as_u64().unwrap()).unwrap(),
                data: event["data"].to_string(),
                occurred_at: time(&event["occurred_at"]).unwrap_or(asked_at),
                recorded_at,
            });
        }
    }
    streams
}

fn fold<D: Decider>(told: &[&Told]) -> Value {
    let mut state = D::State::default();
    for told in told {
        let event = D::Event::decode(&told.type_name, told.schema, &told.data).unwrap();
        D::evolve(&mut state, &event, told.occurred_at);
    }
    serde_json::to_value(state).unwrap()
}

fn folded<'t>(stream: &str, told: impl IntoIterator<Item = &'t Told>) -> Value {
    let told: Vec<_> = told.into_iter().collect();
    match stream.split('-').next().unwrap() {
        "customer" => fold::<Customer>(&told),
        "order" => fold::<Order>(&told),
        "payment" => fold::<Payment>(&told),
        other => panic!("an unknown category: {other}"),
    }
}

async fn get(server: &Server, path: &str) -> Value {
    let response = reqwest::get(format!("{}{path}", server.url)).await.unwrap();
    let status = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

async fn walk(server: &Server, stream: &str, told: &[Told], rng: &mut StdRng) {
    let path = format!("/v1/streams/{stream}");
    until("the index has all events of the stream", async || {
        let response = reqwest::get(format!("{}{path}", server.url)).await.unwrap();
        let summary: Value = response.json().await.unwrap();
        summary["version"].as_u64() == Some(told.len() as u64)
    })
    .await;
    for version in 0..=told.len() {
        let state = get(server, &format!("{path}/state?at_version={version}")).await;
        assert_eq!(
            state["state"],
            folded(stream, &told[..version]),
            "{stream} {version}"
        );
        let from = rng.random_range(0..=version);
        let diff = get(server, &format!("{path}/diff?from={from}&to={version}")).await;
        let before = folded(stream, &told[..from]);
        assert_eq!(
            applied(before, &diff["changes"]),
            state["state"],
            "{stream} {from} {version}"
        );
    }
    for (name, at) in [
        (
            "recorded",
            (|told| told.recorded_at) as fn(&Told) -> Timestamp,
        ),
        ("occurred", |told| told.occurred_at),
    ] {
        let first = told.iter().map(at).min().unwrap().micros();
        let last = told.iter().map(at).max().unwrap().micros();
        let micros = rng.random_range(first - 1..=last + 1);
        let time = Timestamp::from_micros(micros).unwrap();
        let state = get(server, &format!("{path}/state?at_time={time}&time={name}")).await;
        let folds: Vec<_> = told.iter().filter(|told| at(told) <= time).collect();
        let is_prefix = told.iter().take(folds.len()).all(|told| at(told) <= time);
        assert_eq!(state["hypothetical"], !is_prefix, "{stream} {name} {time}");
        assert_eq!(
            state["state"],
            folded(stream, folds),
            "{stream} {name} {time}"
        );
    }
}

#[tokio::test]
async fn real_orders_can_be_walked_through_and_every_step_is_right() {
    let seed = std::env::var("ANNALS_TESTS_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(22);
    println!("ANNALS_TESTS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = folder();
    let server = Server::start(folder.path(), &["demo"]);
    if let Some(real) = real_orders() {
        let some: Vec<String> = lines(&real).into_iter().take(REAL_COMMANDS).collect();
        std::fs::write(folder.path().join("real"), some.join("\n")).unwrap();
        let import = ["import", "commands", "real", "--url", &server.url];
        assert_exit(&call(folder.path(), &import), 0);
    }
    let dumped = call(folder.path(), &["log", "dump", "--accepted", "--log", LOG]);
    assert_exit(&dumped, 0);
    let streams = streams(&stdout(&dumped));
    let total: usize = streams.values().map(Vec::len).sum();
    println!("{} streams with {total} events", streams.len());
    for category in ["customer-", "order-", "payment-"] {
        let of_category = streams
            .iter()
            .filter(|(stream, _)| stream.starts_with(category));
        // Those with the longest lives.
        let mut longest: Vec<_> = of_category.collect();
        assert!(longest.len() >= STREAMS, "{category}");
        longest.sort_by_key(|(stream, told)| (std::cmp::Reverse(told.len()), *stream));
        for (stream, told) in longest.into_iter().take(STREAMS) {
            walk(&server, stream, told, &mut rng).await;
        }
    }
    say(&server, &streams, folder.path());
}

/// What the commands say of the longest order.
fn say(server: &Server, streams: &BTreeMap<String, Vec<Told>>, folder: &std::path::Path) {
    let orders = streams
        .iter()
        .filter(|(stream, _)| stream.starts_with("order-"));
    let (stream, told) = orders.max_by_key(|(_, told)| told.len()).unwrap();
    let run = |arguments: &[&str]| {
        let said = call(folder, &[arguments, &["--url", &server.url]].concat());
        assert_exit(&said, 0);
        said
    };
    let state = run(&["state", stream, "--at-version", "2", "--output", "json"]);
    let state: Value = serde_json::from_str(&stdout(&state)).unwrap();
    assert_eq!(state["state"], folded(stream, &told[..2]));
    let shown = run(&["state", stream, "--at-version", "0"]);
    assert_eq!(
        serde_json::from_str::<Value>(&stdout(&shown)).unwrap(),
        folded(stream, [])
    );
    assert!(
        stderr(&shown).contains("at version 0"),
        "{}",
        stderr(&shown)
    );
    let time = told[0].occurred_at.to_string();
    let shown = run(&[
        "state",
        stream,
        "--at-time",
        &time,
        "--time",
        "occurred",
        "--output",
        "csv",
    ]);
    assert!(
        stdout(&shown).starts_with("stream,version,state,recorded_at"),
        "{}",
        stdout(&shown)
    );
    let diff = run(&["diff", stream, "--from", "0", "--to", "1"]);
    assert!(
        stdout(&diff).contains("/placed") && stdout(&diff).contains("OrderPlaced"),
        "{}",
        stdout(&diff)
    );
    let changes = run(&["diff", stream, "--from", "1", "--output", "ndjson"]);
    for line in stdout(&changes).lines() {
        let change: Value = serde_json::from_str(line).unwrap();
        assert!(change["by"]["correlation_id"].is_string(), "{change}");
    }
    let summary = run(&["stream", stream, "--output", "json"]);
    let summary: Value = serde_json::from_str(&stdout(&summary)).unwrap();
    assert_eq!(summary["version"], told.len());
    let correlation = summary["last_event"]["correlation_id"].as_str().unwrap();
    let story = run(&["story", "--correlation", correlation, "--output", "json"]);
    let story: Value = serde_json::from_str(&stdout(&story)).unwrap();
    let commits = story["commits"].as_array().unwrap();
    assert!(
        commits
            .iter()
            .any(|commit| commit["stream"] == json!(stream)),
        "{story}"
    );
    let drawn = run(&["story", "--correlation", correlation]);
    assert!(stdout(&drawn).contains(&format!(
        "• {}",
        summary["last_event"]["type"].as_str().unwrap()
    )));
    let missing = call(
        folder,
        &["story", "--correlation", "nobody", "--url", &server.url],
    );
    assert_exit(&missing, 7);
    explain(server, folder, stream.strip_prefix("order-").unwrap());
}

/// What `annals why` says of an order, and of a day of many orders.
fn explain(server: &Server, folder: &std::path::Path, order: &str) {
    let why = |arguments: &[&str]| {
        let common = ["--url", &server.url];
        call(folder, &[&["why"], arguments, &common].concat())
    };
    let told = why(&["order_summary", order]);
    assert_exit(&told, 0);
    let (table, said) = (stdout(&told), stderr(&told));
    assert!(
        said.contains("the contributions add up to the stored row"),
        "{said}"
    );
    for shown in ["OrderPlaced", "PlaceOrder", "status", "placed"] {
        assert!(table.contains(shown), "{table}");
    }
    let told = why(&["order_summary", order, "status", "--output", "json"]);
    let told: Value = serde_json::from_str(&stdout(&told)).unwrap();
    assert_eq!(
        (&told["adds_up"], &told["next"]),
        (&json!(true), &Value::Null)
    );
    let contributions = told["contributions"].as_array().unwrap();
    let last = &contributions.last().unwrap()["cells"][0];
    let row = call(
        folder,
        &[
            "read",
            "order_summary",
            order,
            "--output",
            "json",
            "--url",
            &server.url,
        ],
    );
    let row: Value = serde_json::from_str(&stdout(&row)).unwrap();
    assert_eq!(last["value"], row[0]["status"], "{row}");
    // As of its first event there is one contribution to the state.
    let first = contributions[0]["recorded_at"].as_str().unwrap();
    let told = why(&[
        "order_summary",
        order,
        "status",
        "--as-of",
        first,
        "--output",
        "csv",
    ]);
    assert_eq!(stdout(&told).lines().count(), 2, "{}", stdout(&told));
    assert!(stderr(&told).contains("as of "), "{}", stderr(&told));
    // Pages are put together, and cut where it was asked for.
    let told = why(&["order_summary", order, "--limit", "1", "--output", "ndjson"]);
    assert_eq!(stdout(&told).lines().count(), 1, "{}", stdout(&told));
    assert!(
        stderr(&told).contains("--limit shows them"),
        "{}",
        stderr(&told)
    );
    assert_exit(&why(&["order_summary", "none"]), 7);
    let unknown = why(&["order_summary", order, "colour"]);
    assert_exit(&unknown, 2);
    assert!(
        stderr(&unknown).contains("approved_at"),
        "{}",
        stderr(&unknown)
    );
}
