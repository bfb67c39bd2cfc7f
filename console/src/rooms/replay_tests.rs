//! What the rooms of replays show, in each state, and what their forms ask for.

use serde_json::{Value, json};

use crate::testing::{Canned, problem};

const AT: &str = "2026-01-02T03:04:05Z";
const ONE: &str = "GET /v1/replays/replay_sales";

fn replay(state: &str, why: Option<&str>, more: &Value) -> Value {
    let mut replay = json!({
        "schema": "replay_sales", "projection": "sales", "until": "orders > 1", "until_at": null,
        "from_snapshot": null, "begun_at": AT, "by": "user:ana", "state": state, "why": why,
        "error": null, "speed": null, "revision": 7,
        "progress": {"records_read": 50, "records": 200, "commits": 12},
        "stands": {"at": AT, "partition": 3, "position": 40}, "says": "12 commits", "step": null,
        "set_aside": [], "set_aside_streams": 0,
        "density": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z", "commits": [3, 0, 9]},
        "density_missing": null,
    });
    for (name, value) in more.as_object().unwrap() {
        replay[name] = value.clone();
    }
    replay
}

fn step() -> Value {
    let event = json!({
        "id": "e3", "type": "OrderPlaced", "schema": 1, "version": 3, "occurred_at": AT,
        "recorded_at": AT, "data": {"total": 5}, "command_id": "c/1", "command": "PlaceOrder",
        "correlation_id": "talk/1", "causation_id": "k", "actor": null, "traceparent": null,
    });
    json!({
        "tenant": "acme", "stream": "order-1", "at": AT, "partition": 3, "position": 40, "offset": 44,
        "command": "PlaceOrder", "command_id": "c/1", "correlation_id": "talk/1",
        "actor": {"id": "ana", "kind": "user"}, "refusal": null, "event": 1, "of": 2,
        "events": [event], "more": 3,
        "rows": [{"model": "sales", "key": ["day"], "is_hit": true,
                  "before": {"tenant": "acme", "orders": 1, "day": "2026-01-02", "note": null},
                  "after": {"tenant": "acme", "orders": 2, "day": "2026-01-02", "note": "<b>"}}],
    })
}

fn canned(replay: Value) -> Canned {
    let asked = "POST /v1/replays/replay_sales";
    let none = json!({});
    Canned::of([
        (ONE, 200, replay),
        (&*format!("{asked}/step"), 202, none.clone()),
        (&*format!("{asked}/play"), 202, none),
        (
            &*format!("{asked}/pause"),
            409,
            problem("replay_not_possible", "the replay has ended"),
        ),
    ])
}

async fn shown(replay: Value) -> String {
    let (status, page) = canned(replay).page("/console/replays/replay_sales").await;
    assert_eq!(status, 200, "{page}");
    page
}

#[tokio::test]
async fn each_state_of_a_replay_says_what_it_means() {
    let none = json!({});
    for (state, why, more, words) in [
        (
            "beginning",
            None,
            json!({"stands": null, "density": null}),
            "its schema is being made",
        ),
        (
            "running",
            None,
            json!({"speed": 60.0}),
            "at 60 times the recorded time",
        ),
        ("running", None, none.clone(), "as fast as possible"),
        (
            "paused",
            Some("begun"),
            none.clone(),
            "nothing was taken yet",
        ),
        ("paused", Some("stepped"), none.clone(), "a step was taken"),
        (
            "paused",
            Some("asked"),
            none.clone(),
            "it was asked to pause",
        ),
        (
            "paused",
            Some("condition"),
            none.clone(),
            "the condition became true",
        ),
        (
            "finished",
            Some("until"),
            none.clone(),
            "up to the wanted time",
        ),
        ("finished", Some("end"), none.clone(), "the log had no more"),
        (
            "stopped",
            Some("idle"),
            none.clone(),
            "nobody asked it for anything",
        ),
        (
            "stopped",
            Some("shutdown"),
            none.clone(),
            "the node stopped",
        ),
        (
            "failed",
            Some("stuck"),
            json!({"error": "a sum is too large"}),
            "a sum is too large",
        ),
    ] {
        let page = shown(replay(state, why, &more)).await;
        assert!(page.contains(words), "{state} {why:?}: {page}");
        let has_controls = page.contains("Next commit");
        assert_eq!(
            has_controls,
            ["beginning", "running", "paused"].contains(&state),
            "{state}"
        );
    }
    let missing = json!({"density": null, "density_missing": "stream_index was never made"});
    let page = shown(replay("paused", None, &missing)).await;
    assert!(
        page.contains("No time axis: stream_index was never made"),
        "{page}"
    );
    let aside = json!({"set_aside_streams": 2, "set_aside": [{"stream": "order-9", "reason": "it failed"}]});
    let page = shown(replay("paused", None, &aside)).await;
    assert!(
        page.contains("2 streams set aside") && page.contains("it failed"),
        "{page}"
    );
}

