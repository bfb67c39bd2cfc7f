//! What an operator sees of a running node: metrics, log lines, and the messages to its supervisor.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use host::node::metrics::catalogue::CATALOGUE;
use rustix::process::Signal;
use serde_json::Value;
use tests::harness::logs::{self, Kind};

use super::program::{Server, annals, assert_exit, call, folder, stderr};

const WAIT: Duration = Duration::from_secs(60);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A client of one node's doors.
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    fn of(server: &Server) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: server.url.clone(),
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("{}{path}", self.url)).send().await;
        let response = response.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn command(&self, path: &str, id: &str, data: &'static str) -> u16 {
        let post = self.http.post(format!("{}/v1/streams/{path}", self.url));
        let post = post
            .header("content-type", "application/json")
            .header("idempotency-key", id)
            .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
            .body(data);
        post.send().await.unwrap().status().as_u16()
    }

    async fn batch(&self, lines: impl Into<reqwest::Body>) {
        let post = self.http.post(format!("{}/v1/commands", self.url));
        let post = post
            .header("content-type", "application/x-ndjson")
            .body(lines);
        post.send().await.unwrap().text().await.unwrap();
    }
}

const REGISTER: &str = r#"{"city":"Rio","state":"RJ","postcode_prefix":"01"}"#;

/// Parses metrics: the kind of each name, and the value of each series.
fn parsed(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
    let (mut kinds, mut series) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            series.insert(name.to_owned(), value.parse().unwrap());
        }
    }
    (kinds, series)
}

