//! The rooms in states that a demo is not in: projections in every state, parked streams, texts that are
//! very long, and a node whose Postgres is away.
//!
//! Deliberately absent: a node. Canned answers stand for its routes.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use console::{About, Console};
use door::Program;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{Page, visit};

const PAGES: &[Page] = &[
    ("/console", "overview", &["Not every role", "no owner"]),
    (
        "/console/projections",
        "projections",
        &["building", "stuck", "v12", "Processes that fold"],
    ),
    (
        "/console/projections/order_summary",
        "projection",
        &["a sum is too large", "Generation 8"],
    ),
    (
        "/console/projections/order_summary/switch",
        "form",
        &["becomes the live one"],
    ),
    ("/console/parked", "parked", &["it failed", "acme"]),
    (
        "/console/parked/order_summary/order-1",
        "parked-one",
        &[
            "Why it is parked",
            "another record stands",
            "10 more commits",
        ],
    ),
    (
        "/console/streams/order-1",
        "stream",
        &["OrderPlaced", "Events 1 to 2 of 60"],
    ),
    (
        "/console/streams/order-1?show=life&at=2",
        "life",
        &[
            "State at version 2",
            "The event that made it",
            "Earlier",
            "/note",
        ],
    ),
    (
        "/console/streams/order-1?show=life&at=0",
        "life-start",
        &["the empty state"],
    ),
    (
        "/console/streams/order-1?show=compare",
        "compare",
        &["From version 59", "none", "somebody@example.com"],
    ),
    (
        "/console/stories/talk",
        "story",
        &[
            "3 commands",
            "There is more",
            "order_not_approved",
            "after its cause",
        ],
    ),
    (
        "/console/stories",
        "stories",
        &["No conversation is chosen"],
    ),
    (
        "/console/models/long",
        "model",
        &["word word", "begins with"],
    ),
    ("/console/models/long/key", "row", &["word word"]),
    (
        "/console/models/away",
        "model-away",
        &["Postgres does not answer", "Try again"],
    ),
    (
        "/console/models/empty",
        "model-empty",
        &["There are no rows yet"],
    ),
    ("/console/refusals", "refusals", &["No command was refused"]),
];

/// A stream's name of the greatest length.
fn long_name() -> String {
    format!("order-{}", "0123456789abcdef".repeat(8))
}

fn partitions(gap: u64) -> Value {
    let partition = |number: u64| {
        json!({"partition": number, "position": 1_000_000 - gap, "offset": 1_000_060 - gap,
               "head": 1_000_060, "gap": gap, "lag_seconds": gap as f64 / 250.0,
               "owner": {"member": "0198b2c1-7a52-7d11-9d5c-52a0c2c65f5e", "name": "projector-a.example"},
               "stopped": (number == 3).then_some("a sum is too large for 64 bits")})
    };
    (0..6).map(partition).collect()
}

fn projection(name: &str, state: &str, gap: u64, more: &Value) -> Value {
    let mut projection = json!({
        "name": name, "version": 12, "state": state,
        "about": "Orders that were placed, with their state, sums, payments and reviews.",
        "tables": [name, "order_lines"], "gap": gap, "lag_seconds": gap as f64 / 250.0,
        "rate_per_second": (gap > 0).then_some(41_234.5), "seconds_left": (gap > 0).then_some(734.0),
        "parked_streams": 0, "paused": null, "error": null,
        "generations": [{"number": 7, "version": 11, "state": "live", "created_at": "2026-11-02T03:04:05Z",
                         "keep_until": null, "comparison": null, "partitions": partitions(gap)}],
    });
    for (name, value) in more.as_object().unwrap() {
        projection[name] = value.clone();
    }
    projection
}

fn projections() -> Vec<Value> {
    let at = "2026-11-30T12:00:00Z";
    let difference = json!({"key": long_name(), "column": "items_minor", "live": 12, "new": null});
    let compared = json!([{"table": "order_summary", "rows": 100_000, "rows_live": 100_001,
                           "differences": [difference, difference]}]);
    let stopped = json!({
        "parked_streams": 3,
        "paused": {"at": at, "by": "user:ana", "reason": "a release; ".repeat(20)},
        "error": {"at": at, "partition": 3, "offset": 1_234_567, "stream": long_name(),
                  "event_type": "OrderPlaced", "reason": "a sum is too large for 64 bits",
                  "remedy": "correct the rule, give it a new version, and rebuild"},
        "generations": [
            {"number": 7, "version": 11, "state": "live", "created_at": at, "keep_until": null,
             "comparison": null, "partitions": partitions(0)},
            {"number": 8, "version": 12, "state": "ready", "created_at": at, "keep_until": null,
             "comparison": {"at": at, "equal": false, "tables": compared}, "partitions": partitions(40)},
            {"number": 6, "version": 10, "state": "retired", "created_at": at, "keep_until": at,
             "comparison": null, "partitions": []},
        ],
    });
    let none = json!({});
    vec![
        projection("order_summary", "stopped", 40, &stopped),
        projection("daily_sales", "live", 0, &none),
        projection("seller_sales", "building", 740_000, &none),
        projection("customer_orders", "behind", 12_000, &none),
        projection("payment_mix", "stuck", 12, &none),
        projection("delivery_days", "parked", 0, &json!({"parked_streams": 1})),
        projection(
            "a_projection_whose_name_is_as_long_as_names_of_tables_may_be_in_it",
            "outdated",
            0,
            &none,
        ),
        projection(
            "old_sales",
            "absent",
            0,
            &json!({"version": null, "generations": []}),
        ),
    ]
}

