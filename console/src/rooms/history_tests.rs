//! What the rooms of history show: the life of a stream, differences, and stories.

use serde_json::{Value, json};

use crate::testing::{Canned, problem};

const AT: &str = "2026-01-02T03:04:05Z";

fn event(version: u64) -> Value {
    json!({
        "id": format!("e{version}"), "type": "OrderShipped", "schema": 1, "version": version,
        "occurred_at": AT, "recorded_at": AT, "data": {"by": "air"}, "command_id": "c/1",
        "command": "ShipOrder", "correlation_id": "talk/1", "causation_id": "k",
        "actor": {"id": "ana", "kind": "user"}, "traceparent": "00-ab-cd-01", "position": null,
    })
}

fn standing(version: u64) -> Value {
    json!({"version": version, "commit": null, "recorded_at": (version > 0).then_some(AT),
           "hypothetical": false, "skipped": 0, "provisional": false})
}

fn canned(known: bool) -> Canned {
    let by = json!({
        "version": 3, "id": "e3", "type": "OrderShipped", "occurred_at": AT, "recorded_at": AT,
        "command_id": "c/1", "command": "ShipOrder", "correlation_id": "talk/1",
        "causation_id": "k", "actor": null, "traceparent": null,
    });
    let changes = json!([
        {"path": "/shipped", "kind": "added", "before": null, "after": {"by": "<air>"}, "by": by},
        {"path": "/status", "kind": "changed", "before": "paid", "after": "shipped", "by": by},
    ]);
    Canned::of([
        (
            "GET /v1/streams/order-1",
            200,
            json!({
                "stream": "order-1", "category": "order", "version": 5, "known": known,
            }),
        ),
        (
            "GET /v1/streams/order-1/state",
            200,
            json!({
                "version": 3, "state": {"status": "shipped", "total": 5, "shipped": {"by": "<air>"}},
            }),
        ),
        (
            "GET /v1/streams/order-1/events",
            200,
            json!({
                "version": 5, "events": [event(3)], "next": 4,
            }),
        ),
        (
            "GET /v1/streams/order-1/diff",
            200,
            json!({
                "from": standing(2), "to": standing(3), "changes": changes, "complete": true,
            }),
        ),
    ])
}

