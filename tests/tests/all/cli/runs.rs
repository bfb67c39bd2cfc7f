//! The program as a server: started, queried, stopped, killed and started again.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tests::harness::ports;

use super::postgres::{runs, server_of, wait_for};
use super::program::{Server, annals, assert_exit, call, folder, stderr, stdout};

const ADDRESS: &str = r#"{"city":"recife","state":"PE","postcode_prefix":"50000"}"#;

#[tokio::test]
async fn dev_says_when_it_is_ready_and_ends_in_good_order() {
    let folder = folder();
    let mut server = Server::dev(folder.path());
    let ready = server.ready.as_object().unwrap();
    assert_eq!(
        ready.keys().collect::<Vec<_>>(),
        ["http", "log", "postgres", "postgres_url_file"]
    );
    // Only who may read the file learns the password.
    let shown = server.ready["postgres"].as_str().unwrap();
    assert!(shown.contains(":***@"), "{shown}");
    let password = server.postgres_url();
    let password = password.split([':', '@']).nth(2).unwrap();
    assert!(!server.said().contains(password), "{}", server.said());
    assert_private(&folder.path().join(".annals"));
    assert_eq!(server.ready["log"], "sqlite:.annals/log.db");
    let get = async |path: &str| {
        let response = reqwest::get(format!("{}{path}", server.url)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, readiness) = get("/readyz").await;
    assert_eq!(status, 200, "{readiness}");
    let readiness: Value = serde_json::from_str(&readiness).unwrap();
    let checks = readiness["checks"].as_object().unwrap();
    assert_eq!(
        checks.keys().collect::<Vec<_>>(),
        ["log", "postgres", "projecting", "writing"]
    );
    assert_eq!(get("/livez").await.0, 200);
    let (status, document) = get("/openapi.json").await;
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&document).unwrap();
    for path in ["/v1/commands", "/v1/read/daily_sales", "/readyz"] {
        assert!(document["paths"].get(path).is_some(), "{path}");
    }
    let (status, page) = get("/docs/").await;
    assert_eq!(status, 200);
    assert!(
        !page.contains("https://"),
        "the page needs the network: {page}"
    );
    let (status, script) = get("/docs/swagger-initializer.js").await;
    assert_eq!(status, 200);
    assert!(script.contains("/openapi.json"), "{script}");
    assert_eq!(get("/nothing").await.0, 404);
    let url = server.url.clone();
    let sent = [
        "send",
        "customer-1",
        "RegisterCustomer",
        ADDRESS,
        "--url",
        &url,
    ];
    assert_exit(&call(folder.path(), &sent), 0);
    assert!(get("/metrics").await.1.contains("annals_commands_total"));
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
    let address = url.strip_prefix("http://").unwrap();
    assert!(
        TcpStream::connect(address).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn a_command_has_one_answer_and_one_exit_code() {
    let folder = folder();
    let mut server = Server::dev(folder.path());
    let url = server.url.clone();
    let to_server = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--url", &url]);
        call(folder.path(), &all)
    };
    let register = [
        "send",
        "customer-1",
        "RegisterCustomer",
        ADDRESS,
        "--id",
        "a",
    ];
    let sent = to_server(&[&register[..], &["--actor", "user:7", "--output", "json"]].concat());
    assert_exit(&sent, 0);
    let answer: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(answer["version"], 1);
    let repeated = to_server(&[&register[..], &["--output", "json"]].concat());
    let repeated: Value = serde_json::from_slice(&repeated.stdout).unwrap();
    assert_eq!(repeated["repeated"], true);
    assert_eq!(repeated["position"], answer["position"]);
    let refused = to_server(&["send", "order-1", "ApproveOrder"]);
    assert_exit(&refused, 3);
    assert!(
        stderr(&refused).contains("[order_not_placed]"),
        "{}",
        stderr(&refused)
    );
    let stale = [&register[..4], &["--expected-version", "3"]].concat();
    assert_exit(&to_server(&stale), 3);
    let misshapen = to_server(&["send", "customer-1", "RegisterCustomer", "{}"]);
    assert_exit(&misshapen, 2);
    assert_exit(&to_server(&["send", "ship-1", "Sail"]), 7);
    // If a query comes before the read model has caught up, its exit code says so.
    let deadline = Instant::now() + Duration::from_secs(60);
    let events = loop {
        let events = to_server(&["events", "customer-1", "--output", "ndjson"]);
        if events.status.success() || Instant::now() > deadline {
            break events;
        }
        assert_exit(&events, 7);
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_exit(&events, 0);
    let event: Value = serde_json::from_str(stdout(&events).trim()).unwrap();
    assert_eq!(event["type"], "CustomerRegistered");
    assert_eq!(event["actor"], json!({"kind": "user", "id": "7"}));
    let state = to_server(&["state", "customer-1", "--output", "json"]);
    assert_exit(&state, 0);
    let state: Value = serde_json::from_slice(&state.stdout).unwrap();
    assert_eq!(state["version"], 1);
    assert_exit(&to_server(&["state", "customer-2"]), 7);
    assert_eq!(server.end(Signal::INT).code(), Some(0));
}

#[test]
fn dev_that_was_killed_starts_again_with_all_it_had_answered() {
    let folder = folder();
    let mut server = Server::dev(folder.path());
    for round in 1..4 {
        let stream = format!("customer-{round}");
        let register = |url: &str| {
            let command = ["send", &stream, "RegisterCustomer", ADDRESS, "--id", "a"];
            let to_server = ["--url", url, "--output", "json"];
            call(folder.path(), &[&command[..], &to_server].concat())
        };
        assert_exit(&register(&server.url), 0);
        server.kill9();
        // The old Postgres still runs; the next program must cope with that.
        server = Server::dev(folder.path());
        let again = register(&server.url);
        assert_exit(&again, 0);
        let again: Value = serde_json::from_slice(&again.stdout).unwrap();
        assert_eq!(again["repeated"], true);
    }
    let in_use = call(folder.path(), &["dev", "--listen", "127.0.0.1:0"]);
    assert_exit(&in_use, 1);
    let list = ["projections", "list", "--postgres", &server.postgres_url()];
    assert_exit(&call(folder.path(), &list), 0);
    // A sample of streams; what many streams feed is left out by name.
    let sample = [
        &["projections", "verify", "customer_orders", "--sample", "5"][..],
        &["--seed", "7", "--output", "json", "--postgres"],
        &[&server.postgres_url()],
    ];
    let sampled = call(folder.path(), &sample.concat());
    assert_exit(&sampled, 8);
    let said = String::from_utf8_lossy(&sampled.stderr);
    assert!(said.contains("--seed 7"), "{said}");
    assert!(
        said.contains("the column orders of customer_orders was not compared"),
        "{said}"
    );
    let sampled: Value = serde_json::from_slice(&sampled.stdout).unwrap();
    assert_eq!(sampled[0]["equal"], true, "{sampled}");
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
    let verify = ["log", "verify", "--against", "postgres,local"];
    assert_exit(&call(folder.path(), &verify), 0);
}

#[tokio::test]
async fn commands_are_taken_while_postgres_starts_and_kept_if_it_never_does() {
    let folder = folder();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for (name, script) in [
        ("postgres", "echo 'postgres (PostgreSQL) 99.1'"),
        (
            "initdb",
            "while [ ! -e \"$GO\" ]; do sleep 0.05; done; exit 3",
        ),
    ] {
        let file = bin.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&file, executable).unwrap();
    }
    let go = folder.path().join("go");
    let listen = format!("127.0.0.1:{}", ports::free());
    let mut command = annals(folder.path());
    command.env("GO", &go).args(["dev", "--listen", &listen]);
    command.arg("--postgres-bin").arg(&bin);
    let mut dev = command.stderr(Stdio::piped()).spawn().unwrap();
    let url = format!("http://{listen}");
    let sent = [
        "send",
        "customer-1",
        "RegisterCustomer",
        ADDRESS,
        "--id",
        "a",
        "--url",
        &url,
    ];
    let deadline = Instant::now() + Duration::from_secs(60);
    while !call(folder.path(), &sent).status.success() {
        assert!(Instant::now() < deadline, "no command is taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    for path in [
        "/v1/read/daily_sales",
        "/v1/streams/customer-1/events",
        "/readyz?role=query-api",
        "/readyz?role=all",
    ] {
        let early = reqwest::get(format!("{url}{path}")).await.unwrap();
        assert_eq!(early.status().as_u16(), 503);
        let problem: Value = early.json().await.unwrap();
        assert_eq!(problem["code"], "not_ready", "{path}");
    }
    // The process accepts commands, so it counts as ready for them.
    for path in ["/readyz", "/readyz?role=command-api"] {
        let ready = reqwest::get(format!("{url}{path}")).await.unwrap();
        assert_eq!(ready.status().as_u16(), 200, "{path}");
    }
    let unknown = call(folder.path(), &["send", "ship-1", "Sail", "--url", &url]);
    assert_exit(&unknown, 7);
    std::fs::write(&go, "").unwrap();
    assert_eq!(dev.wait().unwrap().code(), Some(1));
    std::fs::remove_dir_all(folder.path().join(".annals/postgres")).unwrap();
    let server = Server::dev(folder.path());
    let again = [&sent[..7], &[&server.url, "--output", "json"]].concat();
    let again = call(folder.path(), &again);
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(again["repeated"], true);
}

#[test]
fn a_second_signal_ends_it_at_once_with_its_postgres() {
    let folder = folder();
    let mut server = Server::dev(folder.path());
    // A suspended Postgres delays the end in good order.
    let postgres = server_of(&folder.path().join(".annals")).unwrap();
    kill_process(postgres, Signal::STOP).unwrap();
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.end(Signal::TERM).code(), Some(128 + 15));
    kill_process(postgres, Signal::CONT).unwrap();
    wait_for("the end of its Postgres", || {
        (!runs(postgres)).then_some(())
    });
}

/// Asserts that other users cannot read the files in a folder, apart from Postgres's own files. As
/// root, Postgres runs as another user, who may pass through the folder.
fn assert_private(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o066, 0, "{}: {mode:o}", path.display());
        if path.is_dir() && !path.ends_with("data") {
            assert_private(&path);
        }
    }
}

