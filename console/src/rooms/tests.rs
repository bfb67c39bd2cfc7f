//! What each room shows of what the node answers: things that are there, nothing, and what failed.

use serde_json::{Value, json};

use crate::testing::{Canned, problem};

fn models() -> Value {
    json!({"models": [
        {"name": "order_summary", "about": "Orders & <sums>.", "key": ["order_id"], "sorts": ["order_id"], "columns": [
            {"name": "order_id", "type": "text", "nullable": false, "about": "The order.",
             "filters": ["order_id", "order_id.prefix"]},
            {"name": "total", "type": "bigint", "nullable": true, "about": "Its sum.",
             "filters": ["total.gte"]},
        ]},
        {"name": "stream_index", "key": ["stream"], "about": "Streams.", "columns": [
            {"name": "stream", "type": "text", "nullable": false, "about": "The stream.",
             "filters": ["stream", "stream.prefix"]},
        ]},
        {"name": "rejections", "key": ["stream", "position"], "about": "Refusals.", "columns": [
            {"name": "code", "type": "text", "nullable": false, "about": "The code.",
             "filters": ["code"]},
        ]},
    ]})
}

/// Every first page, with a page below it that asks other routes.
const PAGES: [&str; 16] = [
    "/console",
    "/console/streams",
    "/console/streams/order-1",
    "/console/streams/order-1?show=life",
    "/console/streams/order-1?show=compare",
    "/console/stories/talk",
    "/console/streams/order-1/commands/c1",
    "/console/models",
    "/console/models/order_summary",
    "/console/models/order_summary/1",
    "/console/refusals",
    "/console/projections",
    "/console/projections/p",
    "/console/parked",
    "/console/parked/p/order-1",
    "/console/configuration",
];

#[tokio::test]
async fn a_node_without_a_role_says_so_in_words() {
    let canned = Canned::of([]);
    for path in PAGES {
        let (status, page) = canned.page(path).await;
        assert_eq!(status, 200, "{path}: {page}");
        let says = [
            "This node does not serve this",
            "takes no commands",
            "Chosen for this process",
        ];
        assert!(
            says.iter().any(|words| page.contains(words)),
            "{path}: {page}"
        );
    }
}

#[tokio::test]
async fn a_failure_is_shown_with_what_to_do() {
    let failed = |path| {
        (
            path,
            503,
            problem("read_model_unavailable", "Postgres <is> away"),
        )
    };
    let canned = Canned::of([
        failed("GET /v1/read"),
        failed("GET /v1/streams/order-1/events"),
        failed("GET /v1/projections"),
        failed("GET /v1/parked"),
        failed("GET /readyz"),
        failed("GET /v1/topology"),
    ]);
    for path in [
        "/console/streams",
        "/console/streams/order-1",
        "/console/models",
        "/console/refusals",
        "/console/projections",
        "/console/parked",
    ] {
        let (status, page) = canned.page(path).await;
        assert_eq!(status, 503, "{path}");
        assert!(page.contains("Postgres &lt;is&gt; away"), "{path}: {page}");
        assert!(page.contains("Try again"), "{path}");
        assert!(page.contains("<code>c-1</code>"), "{path}");
    }
    let (status, page) = canned.page("/console").await;
    assert_eq!(status, 200);
    assert!(
        page.contains("Not every role of this node is ready"),
        "{page}"
    );
}

#[tokio::test]
async fn a_room_with_nothing_in_it_says_what_to_do_next() {
    let none = |path| (path, 200, json!({"rows": [], "next": null}));
    let canned = Canned::of([
        ("GET /v1/read", 200, models()),
        none("GET /v1/read/order_summary"),
        none("GET /v1/read/stream_index"),
        none("GET /v1/read/rejections"),
        ("GET /v1/projections", 200, json!({"projections": []})),
        ("GET /v1/parked", 200, json!({"parked": [], "next": null})),
        (
            "GET /v1/streams/order-1/events",
            200,
            json!({"stream": "order-1", "version": 0, "events": [], "next": null}),
        ),
        (
            "GET /v1/streams/order-2/events",
            404,
            problem("stream_not_found", "nothing is recorded"),
        ),
    ]);
    for (path, words, next) in [
        (
            "/console/models/order_summary",
            "There are no rows yet",
            "Send a command",
        ),
        (
            "/console/models/order_summary?order_id=1",
            "No row fits",
            "Show all rows",
        ),
        ("/console/streams", "no streams yet", "Send a command"),
        (
            "/console/streams?prefix=x",
            "No stream begins so",
            "Show all streams",
        ),
        ("/console/refusals", "No command was refused", "as soon as"),
        (
            "/console/projections",
            "has no projections",
            "Declare a projection",
        ),
        ("/console/parked", "No stream is parked", "Projections"),
        (
            "/console/streams/order-1",
            "The stream has no events",
            "Refusals",
        ),
        (
            "/console/streams/order-2",
            "There is no such stream",
            "All streams",
        ),
    ] {
        let (_, page) = canned.page(path).await;
        assert!(
            page.contains(words) && page.contains(next),
            "{path}: {page}"
        );
    }
}

