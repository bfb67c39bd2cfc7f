//! A node's limits, and what an operator is told when they are reached.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};
use tests::harness::logs::{self, Kind};

use super::program::{Server, assert_exit, call, folder, until, within};
use crate::lost_log::configure;

/// The value of one series of the node's metrics.
async fn metric(server: &Server, series: &str) -> Option<f64> {
    let text = reqwest::get(format!("{}/metrics", server.url)).await;
    let text = text.ok()?.text().await.ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line?.trim().parse().ok()
}

fn files_max(pid: u32) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.unwrap().parse().unwrap()
}

fn limit_files(pid: u32, current: u64) -> Rlimit {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(current),
        maximum,
    };
    prlimit(pid, Resource::Nofile, limit).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_open_as_many_files_as_it_can_get_and_says_when_it_has_none() {
    let folder = folder();
    let server = Server::start_through(
        folder.path(),
        &["sh", "-c", "ulimit -S -n 512; exec \"$@\"", "sh"],
        &["dev"],
    );
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let raised = files_max(server.pid());
    assert_eq!(raised, maximum.unwrap_or(u64::MAX).min(65_536));
    let errors = "annals_http_accept_errors_total";
    assert_eq!(metric(&server, errors).await, Some(0.0));
    // Set the limit below the number of files that are open already.
    limit_files(server.pid(), 8);
    let authority = server.url.trim_start_matches("http://");
    let _waiting = TcpStream::connect(authority).unwrap();
    until("it says so", async || {
        server.said().contains("cannot accept connections")
    })
    .await;
    assert!(
        server.said().contains("raise the limit"),
        "{}",
        server.said()
    );
    limit_files(server.pid(), raised);
    assert!(metric(&server, errors).await.unwrap() > 0.0);
}