#[test]
fn roles_can_live_in_processes_of_their_own() {
    let folder = folder();
    let writer = Server::dev(folder.path());
    let postgres = writer.postgres_url();
    let reader = Server::start(
        folder.path(),
        &[
            "serve",
            "--role",
            "query-api",
            "--data",
            "other",
            "--postgres",
            &postgres,
            "--log",
            "sqlite:.annals/log.db",
        ],
    );
    let send = [
        "send",
        "customer-1",
        "RegisterCustomer",
        ADDRESS,
        "--output",
        "json",
        "--url",
    ];
    let sent = call(folder.path(), &[&send[..], &[&writer.url]].concat());
    assert_exit(&sent, 0);
    let not_here = call(folder.path(), &[&send[..], &[&reader.url]].concat());
    assert_exit(&not_here, 7);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !call(
        folder.path(),
        &["state", "customer-1", "--url", &reader.url],
    )
    .status
    .success()
    {
        assert!(
            Instant::now() < deadline,
            "the reader never shows what was written"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_demo_shows_what_it_promises() {
    let folder = folder();
    let demo = ["demo", "--once", "--listen", "127.0.0.1:0"];
    let shown = call(folder.path(), &[&demo[..], &["--output", "json"]].concat());
    assert_exit(&shown, 0);
    let shown: Vec<Value> = serde_json::from_slice(&shown.stdout).unwrap();
    let statuses: Vec<u64> = shown
        .iter()
        .map(|call| call["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 422, 200]);
    let answer = |about: &str| {
        let call = shown.iter().find(|call| call["about"] == about);
        call.unwrap_or_else(|| panic!("nothing is shown of {about}"))["answer"].clone()
    };
    assert_eq!(answer("one order")["status"], "delivered");
    assert_eq!(answer("sales by day")["rows"].as_array().unwrap().len(), 3);
    // The demo has a folder of its own, so that its orders never mix with the user's data.
    assert!(folder.path().join(".annals/demo/log.db").is_file());
    assert!(!folder.path().join(".annals/log.db").exists());
    let again = call(folder.path(), &demo);
    assert_exit(&again, 0);
    let text = stdout(&again);
    assert!(text.contains("$ curl -s 'http://127.0.0.1:"), "{text}");
    assert!(
        text.contains("\"repeated\": true"),
        "the same key, the same answer: {text}"
    );
}