#[tokio::test]
async fn rows_are_shown_with_their_filters_and_ways_to_the_next_page() {
    let rows = json!({"rows": [{"order_id": "a<b,c", "total": 12345}, {"order_id": "d", "total": null}],
                      "next": "cur"});
    let canned = Canned::of([
        ("GET /v1/read", 200, models()),
        ("GET /v1/read/order_summary", 200, rows),
    ]);
    let (_, page) = canned
        .page("/console/models/order_summary?total.gte=5&sort=-order_id&x=1")
        .await;
    let (asked, ..) = canned.asked().pop().unwrap();
    assert_eq!(
        asked,
        "GET /v1/read/order_summary?total.gte=5&sort=-order_id&limit=50"
    );
    for shown in [
        "Orders &amp; &lt;sums&gt;.",
        "/console/models/order_summary/a%3Cb%2Cc",
        ">12345<",
        "aria-sort=\"descending\"",
        // The filter's chip, and the address without it.
        "is at least",
        "href=\"/console/models/order_summary?sort=-order_id&amp;x=1\"",
        "after=cur",
        "/console/csv/order_summary?total.gte=5&amp;sort=-order_id",
        "<option value=\"order_id.prefix\">order_id begins with</option>",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    // A form names the filter and its value apart; the page's address has them together.
    let request = axum::extract::Request::builder()
        .uri("/console/models/order_summary?total.gte=5&after=cur&add=order_id.prefix&value=a%26b&tenant=acme");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let response = canned.answer(request).await;
    assert_eq!(response.status().as_u16(), 303);
    let place = response.headers()["location"].to_str().unwrap();
    assert_eq!(
        place,
        "/console/models/order_summary?total.gte=5&order_id.prefix=a%26b&tenant=acme"
    );
}

#[tokio::test]
async fn a_filter_by_several_values_takes_one_after_the_other() {
    let canned = Canned::of([
        ("GET /v1/read", 200, models()),
        (
            "GET /v1/read/order_summary",
            200,
            json!({"rows": [], "next": null}),
        ),
    ]);
    let path = "/console/models/order_summary?order_id.in=a&order_id.in=b&total.null=false";
    let (_, page) = canned.page(path).await;
    for shown in [
        "href=\"/console/models/order_summary?order_id.in=b&amp;total.null=false\"",
        "href=\"/console/models/order_summary?order_id.in=a&amp;total.null=false\"",
        "is not empty",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let place = async |form: &str| {
        let request = axum::extract::Request::builder().uri(format!("{path}&{form}"));
        let response = canned
            .answer(request.body(axum::body::Body::empty()).unwrap())
            .await;
        response.headers()["location"].to_str().unwrap().to_owned()
    };
    assert_eq!(
        place("add=order_id.in&value=c").await,
        format!("{path}&order_id.in=c")
    );
    let other = "/console/models/order_summary?order_id.in=a&order_id.in=b&total.null=true";
    assert_eq!(place("add=total.null&value=").await, other);
}

#[tokio::test]
async fn a_tenant_stays_in_every_address_and_reaches_the_node() {
    let canned = Canned::of([
        ("GET /v1/read", 200, models()),
        (
            "GET /v1/read/stream_index",
            200,
            json!({"rows": [], "next": null}),
        ),
    ]);
    let (_, page) = canned.page("/console/streams?tenant=acme").await;
    for href in page.split("href=\"/console").skip(1) {
        let href = href.split('"').next().unwrap();
        assert!(
            href.starts_with("/files/") || href.contains("tenant=acme"),
            "{href}"
        );
    }
    assert!(
        canned
            .asked()
            .iter()
            .all(|(_, headers, _)| headers["annals-tenant"] == "acme")
    );
    let (status, page) = canned.page("/console/streams?tenant=NO!").await;
    assert_eq!(status, 400);
    assert!(page.contains("Not the name of a tenant"), "{page}");
}

#[tokio::test]
async fn events_are_shown_in_order_with_their_data_and_commands() {
    let event = |version: u64, kind: &str| {
        json!({
            "id": format!("e{version}"), "type": kind, "schema": 1, "version": version,
            "occurred_at": "2026-01-02T03:04:05Z", "recorded_at": "2026-01-02T03:04:06Z",
            "data": {"z": 1, "a": "<b>"}, "command_id": "c/1", "command": "Place",
            "correlation_id": "k", "causation_id": "k", "actor": {"id": "ana", "kind": "user"},
            "traceparent": null, "position": null,
        })
    };
    let events = json!({"stream": "order-1", "version": 120, "next": 53,
                        "events": [event(51, "Placed"), event(52, "Shipped")]});
    let canned = Canned::of([("GET /v1/streams/order-1/events", 200, events)]);
    let (_, page) = canned.page("/console/streams/order-1?from=51").await;
    let (asked, ..) = canned.asked().pop().unwrap();
    assert_eq!(
        asked,
        "GET /v1/streams/order-1/events?limit=50&from_version=51"
    );
    for shown in [
        "Events 51 to 52 of 120.",
        ">Placed</h2>",
        "&lt;b&gt;",
        "/console/streams/order-1/commands/c%2F1",
        "user ana",
        "?from=1\"",
        "?from=53\"",
        "?from=71\"",
        "2026-01-02 03:04:05",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(page.find(">Placed<") < page.find(">Shipped<"));
}

#[tokio::test]
async fn every_page_may_load_only_its_own_files_and_has_its_landmarks() {
    let canned = Canned::of([]);
    for path in PAGES.into_iter().chain(["/console/nothing"]) {
        let request = axum::extract::Request::builder().uri(path);
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = canned.answer(request).await;
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        assert!(
            policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
            "{policy}"
        );
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        let page = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            !page.contains(" style=") && !page.contains("<style") && !page.contains("//"),
            "{page}"
        );
        for part in [
            "<html lang=\"en\">",
            "<main id=\"content\"",
            "href=\"#content\"",
            "</h1>",
        ] {
            assert_eq!(page.matches(part).count(), 1, "{path}: {part}");
        }
        for file in page.split("/console/files/").skip(1) {
            let file = format!("/console/files/{}", file.split('"').next().unwrap());
            let (status, _) = canned.page(&file).await;
            assert_eq!(status, 200, "{file}");
        }
    }
    assert_eq!(canned.page("/console/files/console.css").await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn what_is_live_is_sent_again_and_ends_with_the_console() {
    use futures::StreamExt as _;
    let ready = json!({"status": "ready", "roles": {"query-api": "ready"}, "checks": {}});
    let canned = Canned::of([("GET /readyz", 200, ready)]);
    let follow = async || {
        let request = axum::extract::Request::builder().uri("/console/live/overview");
        canned
            .answer(request.body(axum::body::Body::empty()).unwrap())
            .await
    };
    let response = follow().await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = response.into_body().into_data_stream();
    assert!(
        events
            .next()
            .await
            .unwrap()
            .unwrap()
            .starts_with(b"retry: ")
    );
    let part = events.next().await.unwrap().unwrap();
    let part = std::str::from_utf8(&part).unwrap();
    assert!(
        part.starts_with("data: ") && part.ends_with("\n\n") && part.contains("query-api"),
        "{part}"
    );
    // Only so many browsers are followed; a place is free again when one has gone.
    let mut others = Vec::new();
    for _ in 1..crate::LISTENERS_MAX {
        others.push(follow().await);
    }
    assert_eq!(follow().await.status().as_u16(), 503);
    others.pop();
    assert_eq!(follow().await.status().as_u16(), 200);
    canned.console.close();
    while events.next().await.is_some() {}
}
