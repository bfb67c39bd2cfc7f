//! Nodes with a wrong wall clock (`libfaketime`), as operators and clients see them.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tests::faults::scene::Clock;
use tests::harness::logs::{self, Kind};

use super::program::{Server, assert_exit, call, folder, stdout, until};

const DAY_S: i64 = 86_400;
const REGISTER: &str = r#"{"city":"Rio","state":"RJ","postcode_prefix":"01"}"#;

fn clock(folder: &Path) -> Clock {
    Clock::make(folder).expect("ops/setup installs faketime")
}

/// A node on an embedded log that uses this clock.
fn alone(folder: &Path, clock: &Clock) -> Server {
    let environment = clock.environment();
    let arguments = ["serve", "--role=command-api"];
    Server::start_in(folder, &arguments, &borrowed(&environment))
}

fn borrowed(environment: &[(String, String)]) -> Vec<(&str, &str)> {
    let pairs = environment.iter();
    pairs
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// Registers a customer; returns the status and the body.
async fn register(server: &Server, customer: &str) -> (u16, String) {
    let post = reqwest::Client::new().post(format!(
        "{}/v1/streams/customer-{customer}/RegisterCustomer",
        server.url
    ));
    let post = post.header("content-type", "application/json");
    let answer = post.body(REGISTER).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn health(server: &Server) -> (u16, String) {
    let answer = reqwest::get(format!("{}/readyz", server.url))
        .await
        .unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The row with this name in the output of `check`.
fn checked(folder: &Path, name: &str) -> Value {
    let output = call(folder, &["check", "--output", "json"]);
    let rows: Vec<Value> = serde_json::from_str(&stdout(&output)).expect("a list of rows");
    let row = rows.iter().find(|row| row["check"] == name);
    row.unwrap_or_else(|| panic!("no {name}: {rows:?}")).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_jumps_a_day_says_so_and_writes_nothing_until_it_agrees_or_begins_anew()
{
    let folder = folder();
    assert_exit(
        &call(folder.path(), &["log", "create", "--partitions", "2"]),
        0,
    );
    let clock = clock(folder.path());
    let mut server = alone(folder.path(), &clock);
    assert_eq!(register(&server, "1").await.0, 200);
    assert_eq!(checked(folder.path(), "recorded times")["status"], "ok");
    clock.set(DAY_S).unwrap();
    until("health says so", async || {
        let (status, said) = health(&server).await;
        status == 503 && said.contains("clock was set while this process ran")
    })
    .await;
    let (status, said) = register(&server, "2").await;
    assert_eq!(status, 503, "{said}");
    let line = "clock was set while this process ran";
    let in_log = server.said();
    assert!(
        in_log
            .lines()
            .any(|l| l.contains("ERROR") && l.contains(line)),
        "{in_log}"
    );
    clock.set(0).unwrap();
    until("it agrees again", async || {
        register(&server, "3").await.0 == 200
    })
    .await;
    until("health says so", async || health(&server).await.0 == 200).await;

    // A process trusts its clock at the start; a later look with a right clock reports the
    // difference.
    clock.set(DAY_S).unwrap();
    until("it stops", async || register(&server, "4").await.0 == 503).await;
    assert!(server.end(Signal::TERM).success());
    let mut server = alone(folder.path(), &clock);
    assert_eq!(register(&server, "5").await.0, 200);
    assert!(server.end(Signal::TERM).success());
    let row = checked(folder.path(), "recorded times");
    assert_eq!(row["status"], "warn", "{row}");
    assert!(
        row["found"].as_str().unwrap().contains("in the future"),
        "{row}"
    );
    assert_eq!(checked(folder.path(), "clock")["status"], "warn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_differs_from_the_brokers_leaves_its_partitions_to_others_and_forwards()
{
    let folder = folder();
    let address = logs::address(Kind::Kafka, &folder).to_string();
    let create = ["log", "create", "--partitions", "4", "--log", &address];
    assert_exit(&call(folder.path(), &create), 0);
    let wrong = clock(folder.path());
    let by_wrong = wrong.environment();
    let first = Server::node_of(folder.path(), &address, "first", &borrowed(&by_wrong));
    assert_eq!(register(&first, "1").await.0, 200);
    wrong.set(DAY_S).unwrap();
    until("it says that it leaves", async || {
        first
            .said()
            .contains("this node leaves the group of nodes for now")
    })
    .await;
    assert!(
        first.said().contains("ahead of the brokers'"),
        "{}",
        first.said()
    );
    let (status, said) = health(&first).await;
    assert!(
        status == 503 && said.contains("ahead of the brokers'"),
        "{said}"
    );
    let second = Server::node_of(folder.path(), &address, "second", &[]);
    for customer in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        let of = |through: &str| format!("{through}{customer}");
        until("the other takes over", async || {
            register(&second, &of("c")).await.0 == 200
        })
        .await;
        // The first node still forwards to the second.
        until("it forwards", async || {
            register(&first, &of("f")).await.0 == 200
        })
        .await;
    }
    wrong.set(0).unwrap();
    until("it joins again", async || {
        let is_back = first.said().contains("joining the group of nodes again");
        is_back && health(&first).await.0 == 200
    })
    .await;
}
