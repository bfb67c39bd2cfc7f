//! Traces: a collector that reads OpenTelemetry's own messages gets a span for each step of a command,
//! in the trace of the client; a collector that is down costs nothing but a warning.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::ports;
use tests::harness::process::Process;

use super::program::{Server, folder, until};
use crate::querying::users_tools;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";
const REGISTER: &str = r#"{"city":"Rio","state":"RJ","postcode_prefix":"01"}"#;

/// A collector, with what it got so far in a file.
struct Collector {
    _process: Process,
    output: PathBuf,
    address: String,
}

impl Collector {
    async fn start(folder: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/cli/collector.py");
        let mut command = Command::new(users_tools().join("bin/python"));
        command.arg(script);
        let output = folder.join("spans.jsonl");
        let process = Process::start(command, File::create(&output).unwrap(), folder).unwrap();
        let mut collector = Self {
            _process: process,
            output,
            address: String::new(),
        };
        until("the collector listens", async || {
            !collector.lines().is_empty()
        })
        .await;
        collector.address = format!("http://127.0.0.1:{}", collector.lines()[0]["port"]);
        collector
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let line = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{text}"));
        whole.lines().map(line).collect()
    }

    fn spans(&self) -> Vec<Value> {
        self.lines().split_off(1)
    }

    fn named(&self, name: &str) -> Vec<Value> {
        let spans = self.spans().into_iter();
        spans.filter(|span| span["name"] == name).collect()
    }
}