fn promtool(text: &str) {
    let program = std::env::var_os("ANNALS_PROMTOOL").expect(
        "ANNALS_PROMTOOL names promtool: run `make test`, or `eval \"$(ops/setup --print-env)\"`",
    );
    let mut check = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_shown_described_and_documented() {
    let folder = folder();
    let log = logs::address(Kind::Kafka, &folder).to_string();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "shared by nobody else here").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let arguments = ["dev", "--log", &log, "--cluster-secret-file", "secret"];
    let server = Server::start(folder.path(), &arguments);
    let client = Client::of(&server);
    let (_, early) = client.get("/metrics").await;
    let (_, early) = parsed(&early);
    // These series exist before anything has happened, so that an alert on an increase sees the
    // first one.
    for series in [
        r#"annals_commands_total{category="order",command="PlaceOrder",outcome="accepted"}"#,
        r#"annals_turned_away_total{reason="overloaded"}"#,
        r#"annals_refusals_total{code="version_conflict"}"#,
        r#"annals_projection_stopped_total{projection="daily_sales"}"#,
        r#"annals_kafka_request_timeouts_total{client="producer"}"#,
        "annals_log_lines_dropped_total",
    ] {
        assert_eq!(early.get(series), Some(&0.0), "{series}");
    }
    assert_eq!(
        client
            .command("customer-1/RegisterCustomer", "a", REGISTER)
            .await,
        200
    );
    assert_eq!(client.command("order-1/ShipOrder", "a", "{}").await, 422);
    client.batch("{\n".to_owned()).await;
    client.get("/v1/read/daily_sales").await;
    let deadline = Instant::now() + WAIT;
    loop {
        let (status, text) = client.get("/metrics").await;
        assert_eq!(status, 200);
        let (kinds, series) = parsed(&text);
        let documented: BTreeMap<String, String> = CATALOGUE
            .iter()
            .map(|metric| (metric.name.to_owned(), metric.kind.name().to_owned()))
            .collect();
        let asked = r#"annals_kafka_requests_total{client="producer"}"#;
        let is_whole = kinds == documented && series.get(asked).is_some_and(|asked| *asked > 0.0);
        if is_whole || Instant::now() > deadline {
            assert_eq!(kinds, documented);
            promtool(&text);
            let is = |series_name: &str, value: f64| {
                assert_eq!(
                    series.get(series_name),
                    Some(&value),
                    "{series_name}\n{text}"
                );
            };
            is(
                r#"annals_commands_total{category="customer",command="RegisterCustomer",outcome="accepted"}"#,
                1.0,
            );
            is(r#"annals_refusals_total{code="order_not_placed"}"#, 1.0);
            is("annals_owned_partitions", 16.0);
            is("annals_unowned_partitions", 0.0);
            is("annals_take_overs_total", 16.0);
            assert!(series["annals_append_seconds_count"] >= 2.0);
            assert!(series["process_cpu_seconds_total"] > 0.0);
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The JSON documents of a log; every line must be one.
fn documents(text: &str) -> Vec<Value> {
    let document = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{text}"))
    };
    text.lines().map(document).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_json_is_nothing_but_json_and_has_a_line_for_each_request() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &["dev", "-v", "--log-format", "json"]);
    let client = Client::of(&server);
    assert_eq!(
        client
            .command("customer-1/RegisterCustomer", "k7", REGISTER)
            .await,
        200
    );
    assert_eq!(client.get("/v1/read/no_such").await.0, 404);
    let line = r#"{"stream":"customer-2","command":"RegisterCustomer","data":{}}"#;
    // The batch is answered line by line; its logged time is that of the whole request.
    let lines = futures::stream::unfold(0, move |number| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let line = Ok::<_, std::io::Error>(format!("{line}\n"));
        (number < 3).then_some((line, number + 1))
    });
    client.batch(reqwest::Body::wrap_stream(lines)).await;
    let deadline = Instant::now() + WAIT;
    let events = loop {
        let (status, text) = client.get("/v1/streams/customer-1/events").await;
        if status == 200 {
            break serde_json::from_str::<Value>(&text).unwrap();
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let parent = events["events"][0]["traceparent"].as_str().unwrap();
    assert!(parent.contains(TRACE), "{events}");
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
    let text = std::fs::read_to_string(folder.path().join("server.out")).unwrap();
    let lines = documents(&text);
    let access = |route: &str| {
        let is_it = |line: &&Value| line["target"] == "door::access" && line["route"] == route;
        let found = lines.iter().find(is_it);
        found
            .unwrap_or_else(|| panic!("no line for {route}\n{text}"))
            .clone()
    };
    let posted = access("/v1/streams/{stream}/{command}");
    assert_eq!(posted["method"], "POST");
    assert_eq!(posted["status"], 200);
    assert_eq!(posted["trace_id"], TRACE);
    assert_eq!(posted["command_id"], "k7");
    assert!(posted["duration_ms"].is_f64(), "{posted}");
    assert_eq!(access("/v1/read/{model}")["status"], 404);
    let batch = access("/v1/commands");
    assert_eq!(batch["status"], 200);
    assert!(batch["duration_ms"].as_f64().unwrap() >= 600.0, "{batch}");
    for line in &lines {
        // The line of readiness is data for the caller and not part of the log.
        if line["http"].is_null() {
            for field in ["timestamp", "level", "target", "message"] {
                assert!(line[field].is_string(), "no {field}: {line}");
            }
        }
    }
}

#[test]
fn an_error_before_the_start_is_json_too() {
    let folder = folder();
    for (arguments, code) in [
        (&["--log-format", "json", "sail"][..], 2),
        (&["--log-format=json", "serve", "--listen", "nowhere"], 2),
        (
            &["--log-format=json", "serve", "--log", "sqlite:none.db"],
            6,
        ),
        (&["--log-format=json", "config", "--config", "none.toml"], 2),
    ] {
        let output = call(folder.path(), arguments);
        assert_exit(&output, code);
        let lines = documents(&stderr(&output));
        assert_eq!(lines.last().unwrap()["level"], "ERROR", "{lines:?}");
    }
    let output = annals(folder.path())
        .env("ANNALS_LOG_FORMAT", "json")
        .arg("sail")
        .output()
        .unwrap();
    documents(&stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_is_notified_and_a_hang_up_signal_stops_nothing() {
    let folder = folder();
    let socket = folder.path().join("notify");
    let supervisor = UnixDatagram::bind(&socket).unwrap();
    supervisor.set_read_timeout(Some(WAIT)).unwrap();
    let heard = || {
        let mut text = [0; 256];
        let size = supervisor.recv(&mut text).unwrap();
        String::from_utf8(text[..size].to_vec()).unwrap()
    };
    // These settings are passed to the program unchanged.
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap())];
    let mut server = Server::start_in(folder.path(), &["dev"], &variables);
    assert_eq!(heard().trim(), "READY=1");
    server.signal(Signal::HUP);
    let client = Client::of(&server);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.get("/readyz?role=command-api").await.0, 200);
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
    assert_eq!(heard().trim(), "STOPPING=1");

    let mut server = Server::start(folder.path(), &["serve", "--data", ".annals"]);
    server.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(Client::of(&server).get("/readyz?role=all").await.0, 200);
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
}