fn model(name: &str) -> Value {
    let text = |name: &str| {
        json!({"name": name, "type": "text", "nullable": true, "about": "Words. ".repeat(12),
               "filters": [name, format!("{name}.prefix"), format!("{name}.in")]})
    };
    json!({"name": name, "about": "Texts of every length.", "key": ["key"], "sorts": ["key"],
           "columns": [text("key"), text("note"), text("a_column_with_a_name_that_is_long"), text("stream")]})
}

fn event(version: u64, data: &Value) -> Value {
    json!({"id": "0198b2c1-7a52-7d11-9d5c-52a0c2c65f5e", "type": "OrderPlaced", "schema": 2, "version": version,
           "occurred_at": "2026-11-30T12:00:00Z", "recorded_at": "2026-11-30T12:00:00.123456Z", "data": data,
           "command_id": "x".repeat(255), "command": "PlaceOrder", "correlation_id": "k", "causation_id": "k",
           "actor": {"id": "somebody@example.com", "kind": "user"}, "traceparent": null, "position": null})
}

/// A difference with short and long values.
fn diff() -> Value {
    let by = json!({"version": 60, "id": "0198b2c1-7a52-7d11-9d5c-52a0c2c65f5e", "type": "OrderPlaced",
                    "occurred_at": "2026-11-30T12:00:00Z", "recorded_at": "2026-11-30T12:00:00Z",
                    "command_id": "x".repeat(255), "command": "PlaceOrder", "correlation_id": "k",
                    "causation_id": "k", "traceparent": null,
                    "actor": {"id": "somebody@example.com", "kind": "user"}});
    let at = |version: u64| {
        json!({"version": version, "commit": null, "recorded_at": "2026-11-30T12:00:00Z",
               "hypothetical": false, "skipped": 0, "provisional": false})
    };
    json!({"from": at(59), "to": at(60), "complete": true, "changes": [
        {"path": "/note", "kind": "changed", "before": "a", "after": "word ".repeat(400), "by": by},
        {"path": "/id", "kind": "added", "before": null, "after": "x".repeat(300), "by": by},
        {"path": format!("/{}", "deep/".repeat(40)), "kind": "removed", "before": 1, "after": null,
         "by": null},
    ]})
}

/// A conversation with long texts, at several depths.
fn story() -> Value {
    let at = "2026-11-30T12:00:00Z";
    let commit = |number: u64, depth: u64, cause: &str, code: Option<&str>| {
        json!({
            "commit": format!("0198b2c1-7a52-7d11-9d5c-52a0c2c65f5{number}"), "depth": depth,
            "cause": cause, "parent": (depth > 0).then_some("0198b2c1-7a52-7d11-9d5c-52a0c2c65f50"),
            "parent_event": null, "after_ms": (depth > 0).then_some(1_500), "stream": long_name(),
            "command_id": "x".repeat(255), "command": "PlaceOrder", "causation_id": "y".repeat(255),
            "actor": {"id": "somebody@example.com", "kind": "user"}, "traceparent": "z".repeat(55),
            "recorded_at": at, "outcome": if code.is_some() { "refused" } else { "accepted" },
            "code": code, "detail": code.map(|_| "word ".repeat(80)), "event_count": 3,
            "events": [{"id": "0198b2c1-7a52-7d11-9d5c-52a0c2c65f5e", "type": "OrderPlaced",
                        "version": 1}],
        })
    };
    json!({"commits": [commit(0, 0, "none", None), commit(1, 1, "command", None),
                       commit(2, 12, "command", Some("order_not_approved"))],
           "streams": 1, "refused": 1, "began_at": at, "ended_at": at, "complete": false})
}