#[tokio::test]
async fn a_step_is_shown_with_its_event_and_the_rows_before_and_after() {
    let page = shown(replay(
        "paused",
        Some("condition"),
        &json!({"step": step()}),
    ))
    .await;
    for words in [
        "The condition became true",
        "/console/streams/order-1?show=life&amp;at=3&amp;tenant=acme",
        "/console/stories/talk%2F1?tenant=acme",
        "user ana",
        "1 of 2",
        "OrderPlaced",
        "condition true",
        "3 more rows changed",
        "12 commits",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    // Only what differs is marked, the key comes first, and foreign text stays text.
    let table = page.split("Row of sales before and after").nth(1).unwrap();
    let table = table.split("</table>").next().unwrap();
    assert_eq!(table.matches("<mark>").count(), 2, "{table}");
    assert!(
        table.find("day").unwrap() < table.find("orders").unwrap(),
        "{table}"
    );
    assert!(table.contains("&lt;b&gt;"), "{table}");
    assert!(
        page.contains("class=\"stands\""),
        "the axis marks where it stands: {page}"
    );
}

#[tokio::test]
async fn the_forms_ask_the_routes_of_the_node() {
    let canned = canned(replay("paused", Some("stepped"), &json!({})));
    let place = "/console/replays/replay_sales";
    let (status, to, _) = canned.post(&format!("{place}/step"), "by=event").await;
    assert_eq!(
        (status, to.as_deref()),
        (303, Some(&*format!("{place}?did=event")))
    );
    let (status, to, _) = canned.post(&format!("{place}/play"), "speed=60").await;
    assert_eq!(
        (status, to.as_deref()),
        (303, Some(&*format!("{place}?did=play")))
    );
    let (status, _, page) = canned.post(&format!("{place}/pause"), "").await;
    assert_eq!(status, 409);
    assert!(
        page.contains("the replay has ended") && page.contains("Next commit"),
        "{page}"
    );
    let posts: Vec<_> = canned
        .asked()
        .into_iter()
        .filter(|(line, ..)| line.starts_with("POST"))
        .collect();
    let bodies: Vec<Value> = posts
        .iter()
        .map(|(.., body)| serde_json::from_slice(body).unwrap())
        .collect();
    assert_eq!(
        bodies,
        [json!({"by": "event"}), json!({"speed": 60.0}), json!({})]
    );
    assert!(
        posts
            .iter()
            .all(|(_, headers, _)| headers["annals-actor"] == "user:console")
    );
    // The button that was used keeps the keyboard.
    let (_, page) = canned.page(&format!("{place}?did=event")).await;
    assert!(
        page.contains("<button autofocus>Next event</button>"),
        "{page}"
    );
}

#[tokio::test]
async fn a_replay_is_begun_by_a_form_that_keeps_what_was_typed() {
    let projections = json!({"projections": [{"name": "sales", "version": 1, "state": "live"},
                                             {"name": "gone", "version": null, "state": "unknown"}]});
    let answers = |status, said: Value| {
        Canned::of([
            ("GET /v1/replays", 200, json!({"replays": []})),
            ("GET /v1/projections", 200, projections.clone()),
            ("POST /v1/replays", status, said),
        ])
    };
    let canned = answers(202, json!({}));
    let (status, page) = canned.page("/console/replays?projection=sales").await;
    assert_eq!(status, 200);
    assert!(
        page.contains("No replay is under way") && page.contains("value=\"sales\" selected"),
        "{page}"
    );
    assert!(!page.contains("value=\"gone\""), "{page}");
    let form = "projection=sales&until=orders+%3E+1&from_snapshot=&schema=";
    let (status, to, _) = canned.post("/console/replays", form).await;
    assert_eq!(
        (status, to.as_deref()),
        (303, Some("/console/replays/replay_sales"))
    );
    let (.., body) = canned.asked().pop().unwrap();
    let expected = json!({"projection": "sales", "until": "orders > 1", "from_snapshot": null,
                          "schema": "replay_sales", "replace": false});
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    let canned = answers(409, problem("replay_not_possible", "it is no condition"));
    let (status, _, page) = canned.post("/console/replays", form).await;
    assert_eq!(status, 409);
    assert!(
        page.contains("it is no condition") && page.contains("value=\"orders &gt; 1\""),
        "{page}"
    );
}

#[tokio::test]
async fn a_replay_that_is_gone_is_said_to_be_gone() {
    let canned = Canned::of([(ONE, 404, problem("replay_unknown", "this node has none"))]);
    let (status, page) = canned.page("/console/replays/replay_sales").await;
    assert_eq!(status, 404);
    assert!(
        page.contains("This node has no such replay") && page.contains("annals_made"),
        "{page}"
    );
    let (status, page) = Canned::of([]).page("/console/replays").await;
    assert_eq!(status, 200);
    assert!(page.contains("This node does not serve this"), "{page}");
}