/// Sends reviews of `bytes` bytes each in one batch; returns the answers.
async fn review(server: &Server, count: usize, bytes: usize) -> Vec<Value> {
    let amount = json!({"amount_minor": 1990, "currency": "BRL"});
    let order = json!({
        "customer": "customer-1",
        "items": [{
            "line": 1, "product": "p-1", "seller": "s-1", "price": amount, "freight": amount,
        }],
        "estimated_delivery": "2018-02-01T00:00:00Z",
    });
    let command = |name: &str, data: Value| {
        json!({"stream": "order-1", "command": name, "data": data}).to_string() + "\n"
    };
    let reviews = (0..count).map(|number| {
        let comment = "x".repeat(bytes);
        let data = json!({"review": format!("r{number}"), "score": 5, "comment": comment});
        command("ReviewOrder", data)
    });
    let lines: String = std::iter::once(command("PlaceOrder", order))
        .chain(reviews)
        .collect();
    let post = reqwest::Client::new().post(format!("{}/v1/commands", server.url));
    let post = post.header("content-type", "application/x-ndjson");
    let answers = post.body(lines).send().await.unwrap().text().await.unwrap();
    let answers = answers.lines().skip(1).map(serde_json::from_str);
    answers.collect::<Result<_, _>>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_the_limit_of_the_settings_and_half_of_it_is_warned_of() {
    let folder = folder();
    let arguments = ["dev", "--stream-state-max-kb", "64"];
    let server = Server::start(folder.path(), &arguments);
    let taken = |answers: &[Value]| answers.iter().filter(|a| a["status"] == 200).count();
    let said = "a stream's state takes more than half of what it may";
    assert_eq!(taken(&review(&server, 6, 4_000).await), 6);
    assert!(!server.said().contains(said));
    assert_eq!(
        metric(&server, "annals_streams_half_full_total").await,
        Some(0.0)
    );
    let answers = review(&server, 40, 4_000).await;
    assert!((9..=16).contains(&taken(&answers)), "{}", taken(&answers));
    let last = &answers[39];
    assert_eq!(last["code"], "stream_too_large", "{last}");
    assert_eq!(server.said().matches(said).count(), 1, "{}", server.said());
    assert_eq!(
        metric(&server, "annals_streams_half_full_total").await,
        Some(1.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_too_large_to_be_shown_is_refused_with_what_to_do() {
    let folder = folder();
    let arguments = ["dev", "--stream-state-max-kb", "8192"];
    let server = Server::start(folder.path(), &arguments);
    review(&server, 550, 9_000).await;
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{}/v1/streams/order-1/{path}", server.url));
        let answer = answer.await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    until("readers have seen it", async || get("state").await.0 == 422).await;
    let (_, refused) = get("state").await;
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!(refused["code"], "state_too_large", "{refused}");
    let advice = refused["detail"].as_str().unwrap();
    assert!(advice.contains("/v1/streams/order-1/events"), "{advice}");
    let (status, page) = get("events?limit=1").await;
    assert_eq!(status, 200, "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_lines_nobody_reads_goes_on_and_ends_in_good_order() {
    let folder = folder();
    // The reader of stderr ends before the first line.
    let script = "exec \"$@\" 2> >(exec true)";
    let mut server = Server::start_through(
        folder.path(),
        &["bash", "-c", script, "bash"],
        &["dev", "--log-filter", "debug"],
    );
    let answers = review(&server, 50, 10).await;
    assert!(answers.iter().all(|answer| answer["status"] == 200));
    until("lines are dropped and counted", async || {
        let dropped = metric(&server, "annals_log_lines_dropped_total").await;
        dropped.is_some_and(|dropped| dropped > 0.0)
    })
    .await;
    let ready = reqwest::get(format!("{}/readyz", server.url))
        .await
        .unwrap();
    assert_eq!(ready.status(), 200);
    assert!(server.end(Signal::TERM).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_read_model_is_counted_and_reported() {
    let folder = folder();
    let postgres = tests::harness::postgres::Postgres::start();
    let url = postgres.create_database().await;
    let arguments = ["dev", "--postgres", &url];
    let mut server = Server::start(folder.path(), &arguments);
    let stopped = r#"annals_projection_stopped_total{projection="order_summary"}"#;
    assert_eq!(metric(&server, stopped).await, Some(0.0));
    assert!(server.end(Signal::TERM).success());
    // Pretend that a program of another version built the read model.
    super::advised::execute(
        &url,
        "UPDATE annals.generation SET version = 99, rule = 'order_summary v99 0' WHERE projection = 'order_summary'",
    )
    .await;
    let server = Server::start(folder.path(), &arguments);
    until("it stops", async || {
        metric(&server, stopped)
            .await
            .is_some_and(|times| times > 0.0)
    })
    .await;
    let said = server.said();
    let line = said
        .lines()
        .find(|line| line.contains("ERROR") && line.contains("the projection stopped;"));
    let line = line.unwrap_or_else(|| panic!("no line of the log: {said}"));
    assert!(
        line.contains("order_summary") && line.contains("projections rebuild"),
        "{line}"
    );
    let partitions = r#"annals_projection_stopped_partitions{projection="order_summary"}"#;
    until("the gauge says so", async || {
        metric(&server, partitions)
            .await
            .is_some_and(|count| count > 0.0)
    })
    .await;
    let answer = reqwest::get(format!("{}/v1/read/order_summary/order-1", server.url));
    assert_eq!(answer.await.unwrap().headers()["annals-stale"], "stopped");
}

/// The node checks its topic once a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_topic_becomes_unsafe_says_so_in_health_with_what_to_do() {
    let folder = folder();
    let address = logs::address(Kind::Kafka, &folder);
    let log = address.to_string();
    let create = ["log", "create", "--partitions", "2", "--log", &log];
    assert_exit(&call(folder.path(), &create), 0);
    let server = Server::node_of(folder.path(), &log, "one", &[]);
    let health = async || {
        let answer = reqwest::get(format!("{}/readyz", server.url))
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    until("it is ready", async || health().await.0 == 200).await;
    configure(&address, Some(("retention.ms", "604800000"))).await;
    within(Duration::from_secs(90), "health says so", async || {
        let (status, said) = health().await;
        status == 503 && said.contains("--add-config retention.ms=-1")
    })
    .await;
}