async fn register(url: &str, customer: &str, traceparent: Option<&str>) {
    let post = reqwest::Client::new().post(format!(
        "{url}/v1/streams/customer-{customer}/RegisterCustomer"
    ));
    let mut post = post
        .header("content-type", "application/json")
        .body(REGISTER);
    if let Some(traceparent) = traceparent {
        post = post.header("traceparent", traceparent);
    }
    assert_eq!(post.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_command_is_traced_from_the_client_to_the_read_models() {
    let folder = folder();
    let collector = Collector::start(folder.path()).await;
    let more = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.address),
        ("OTEL_SERVICE_NAME", "shop"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let mut server = Server::start_in(folder.path(), &["dev", "--node", "here"], &more);
    register(
        &server.url,
        "unsampled",
        Some(&format!("00-{}-{CLIENT}-00", TRACE.replace('4', "5"))),
    )
    .await;
    register(&server.url, "ann", Some(&format!("00-{TRACE}-{CLIENT}-01"))).await;
    let ours = |span: &Value| span["trace"] == TRACE;
    until("all steps are told", async || {
        let names = ["append", "acknowledge", "project", "RegisterCustomer"];
        names.iter().all(|name| !collector.named(name).is_empty())
            && collector.spans().iter().filter(|span| ours(span)).count() >= 6
    })
    .await;
    let spans = collector.spans();
    let one = |name: &str| {
        let mut found = spans
            .iter()
            .filter(|span| span["name"] == name && ours(span));
        let span = found
            .next()
            .unwrap_or_else(|| panic!("{name} of {spans:?}"));
        assert!(found.next().is_none(), "{name} of {spans:?}");
        span
    };
    let door = one("POST /v1/streams/{stream}/{command}");
    assert_eq!(door["parent"], CLIENT);
    assert_eq!(door["kind"], 2, "server");
    assert_eq!(door["attributes"]["http.response.status_code"], 200);
    assert_eq!(door["resource"]["service.name"], "shop");
    assert_eq!(door["resource"]["service.instance.id"], "here");
    let command = one("RegisterCustomer");
    assert_eq!(command["parent"], door["id"]);
    assert_eq!(command["attributes"]["annals.stream"], "customer-ann");
    assert_eq!(command["attributes"]["annals.outcome"], "accepted");
    let mut at = command["from"].as_u64().unwrap();
    for name in ["queue", "decide", "append", "acknowledge"] {
        let part = one(name);
        assert_eq!(part["parent"], command["id"], "{name}");
        let (from, to) = (part["from"].as_u64().unwrap(), part["to"].as_u64().unwrap());
        assert!(
            at == from && from <= to,
            "{name} follows the part before it"
        );
        at = to;
    }
    assert_eq!(command["to"].as_u64(), Some(at));
    let project = &collector.named("project")[0];
    assert_eq!(project["links"][0][0], TRACE);
    assert_eq!(project["links"][0][1], door["id"]);
    assert!(project["from"].as_u64() >= door["from"].as_u64());
    assert!(
        spans
            .iter()
            .all(|span| span["attributes"]["annals.stream"] != "customer-unsampled")
    );

    // Without a client's trace, the door begins one. What waits is sent before the end.
    register(&server.url, "bob", None).await;
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
    let commands = collector.named("RegisterCustomer");
    let roots = collector.named("POST /v1/streams/{stream}/{command}");
    let bobs = commands
        .iter()
        .find(|span| span["attributes"]["annals.stream"] == "customer-bob");
    let root = roots
        .iter()
        .find(|span| span["id"] == bobs.unwrap()["parent"]);
    assert_eq!(root.unwrap()["parent"], "");
}

#[tokio::test]
async fn the_owners_node_continues_the_trace_of_a_forwarded_command() {
    let folder = folder();
    let collector = Collector::start(folder.path()).await;
    let log = NewLog::make(Kind::Kafka, 2).await;
    let address = log.address.to_string();
    let more = [
        ("ANNALS_OTLP_ENDPOINT", &*collector.address),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let nodes = ["a", "b"].map(|name| Server::node_of(folder.path(), &address, name, &more));
    for customer in 0..8 {
        for node in &nodes {
            let traceparent = format!("00-{TRACE}-{CLIENT}-01");
            let customer = format!("{customer}-{}", node.pid());
            register(&node.url, &customer, Some(&traceparent)).await;
        }
    }
    until(
        "a command was forwarded, and decided elsewhere",
        async || {
            let spans = collector.spans();
            let node = |span: &Value| span["resource"]["service.instance.id"].clone();
            let with = |id: &Value| spans.iter().find(|span| &span["id"] == id);
            spans
                .iter()
                .filter(|span| span["name"] == "forward")
                .any(|forward| {
                    let here = with(&forward["parent"]);
                    let Some(door) = here.and_then(|here| with(&here["parent"])) else {
                        return false;
                    };
                    let mut elsewhere = spans
                        .iter()
                        .filter(|span| span["parent"] == door["id"] && node(span) != node(door));
                    let Some(there) = elsewhere.next() else {
                        return false;
                    };
                    spans
                        .iter()
                        .any(|span| span["name"] == "append" && span["parent"] == there["id"])
                })
        },
    )
    .await;
}

#[tokio::test]
async fn a_collector_that_is_down_costs_one_warning() {
    let folder = folder();
    let nobody = format!("http://127.0.0.1:{}", ports::free());
    let more = [("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let arguments = ["dev", "--otlp-endpoint", &nobody];
    let mut server = Server::start_in(folder.path(), &arguments, &more);
    let line = |n: u32| {
        format!(
            "{{\"stream\":\"customer-{n}\",\"command\":\"RegisterCustomer\",\"data\":{REGISTER}}}\n"
        )
    };
    // Each line makes five spans: more than there is room for.
    for round in 0..4 {
        let lines: String = (0..1_000).map(|n| line(round * 1_000 + n)).collect();
        let post = reqwest::Client::new().post(format!("{}/v1/commands", server.url));
        let post = post
            .header("content-type", "application/x-ndjson")
            .body(lines);
        let answer = post.send().await.unwrap().text().await.unwrap();
        assert_eq!(answer.matches("\"status\":200").count(), 1_000);
    }
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
    let said = server.said();
    assert_eq!(said.matches("spans are lost").count(), 1, "{said}");
}

#[test]
fn a_collector_that_cannot_be_used_is_refused_with_the_reason() {
    use super::program::{annals, assert_exit, stderr};
    let folder = folder();
    for (variable, value, says) in [
        (
            "ANNALS_OTLP_ENDPOINT",
            "https://collector:4318",
            "plain HTTP",
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
    ] {
        let mut command = annals(folder.path());
        command
            .arg("dev")
            .env("ANNALS_OTLP_ENDPOINT", "http://127.0.0.1:1");
        let output = command.env(variable, value).output().unwrap();
        assert_exit(&output, 2);
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}
