//! Nodes whose wall clock is wrong, as operators and clients meet them (`libfaketime`).

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tests::faults::scene::Clock;
use tests::harness::logs::{self, Kind};

use super::program::{Server, assert_exit, call, folder, stdout};

const WAIT: Duration = Duration::from_secs(60);
const DAY_S: i64 = 86_400;
const REGISTER: &str = r#"{"city":"Rio","state":"RJ","postcode_prefix":"01"}"#;

fn clock(folder: &Path) -> Clock {
    Clock::make(folder).expect("ops/setup installs faketime")
}

/// A node that takes commands, by this clock.
fn node(folder: &Path, clock: &Clock, more: &[&str]) -> Server {
    let environment = clock.environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain([("ANNALS_CLUSTER_SECRET", "shared by nobody else here")])
        .collect();
    let arguments = [&["serve", "--role", "command-api"], more].concat();
    Server::start_in(folder, &arguments, &environment)
}

/// Registers a customer: the status, and what is said of it.
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

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What `check` says of a row.
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
    let mut server = node(folder.path(), &clock, &[]);
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

    // A process that begins believes the clock; whoever looks by a right one hears of it.
    clock.set(DAY_S).unwrap();
    until("it stops", async || register(&server, "4").await.0 == 503).await;
    assert!(server.end(Signal::TERM).success());
    let mut server = node(folder.path(), &clock, &[]);
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
async fn a_node_whose_clock_differs_from_the_brokers_leaves_its_partitions_to_others() {
    let folder = folder();
    let address = logs::address(Kind::Kafka, &folder).to_string();
    let create = ["log", "create", "--partitions", "4", "--log", &address];
    assert_exit(&call(folder.path(), &create), 0);
    let (wrong, right) = (clock(folder.path()), super::program::folder());
    let of_right = clock(right.path());
    let start = |clock: &Clock, name: &str| {
        let data = folder.path().join(name);
        let data = data.display().to_string();
        node(
            folder.path(),
            clock,
            &[
                "--log",
                &address,
                "--node",
                name,
                "--data",
                &data,
                "--session-timeout-ms",
                "3000",
            ],
        )
    };
    let first = start(&wrong, "first");
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
    let second = start(&of_right, "second");
    for customer in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        let stream = format!("c{customer}");
        until("the other takes over", async || {
            register(&second, &stream).await.0 == 200
        })
        .await;
    }
}
