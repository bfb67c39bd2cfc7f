//! The schemas of what stands in the topic, before AsyncAPI's own parser and a strict validator, with the
//! commits of a real topic.
//!
//! Deliberately absent: which records count (`reading_the_topic`).

use std::path::Path;

use serde_json::{Value, json};
use tests::harness::{kafka, unique_name};

use super::{run, schemas, tool, tools};
use crate::cli::program::{Server, annals, folder};

fn node(script: &str, arguments: &[&Path]) -> Value {
    let mut node = tool("node", &tools());
    node.arg("--input-type=commonjs").arg("--eval").arg(script);
    serde_json::from_str(&run(node.args(arguments))).unwrap()
}

#[test]
fn asyncapis_parser_takes_the_document_of_the_topic() {
    let document = schemas().join("asyncapi.json");
    let said = node(include_str!("asyncapi.js"), &[&document]);
    // More tools know 3.0.0 than 3.1.0.
    let known = |one: &&Value| one["code"] != "asyncapi-latest-version";
    let diagnostics = said["diagnostics"].as_array().unwrap();
    let diagnostics: Vec<_> = diagnostics.iter().filter(known).collect();
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let commit: Vec<_> = said["messages"]["commit"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    assert!(commit.iter().any(|member| *member == "events"), "{said}");
    assert!(said["messages"]["claim"].is_array(), "{said}");
}

/// The example of a command in the document.
fn example(document: &Value, command: &str) -> Value {
    let schema = &document["components"]["schemas"][command];
    schema["examples"]
        .get(0)
        .cloned()
        .unwrap_or_else(|| json!({}))
}

/// Commands that leave every event, and refusals of several kinds.
fn lines() -> String {
    let text = std::fs::read_to_string(schemas().join("openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let line = |stream: &str, command: &str| json!({"stream": stream, "command": command, "data": example(&document, command)});
    let mut lines: Vec<Value> = [
        ("customer-1", "RegisterCustomer"),
        ("customer-1", "CorrectAddress"),
        ("order-1", "ShipOrder"),
        ("order-1", "PlaceOrder"),
        ("order-1", "PlaceOrder"),
        ("order-1", "ShipOrder"),
        ("order-1", "ApproveOrder"),
        ("order-1", "StartProcessing"),
        ("order-1", "InvoiceOrder"),
        ("order-1", "ShipOrder"),
        ("order-1", "DeliverOrder"),
        ("order-1", "ReviewOrder"),
        ("order-2", "PlaceOrder"),
        ("order-2", "CancelOrder"),
        ("order-3", "PlaceOrder"),
        ("order-3", "MarkUnavailable"),
        ("payment-1", "CapturePayment"),
        ("payment-1", "RefundPayment"),
        ("payment-1", "RefundPayment"),
    ]
    .into_iter()
    .map(|(stream, command)| line(stream, command))
    .collect();
    let mut stale = line("order-2", "ApproveOrder");
    stale["expected_version"] = json!(7);
    stale["occurred_at"] = json!("2018-06-04T16:44:48Z");
    stale["actor"] = json!({"kind": "user", "id": "ana"});
    stale["correlation_id"] = json!("conversation-1");
    lines.push(stale);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn a_strict_validator_takes_every_commit_of_a_topic() {
    let data = folder();
    let log = format!(
        "kafka://{}/{}",
        kafka::shared().bootstrap(),
        unique_name("log")
    );
    let create = [
        "log",
        "create",
        "--partitions=2",
        "--replication=1",
        "--log",
        &log,
    ];
    run(annals(data.path()).args(create));
    let server = Server::node_of(data.path(), &log, "a", &[]);
    let sent = reqwest::Client::new()
        .post(format!("{}/v1/commands", server.url))
        .header("Content-Type", "application/x-ndjson")
        .body(lines());
    let answers = sent.send().await.unwrap().text().await.unwrap();
    assert!(!answers.contains("\"status\":503"), "{answers}");
    let dump = annals(data.path())
        .args(["log", "dump", "--accepted", "--log", &log])
        .output()
        .unwrap();
    assert!(dump.status.success(), "{dump:?}");
    let dumped = data.path().join("dump");
    std::fs::write(&dumped, dump.stdout).unwrap();
    let seen = node(
        include_str!("commits.js"),
        &[&schemas().join("commit.json"), &dumped],
    );
    assert_eq!(seen["commits"], 20, "{seen}\n{answers}");
    let text = std::fs::read_dir(schemas().join("events")).unwrap();
    let types = text.flat_map(|category| std::fs::read_dir(category.unwrap().path()).unwrap());
    assert_eq!(
        seen["events"].as_object().unwrap().len(),
        types.count(),
        "{seen}"
    );
    for code in [
        "order_not_placed",
        "order_already_placed",
        "order_not_approved",
        "payment_refund_exceeds",
        "version_conflict",
    ] {
        assert_eq!(seen["refusals"][code], 1, "{seen}");
    }
}
