//! Batches: each line gets an answer, in order, while the client still writes.

use std::convert::Infallible;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};

use super::{Answered, Served, ask};
use crate::write_side::place;

const MEDIA_TYPE: &str = "application/x-ndjson";

fn line(stream: &str, command: &str, id: &str, data: &Value) -> String {
    let line = json!({"stream": stream, "command": command, "id": id, "data": data});
    format!("{line}\n")
}

async fn send(served: &Served, body: impl Into<reqwest::Body>) -> (Answered, Vec<Value>) {
    let request = served.request(reqwest::Method::POST, "/v1/commands");
    let answered = ask(request.header("Content-Type", MEDIA_TYPE).body(body)).await;
    let lines = match &answered.body {
        Value::String(text) => text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        Value::Object(_) => vec![answered.body.clone()],
        other => panic!("no lines: {other}"),
    };
    (answered, lines)
}

#[tokio::test]
async fn every_line_has_its_own_outcome_in_order() {
    let served = Served::start().await;
    let mut body = Vec::new();
    let mut push = |line: &str| body.extend_from_slice(line.as_bytes());
    push(&line("order-1", "PlaceOrder", "a", &place()));
    push("\n \r\n");
    push("{\"stream\":\n");
    push(&line("order-1", "ShipOrder", "b", &json!({})));
    push(&line("order-1", "ApproveOrder", "c", &json!({"x": 1})));
    push(&line("order-1", "Fly", "d", &json!({})));
    push(&line("ship-1", "Fly", "e", &json!({})));
    push(&format!("{}\n", "x".repeat(300_000)));
    push(&line("order-1", "PlaceOrder", "a", &place()));
    push(&line("order-1", "PlaceOrder", "a", &json!({"items": "?"})));
    push(&line("order-1", "ApproveOrder", "a", &json!({})));
    push(r#"{"stream":"order-1","command":"ApproveOrder","expected_version":7,"data":{}}"#);
    push("\n");
    body.extend_from_slice(b"\xff\xfe\n");
    // The last line needs no line feed.
    body.extend_from_slice(
        line("order-1", "ApproveOrder", "f", &json!({}))
            .trim_end()
            .as_bytes(),
    );

    let (answered, lines) = send(&served, body).await;
    assert_eq!(answered.header("content-type"), MEDIA_TYPE);
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            let number = line["line_number"].as_u64().unwrap();
            (
                number,
                line["status"].as_u64().unwrap(),
                line["code"].as_str().unwrap_or("-"),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, 200, "-"),
            (4, 400, "json_invalid"),
            (5, 422, "order_not_approved"),
            (6, 400, "shape_invalid"),
            (7, 404, "command_unknown"),
            (8, 404, "category_unknown"),
            (9, 413, "body_too_large"),
            (10, 200, "-"),
            (11, 400, "shape_invalid"),
            (12, 422, "command_id_reused"),
            (13, 412, "version_conflict"),
            (14, 400, "json_invalid"),
            (15, 200, "-"),
        ]
    );
    assert_eq!(lines[0]["events"][0]["type"], "OrderPlaced");
    assert_eq!(lines[0]["command_id"], "a");
    assert_eq!(lines[3]["pointer"], "/data/x");
    assert_eq!(lines[3]["correlation_id"], "c");
    assert_eq!(lines[7]["repeated"], true);
    assert_eq!(lines[8]["pointer"], "/data/items");
    assert_eq!(lines[10]["current_version"], 1);
    assert_eq!(lines[12]["version"], 2);
    for line in lines.iter().filter(|line| line["status"] != 200) {
        for member in ["type", "title", "detail", "instance", "correlation_id"] {
            assert!(line[member].is_string(), "no {member}: {line}");
        }
    }
}

/// Sends a batch as one JSON text.
async fn send_array(served: &Served, body: impl Into<reqwest::Body>) -> Answered {
    let request = served.request(reqwest::Method::POST, "/v1/commands");
    let request = request.header("Content-Type", "application/json");
    ask(request.body(body)).await
}

#[tokio::test]
async fn an_array_of_commands_is_answered_with_an_array() {
    let served = Served::start().await;
    let command = |stream: &str, command: &str, id: &str, data: Value| json!({"stream": stream, "command": command, "id": id, "data": data});
    let commands = json!([
        command("order-1", "PlaceOrder", "a", place()),
        command("order-1", "ShipOrder", "b", json!({})),
        "no command",
        command("order-1", "ApproveOrder", "c", json!({})),
    ]);
    // However the text is broken into lines.
    for (repeated, text) in [
        (false, format!("{commands:#}").replace('\n', "\r\n")),
        (true, commands.to_string()),
    ] {
        let answered = send_array(&served, text).await;
        assert_eq!(answered.header("content-type"), "application/json");
        let answers = answered.body.as_array().expect("an array");
        let seen: Vec<_> = answers
            .iter()
            .map(|answer| {
                (
                    &answer["line_number"],
                    &answer["status"],
                    &answer["repeated"],
                )
            })
            .collect();
        let (said, none) = (json!(repeated), Value::Null);
        assert_eq!(
            seen,
            [
                (&json!(1), &json!(200), &said),
                (&json!(2), &json!(422), &said),
                (&json!(3), &json!(400), &none),
                (&json!(4), &json!(200), &said),
            ]
        );
    }
    assert_eq!(send_array(&served, "[]").await.body, json!([]));
}