/// The canned answer of a route: its status and its JSON.
fn answer(method_and_path: &str) -> (u16, Value) {
    let words = "word ".repeat(400);
    let away = json!({"title": "Read model unavailable", "code": "read_model_unavailable",
                      "detail": "Postgres does not answer", "correlation_id": "0198b2c1-7a52-7d11-9d5c"});
    let row = json!({"key": "key", "note": words, "a_column_with_a_name_that_is_long": "x".repeat(500),
                     "stream": long_name()});
    let parked = |tenant: &str, stream: &str| {
        json!({"projection": "order_summary", "tenant": tenant, "stream": stream, "partition": 3,
               "position": 7, "event_type": "OrderPlaced", "commits": 12, "reason": "it failed: ".repeat(30),
               "parked_at": "2026-11-30T12:00:00Z", "attempts": 3, "wish": "retry"})
    };
    let owner = json!({"term": 4, "node": "node-a.example", "address": "http://10.0.0.1:4747"});
    let owners = (0..16)
        .map(|number| json!({"partition": number, "owner": (number != 5).then_some(&owner)}));
    let node = json!({"node": "node-a.example", "address": "http://10.0.0.1:4747", "decides": true,
                      "reads_record_version": 1, "program": "0.1.0", "seen_at": "2026-11-30T12:00:00Z"});
    match method_and_path {
        "GET /readyz" => (
            503,
            json!({"title": "Not ready", "code": "not_ready", "correlation_id": "c",
                                      "detail": "postgres: Postgres does not answer"}),
        ),
        "GET /v1/topology" => (
            200,
            json!({"log": "0198b2c1-7a52-7d11-9d5c-52a0c2c65f5e",
            "node": "node-a.example", "partitions": Value::from_iter(owners), "nodes": [node]}),
        ),
        "GET /v1/projections" => (200, json!({"projections": projections()})),
        "GET /v1/members" => {
            let member = json!({"id": "0198b2c1-7a52", "name": "projector-a.example", "leases": 48,
                                "started_at": "2026-11-30T09:00:00Z", "seen_at": "2026-11-30T12:00:00Z"});
            (200, json!({"members": [member]}))
        }
        "GET /v1/projections/order_summary" => (200, projections().remove(0)),
        "GET /v1/parked" => (
            200,
            json!({"parked": [parked("main", "order-1"), parked("acme", &long_name())], "next": "more"}),
        ),
        "GET /v1/parked/order_summary/order-1" => {
            let mut parked = parked("main", "order-1");
            let event = json!({"type": "OrderPlaced", "schema": 2, "version": 1,
                               "occurred_at": "2026-11-30T12:00:00Z",
                               "data": {"note": words, "id": "x".repeat(300)}});
            parked["waiting"] = json!([
                {"position": 7, "offset": 9, "unreadable": null, "command": "PlaceOrder", "refusal": null,
                 "recorded_at": "2026-11-30T12:00:00Z", "events": [event]},
                {"position": 8, "offset": 10, "unreadable": "another record stands where it was parked",
                 "recorded_at": null, "command": null, "refusal": null, "events": []},
            ]);
            parked["more"] = json!(10);
            (200, parked)
        }
        "GET /v1/streams/order-1/events" => {
            let data = json!({"note": words, "id": "x".repeat(300), "empty": {}});
            (
                200,
                json!({"stream": "order-1", "version": 60, "next": 3,
                         "events": [event(1, &data), event(2, &json!({}))]}),
            )
        }
        "GET /v1/streams/order-1" => (
            200,
            json!({"stream": "order-1", "category": "order", "version": 60, "known": true}),
        ),
        "GET /v1/streams/order-1/state" => (
            200,
            json!({"version": 2, "state": {"note": words, "id": "x".repeat(300), "lines": [1, 2]}}),
        ),
        "GET /v1/streams/order-1/diff" => (200, diff()),
        "GET /v1/stories/talk" => (200, story()),
        "GET /v1/read" => (
            200,
            json!({"models": [model("long"), model("away"), model("empty"), model("rejections")]}),
        ),
        "GET /v1/read/long" => (200, json!({"rows": [row, row], "next": "more"})),
        "GET /v1/read/long/key" => (200, row),
        "GET /v1/read/away" => (503, away),
        "GET /v1/read/empty" | "GET /v1/read/rejections" => {
            (200, json!({"rows": [], "next": null}))
        }
        _ => (404, Value::Null),
    }
}

async fn canned(request: Request) -> Response {
    let (status, answer) = answer(&format!("{} {}", request.method(), request.uri().path()));
    let status = StatusCode::from_u16(status).unwrap();
    match answer {
        Value::Null => status.into_response(),
        answer => (status, axum::Json(answer)).into_response(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_of_a_room_can_be_seen_by_anybody() {
    let console = Console::begin(About {
        program: Program::annals(),
        node: "node-a.example".to_owned(),
        settings: None,
    });
    let routes = door::finish(console.router(&Router::new().fallback(canned)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let served = door::serve(listener, routes, stopped, Duration::from_secs(5));
    let served = tokio::spawn(served);
    let visited = tokio::task::spawn_blocking(move || visit(&url, "canned", PAGES)).await;
    console.close();
    drop(stop);
    served.await.unwrap().unwrap();
    visited.unwrap();
}