#[tokio::test]
async fn a_state_stands_beside_its_event_and_what_changed_is_marked() {
    let canned = canned(true);
    let (status, page) = canned.page("/console/streams/order-1?show=life&at=3").await;
    assert_eq!(status, 200, "{page}");
    let asked: Vec<String> = canned.asked().into_iter().map(|(line, ..)| line).collect();
    let expected = [
        "GET /v1/streams/order-1",
        "GET /v1/streams/order-1/state?at_version=3",
        "GET /v1/streams/order-1/events?limit=1&from_version=3",
        "GET /v1/streams/order-1/diff?from=2&to=3",
    ];
    assert_eq!(asked, expected);
    for shown in [
        "<mark class=\"s\">&quot;shipped&quot;</mark>",
        "<mark class=\"s\">&quot;&lt;air&gt;&quot;</mark>",
        "<span class=\"n\">5</span>",
        "type=\"range\" name=\"at\" min=\"0\" max=\"5\" step=\"1\" value=\"3\"",
        "show=life&amp;at=2\" rel=\"prev\"",
        "show=life&amp;at=4\" rel=\"next\"",
        "OrderShipped",
        "/console/stories/talk%2F1",
        "00-ab-cd-01",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    // The first moment has no event; what lies beyond the last one is the last one.
    let (_, page) = canned.page("/console/streams/order-1?show=life&at=0").await;
    assert!(
        page.contains("No event happened yet") && !page.contains("rel=\"prev\""),
        "{page}"
    );
    let (_, page) = canned
        .page("/console/streams/order-1?show=life&at=99")
        .await;
    assert!(
        page.contains("value=\"5\"") && !page.contains("rel=\"next\""),
        "{page}"
    );
}

#[tokio::test]
async fn any_two_versions_are_compared_whichever_comes_first() {
    let canned = canned(true);
    let path = "/console/streams/order-1?show=compare&from=3&to=2";
    let (_, page) = canned.page(path).await;
    let (asked, ..) = canned.asked().pop().unwrap();
    assert_eq!(asked, "GET /v1/streams/order-1/diff?from=2&to=3");
    for shown in [
        "/status",
        "paid",
        "3 OrderShipped",
        "not named",
        "show=life&amp;at=3",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
}

#[tokio::test]
async fn a_stream_of_an_unknown_category_has_no_states_here() {
    let canned = canned(false);
    for show in ["life", "compare"] {
        let (status, page) = canned
            .page(&format!("/console/streams/order-1?show={show}"))
            .await;
        assert_eq!(status, 200);
        assert!(page.contains("no rules for the category"), "{page}");
    }
}

#[tokio::test]
async fn a_story_shows_what_caused_what_and_what_was_refused() {
    let commit = |number: u64, depth: u64, cause: &str, more: Value| {
        let mut commit = json!({
            "commit": format!("k{number}"), "depth": depth, "cause": cause, "parent": null,
            "parent_event": null, "after_ms": null, "stream": format!("order-{number}"),
            "command_id": format!("c{number}"), "command": format!("Command{number}"),
            "causation_id": "elsewhere", "actor": {"id": "ana", "kind": "user"},
            "traceparent": null, "recorded_at": AT, "outcome": "accepted", "code": null,
            "detail": null, "events": [], "event_count": 0,
        });
        for (name, value) in more.as_object().unwrap() {
            commit[name] = value.clone();
        }
        commit
    };
    let placed = json!({"id": "e1", "type": "OrderPlaced", "version": 1});
    let commits = [
        commit(1, 0, "none", json!({"events": [placed], "event_count": 3})),
        commit(
            2,
            1,
            "event",
            json!({"parent": "k1", "parent_event": "e1", "after_ms": 1_500}),
        ),
        commit(
            3,
            1,
            "command",
            json!({
                "parent": "k1", "outcome": "refused", "code": "order_too_late", "after_ms": -20,
                "detail": "it is <too> late",
            }),
        ),
        commit(4, 0, "outside", json!({})),
    ];
    let story = json!({"commits": commits, "streams": 4, "refused": 1, "began_at": AT,
                       "ended_at": AT, "complete": false});
    let canned = Canned::of([
        ("GET /v1/stories/talk%2F1", 200, story),
        (
            "GET /v1/stories/none",
            404,
            problem("story_not_found", "nothing is recorded"),
        ),
    ]);
    let (status, page) = canned.page("/console/stories/talk%2F1").await;
    assert_eq!(status, 200, "{page}");
    for shown in [
        "4 commands (1 refused) in 4 streams",
        "There is more",
        "<a href=\"#ck1\"",
        "2 more events",
        "order_too_late",
        "it is &lt;too&gt; late",
        "1.5 s after its cause",
        "20 ms before its cause, by another clock",
        "outside of the conversation",
        "class=\"depth1\"",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let (status, page) = canned.page("/console/stories/none").await;
    assert_eq!(status, 404);
    assert!(page.contains("There is no such conversation"), "{page}");
    let (status, _) = canned.page("/console/stories?open=a%2Fb").await;
    assert_eq!(status, 303);
}

#[tokio::test]
async fn what_made_a_row_stands_in_a_table_with_its_events_and_authors() {
    let contribution = |given: u64, value: u64| {
        json!({
            "stream": "order-1", "version": 3, "event_type": "OrderPlaced", "recorded_at": AT,
            "command_id": "c/1", "command": "PlaceOrder", "correlation_id": "talk/1",
            "actor": {"id": "ana", "kind": "user"}, "table": "daily_sales", "effect": "changed",
            "cells": [{"column": "orders", "rule": "add", "given": given, "value": value}],
        })
    };
    let mut why = json!({
        "model": "daily_sales", "column": "orders", "adds_up": true, "differences": [],
        "contributions": [contribution(1, 41), contribution(1, 42)], "next": "7.0.5",
        "left_out": [{"stream": "order-9", "partition": 0, "position": 12}],
    });
    let path = "/console/models/daily_sales/2026-01-02,BRL/why?column=orders";
    let route = "GET /v1/read/daily_sales/2026-01-02%2CBRL/why";
    let canned = Canned::of([(route, 200, why.clone())]);
    let (status, page) = canned.page(path).await;
    assert_eq!(status, 200, "{page}");
    let (asked, ..) = canned.asked().pop().unwrap();
    assert_eq!(asked, format!("{route}?limit=50&column=orders"));
    for shown in [
        "Why orders",
        "OrderPlaced",
        "show=life&amp;at=3",
        "/console/streams/order-1/commands/c%2F1",
        "/console/stories/talk%2F1",
        "user ana",
        "41",
        "42",
        "add up to the row as it was then",
        "order-9, from position 12 on",
        "column=orders&amp;after=7.0.5",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    why["adds_up"] = false.into();
    why["differences"] = json!([
        {"table": "daily_sales", "column": "orders", "stored": 43, "contributed": 42},
    ]);
    let canned = Canned::of([(route, 200, why)]);
    let (_, page) = canned.page(path).await;
    for shown in ["do not add up", "43 is stored, the contributions give 42"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let problem = problem(
        "query_invalid",
        "daily_sales has no column x; its columns are: day",
    );
    let canned = Canned::of([(route, 400, problem)]);
    let (status, page) = canned.page(path).await;
    assert!(
        status == 400 && page.contains("its columns are: day"),
        "{page}"
    );
}