#[tokio::test]
async fn an_array_that_is_none_or_too_long_is_refused_whole() {
    let served = Served::start().await;
    let one = json!({"stream": "order-1", "command": "PlaceOrder", "data": place()});
    for (body, status, code) in [
        ("[1, 2".to_owned(), 400, "json_invalid"),
        (one.to_string(), 400, "shape_invalid"),
        (json!(vec![0; 1_001]).to_string(), 413, "batch_too_long"),
    ] {
        let answered = send_array(&served, body).await;
        answered.is_problem(status, code);
    }
    let placed = served.command("order-1", "PlaceOrder", &place());
    assert_eq!(
        ask(placed).await.body["version"],
        1,
        "nothing was attempted"
    );
}

#[tokio::test]
async fn answers_flow_while_the_client_still_writes() {
    let served = Served::start().await;
    let (mut lines, body) = futures::channel::mpsc::unbounded::<Result<String, Infallible>>();
    // The first byte of the body makes the client send the head of the request.
    lines.send(Ok("\n".to_owned())).await.unwrap();
    let response = served
        .request(reqwest::Method::POST, "/v1/commands")
        .header("Content-Type", MEDIA_TYPE)
        // A compressed stream would wait for more to compress.
        .header("Accept-Encoding", "gzip")
        .body(reqwest::Body::wrap_stream(body))
        .send()
        .await
        .unwrap();
    assert!(!response.headers().contains_key("content-encoding"));
    let mut answers = response.bytes_stream();
    for (stream, command, status) in [
        ("order-1", "PlaceOrder", 200),
        ("order-1", "ShipOrder", 422),
        ("order-2", "PlaceOrder", 200),
    ] {
        let data = if command == "PlaceOrder" {
            place()
        } else {
            json!({})
        };
        lines
            .send(Ok(line(stream, command, command, &data)))
            .await
            .unwrap();
        // The next line is sent only after the answer to this one.
        let answer = answers.next().await.unwrap().unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["status"], status, "{answer}");
    }
    drop(lines);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_long_batch_keeps_the_order_of_each_stream() {
    let served = Served::start().await;
    let mut body = String::new();
    for order in 0..2_000 {
        let stream = format!("order-{order}");
        body.push_str(&line(&stream, "PlaceOrder", "p", &place()));
        for step in ["ApproveOrder", "ShipOrder", "DeliverOrder"] {
            body.push_str(&line(&stream, step, step, &json!({})));
        }
    }
    let (_, lines) = send(&served, body).await;
    assert_eq!(lines.len(), 8_000);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["line_number"], index + 1);
        assert_eq!(line["version"], index % 4 + 1, "{line}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_only_its_own_batch() {
    let served = Served::start().await;
    let (mut lines, body) = futures::channel::mpsc::unbounded::<Result<String, Infallible>>();
    lines
        .send(Ok(line("order-1", "PlaceOrder", "a", &place())))
        .await
        .unwrap();
    let response = served
        .request(reqwest::Method::POST, "/v1/commands")
        .header("Content-Type", MEDIA_TYPE)
        .body(reqwest::Body::wrap_stream(body))
        .send()
        .await
        .unwrap();
    drop(response);
    // An incomplete line is no command and is never attempted.
    let _ = lines.send(Ok("{\"stream\":\"order-2\"".to_owned())).await;
    drop(lines);
    let (_, answers) = send(&served, line("order-1", "PlaceOrder", "a", &place())).await;
    assert_eq!(answers[0]["status"], 200, "{answers:?}");
}

#[tokio::test]
async fn a_header_of_a_batch_counts_for_the_lines_that_leave_it_out() {
    let served = Served::start().await;
    let lines = r#"{"stream":"order-1","command":"ShipOrder","id":"a","data":{}}
        {"stream":"order-1","command":"ShipOrder","id":"b","correlation_id":"mine","data":{}}"#
        .to_owned();
    let request = served.request(reqwest::Method::POST, "/v1/commands");
    let request = request
        .header("Content-Type", MEDIA_TYPE)
        .header("Annals-Correlation-Id", "all");
    let answered = ask(request.body(lines)).await;
    let text = answered.body.as_str().unwrap().to_owned();
    let ids: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["correlation_id"].clone())
        .collect();
    assert_eq!(ids, ["all", "mine"]);
}
