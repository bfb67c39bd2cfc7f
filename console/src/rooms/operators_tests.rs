//! What the rooms of operators show and send: projections, parked streams, and forms.

use serde_json::{Value, json};

use crate::testing::{Canned, problem};

fn projection(state: &str, more: &Value) -> Value {
    let mut projection = json!({
        "name": "sales", "version": 3, "state": state, "about": "Sums.", "tables": ["daily_sales"],
        "gap": 40, "lag_seconds": 1.5, "rate_per_second": 200.0, "seconds_left": 0.2,
        "parked_streams": 2, "paused": null, "error": null,
        "generations": [{"number": 7, "version": 3, "state": "live", "created_at": "2026-01-02T03:04:05Z",
            "keep_until": null, "comparison": null,
            "partitions": [{"partition": 0, "position": 60, "offset": 61, "head": 100, "gap": 40,
                "lag_seconds": 1.5, "owner": {"member": "m-1", "name": "host-a"}, "stopped": null}]}],
    });
    for (name, value) in more.as_object().unwrap() {
        projection[name] = value.clone();
    }
    projection
}

#[tokio::test]
async fn a_projection_shows_how_it_is_and_what_can_be_done() {
    let stopped = projection(
        "stopped",
        &json!({

            "paused": {"at": "2026-01-02T03:04:05Z", "by": "user:ana", "reason": "maintenance"},
            "error": {"at": "2026-01-02T03:04:05Z", "partition": 0, "offset": 61, "stream": "order-9",
                      "event_type": "OrderShipped", "reason": "a sum is too large", "remedy": "fix the rule"},
            "generations": [
                {"number": 7, "version": 3, "state": "live", "created_at": null, "keep_until": null,
                 "comparison": null, "partitions": []},
                {"number": 8, "version": 4, "state": "ready", "created_at": null, "keep_until": null,
                 "comparison": {"at": "2026-01-02T03:04:05Z", "equal": false, "tables": [
                    {"table": "daily_sales", "rows": 10, "rows_live": 11, "differences": [
                        {"key": "2026-01-01,BRL", "column": "orders", "live": 4, "new": 5}]}]},
                 "partitions": []}],
        }),
    );
    let canned = Canned::of([
        (
            "GET /v1/projections",
            200,
            json!({"projections": [projection("live", &json!({}))]}),
        ),
        ("GET /v1/projections/sales", 200, stopped),
        (
            "GET /v1/members",
            200,
            json!({"members": [{"id": "m-1", "name": "host-a.example", "leases": 12,
                "started_at": "2026-01-02T03:04:05Z", "seen_at": "2026-01-02T03:04:05Z"}]}),
        ),
        (
            "GET /v1/projections/none",
            404,
            problem("projection_unknown", "no projection is named none"),
        ),
    ]);
    let (_, page) = canned.page("/console/projections").await;
    assert!(
        page.contains("host-a.example") && page.contains(">12<"),
        "{page}"
    );
    for shown in [
        ">live<",
        "value=\"60\"",
        "1.5 s",
        "200/s",
        "2 parked streams",
        "v3",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let (_, page) = canned.page("/console/projections/sales").await;
    for shown in [
        "a sum is too large",
        "fix the rule",
        "/console/streams/order-9",
        "maintenance",
        "It differs from the live one",
        "2026-01-01,BRL",
        "/console/projections/sales/switch",
        "/console/projections/sales/resume",
        "/console/projections/sales/cancel",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    for absent in ["sales/pause\"", "sales/rollback\""] {
        assert!(!page.contains(absent), "{absent}");
    }
    let (status, page) = canned.page("/console/projections/none").await;
    assert_eq!(status, 404);
    assert!(page.contains("no projection is named none"), "{page}");
}

#[tokio::test]
async fn a_form_asks_the_node_with_reason_and_name() {
    let canned = Canned::of([
        ("POST /v1/projections/sales/pause", 202, json!({})),
        (
            "POST /v1/projections/sales/switch",
            409,
            problem("not_ready", "it has not caught up"),
        ),
        ("POST /v1/parked/sales/order-1/discard", 200, json!({})),
    ]);
    let (status, page) = canned.page("/console/projections/sales/pause").await;
    assert_eq!(status, 200);
    assert!(
        page.contains("method=\"post\" action=\"/console/projections/sales/pause\""),
        "{page}"
    );
    let form = "reason=a+release&who=ana";
    let (status, place, _) = canned.post("/console/projections/sales/pause", form).await;
    assert_eq!(
        (status, place.as_deref()),
        (303, Some("/console/projections/sales?done=pause"))
    );
    let (line, headers, body) = canned.asked().pop().unwrap();
    assert_eq!(line, "POST /v1/projections/sales/pause");
    assert_eq!(headers["annals-actor"], "user:ana");
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({"reason": "a release"})
    );
    // What the node refuses is shown, and the form keeps what was filled in.
    let (status, _, page) = canned.post("/console/projections/sales/switch", form).await;
    assert_eq!(status, 409);
    assert!(
        page.contains("it has not caught up") && page.contains("value=\"a release\""),
        "{page}"
    );
    // Nothing is asked without a reason, or for what is no action.
    let before = canned.asked().len();
    let (status, ..) = canned
        .post("/console/projections/sales/pause", "reason=+&who=ana")
        .await;
    assert_eq!(status, 422);
    let (status, ..) = canned
        .post("/console/projections/sales/explode", form)
        .await;
    assert_eq!(status, 404);
    assert_eq!(canned.asked().len(), before);
    let (status, place, _) = canned
        .post("/console/parked/sales/order-1/discard", "reason=known")
        .await;
    assert_eq!(
        (status, place.as_deref()),
        (303, Some("/console/parked?projection=sales&done=discard"))
    );
    assert_eq!(
        canned.asked().pop().unwrap().1["annals-actor"],
        "user:console"
    );
}

#[tokio::test]
async fn parked_streams_lead_to_their_pages_also_those_of_other_tenants() {
    let parked = json!({"parked": [
        {"projection": "sales", "tenant": "main", "stream": "order-1", "partition": 3, "position": 7,
         "event_type": "OrderShipped", "commits": 4, "reason": "it failed", "parked_at": "2026-01-02T03:04:05Z"},
        {"projection": "sales", "tenant": "acme", "stream": "order-2", "partition": 3, "position": 9,
         "event_type": "OrderShipped", "commits": 1, "reason": "it failed", "parked_at": "2026-01-02T03:04:05Z"},
    ], "next": "n1"});
    let mut first = parked["parked"][0].clone();
    first["waiting"] = json!([
        {"position": 7, "offset": 9, "unreadable": null, "recorded_at": "2026-01-02T03:04:05Z",
         "command": "ShipOrder", "refusal": null, "events": [
            {"type": "OrderShipped", "schema": 2, "version": 3, "occurred_at": "2026-01-02T03:04:05Z",
             "data": {"carrier": "C-17"}}]},
        {"position": 8, "offset": 10, "unreadable": "the record is gone", "recorded_at": null,
         "command": null, "refusal": null, "events": []},
        {"position": 9, "offset": 11, "unreadable": null, "recorded_at": "2026-01-02T03:04:05Z",
         "command": "ShipOrder", "refusal": "order_not_approved", "events": []},
    ]);
    first["more"] = json!(1);
    let mut second = parked["parked"][1].clone();
    (second["waiting"], second["more"]) = (json!([]), json!(0));
    let gone = problem("stream_not_parked", "sales has not parked order-3");
    let canned = Canned::of([
        ("GET /v1/parked", 200, parked),
        ("GET /v1/parked/sales/order-1", 200, first),
        ("GET /v1/parked/sales/order-2", 200, second),
        ("GET /v1/parked/sales/order-3", 404, gone),
    ]);
    let (_, page) = canned.page("/console/parked?projection=sales").await;
    for shown in [
        "href=\"/console/parked/sales/order-1\"",
        "href=\"/console/parked/sales/order-2?tenant=acme\"",
        "after=n1",
        "it failed",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let (_, page) = canned.page("/console/parked/sales/order-1").await;
    for shown in [
        "sales/order-1/retry",
        "sales/order-1/discard",
        "Why it is parked",
        "OrderShipped",
        "C-17",
        "schema 2",
        "the record is gone",
        "refused: order_not_approved",
        "1 more commit ",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let (status, page) = canned
        .page("/console/parked/sales/order-2?tenant=acme")
        .await;
    assert!(status == 200 && page.contains("1 commit<"), "{page}");
    let (status, page) = canned.page("/console/parked/sales/order-3").await;
    assert!(
        status == 404 && page.contains("has not parked order-3"),
        "{page}"
    );
}
