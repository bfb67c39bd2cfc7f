//! A row of a parked stream is refused, never shown as if it were current; every other answer of the
//! read model tells how many streams are parked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use projector::{
    Actor, Changes, ColumnType, Entry, KeyIs, Operator, ParkedWish, ProjectError, Projection,
    RowsOf, Table, Value as Cell, View, key, set, tally,
};
use reqwest::header::{HeaderMap, IF_NONE_MATCH};
use serde_json::{Value, json};
use tests::harness::logs::{Kind, NewLog};

use super::{Served, of_tenant};
use crate::projections::until;
use crate::write_side::{place, request};

const TABLES: &[Table] = &[
    Table {
        name: "own",
        about: "A row for each order, under its id.",
        key: &[key("id", ColumnType::Text, "The order.")],
        values: &[set("status", ColumnType::Text, "What it did last.")],
        key_is: KeyIs::StreamId("order"),
        ..Table::PLAIN
    },
    Table {
        name: "numbers",
        about: "A row for each order, under another key.",
        key: &[key("number", ColumnType::Bigint, "Ten times the order.")],
        values: &[set("status", ColumnType::Text, "What it did last.")],
        rows: RowsOf::OneStream,
        ..Table::PLAIN
    },
    Table {
        name: "sums",
        about: "A row for all orders.",
        key: &[key("id", ColumnType::Text, "Always the same.")],
        values: &[tally("events", "How many.")],
        view: View::FEW_ROWS,
        ..Table::PLAIN
    },
];

/// Fails at what two orders of the tenant `main` do, until it is corrected.
struct Failing {
    is_corrected: Arc<AtomicBool>,
}

impl Projection for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        TABLES
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        let id = entry.stream_id();
        for event in &entry.commit().events {
            let status = event.type_name.as_str();
            let fails = matches!((id, status), ("2", "OrderApproved") | ("3", _));
            let is_main = entry.commit().tenant.as_str() == "main";
            let is_corrected = self.is_corrected.load(Ordering::SeqCst);
            assert!(
                !fails || !is_main || is_corrected,
                "this cannot be taken up"
            );
            let number: i64 = id.parse().unwrap();
            changes
                .row(&TABLES[0], [Cell::from(id)])
                .put("status", status);
            let number = [Cell::from(10 * number)];
            changes.row(&TABLES[1], number).put("status", status);
            changes
                .row(&TABLES[2], [Cell::from("1")])
                .put("events", 1_i64);
        }
        Ok(())
    }
}

async fn get(served: &Served, path: &str, known: Option<&str>) -> (u16, HeaderMap, String) {
    let mut request = served.get(path);
    if let Some(known) = known {
        request = request.header(IF_NONE_MATCH, known);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.text().await.unwrap())
}

fn parked(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("annals-parked")
        .map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_row_of_a_parked_stream_is_refused_and_other_answers_tell_how_many_are_parked() {
    let is_corrected = Arc::new(AtomicBool::new(false));
    let failing = Failing {
        is_corrected: Arc::clone(&is_corrected),
    };
    let all: Vec<Arc<dyn Projection>> = vec![Arc::new(failing)];
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let served = Served::showing(log, all.clone()).await;
    let placing = |number: u32| request(&format!("order-{number}"), "PlaceOrder", "a", &place());
    served.submit(of_tenant("acme", placing(2))).await;
    served.submit(placing(1)).await;
    let placed = served.submit(placing(2)).await.position;
    let (status, headers, _) = get(
        &served,
        &format!("/v1/read/own/2?min_position={placed}"),
        None,
    )
    .await;
    assert_eq!((status, parked(&headers)), (200, None));
    let tag = headers["etag"].to_str().unwrap().to_owned();
    let approve = request("order-2", "ApproveOrder", "b", &json!({}));
    let approved = served.submit(approve).await.position;
    let third = served.submit(placing(3)).await.position;
    for position in [approved, third] {
        served
            .ok(&format!("/v1/read/sums?min_position={position}"))
            .await;
    }

    // Also for a client that has the row, and where the door kept it.
    for (path, stream) in [
        ("/v1/read/own/2", "order-2"),
        ("/v1/read/own/3", "order-3"),
        ("/v1/read/own?id=2", "order-2"),
        ("/v1/read/own?id.in=2", "order-2"),
        ("/v1/read/own?id=3&format=csv", "order-3"),
        ("/v1/read/numbers/20", "order-2"),
        ("/v1/read/numbers?number=20", "order-2"),
        ("/v1/read/numbers?number=20&format=ndjson", "order-2"),
    ] {
        let (status, headers, body) = get(&served, path, Some(&tag)).await;
        assert_eq!(status, 503, "{path}: {body}");
        assert_eq!(headers["retry-after"], "60", "{path}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["code"], "parked", "{path}");
        assert_eq!(problem["stream"], stream, "{path}");
        assert!(problem["position"].is_u64() && problem["partition"].is_u64());
        let detail = problem["detail"].as_str().unwrap();
        let todo = format!("annals parked show failing {stream}");
        assert!(detail.ends_with(&todo), "{detail}");
    }
    let others = [
        ("/v1/read/own/1", 200),
        ("/v1/read/own/4", 404),
        ("/v1/read/own?id=1", 200),
        ("/v1/read/own", 200),
        ("/v1/read/own?format=csv", 200),
        ("/v1/read/own?format=ndjson&limit=2", 200),
        ("/v1/read/own?id.in=1&id.in=2", 200),
        ("/v1/read/numbers/10", 200),
        ("/v1/read/numbers/30", 404),
        ("/v1/read/sums/1", 200),
    ];
    for (path, expected) in others {
        // Anew, kept by the door, kept by the client.
        let mut tag: Option<String> = None;
        for expected in [expected, expected, if expected == 200 { 304 } else { 404 }] {
            let known = tag.as_deref().filter(|_| expected == 304);
            let (status, headers, body) = get(&served, path, known).await;
            assert_eq!(status, expected, "{path}: {body}");
            assert_eq!(parked(&headers), Some("2"), "{path}: {status}");
            tag = headers
                .get("etag")
                .map(|tag| tag.to_str().unwrap().to_owned());
        }
    }
    // Another tenant's streams are its own.
    let theirs = served.get("/v1/read/own/2").header("Annals-Tenant", "acme");
    let theirs = theirs.send().await.unwrap();
    assert_eq!(
        (theirs.status().as_u16(), parked(theirs.headers())),
        (200, None)
    );

    let (_, headers, _) = get(&served, "/v1/read/own/1", None).await;
    let tag = headers["etag"].to_str().unwrap().to_owned();
    is_corrected.store(true, Ordering::SeqCst);
    let mut operator = Operator::connect(&served.postgres_url, &all).await.unwrap();
    for stream in ["order-2", "order-3"] {
        let actor = Actor {
            name: "ann",
            reason: "the rule is corrected",
        };
        let wish = operator.wish("failing", "main", stream, ParkedWish::Retry, actor);
        assert!(wish.await.unwrap());
    }
    until("both are taken up", async || {
        operator.parked(None, None, 10).await.unwrap().is_empty()
    })
    .await;
    for path in ["/v1/read/own/2", "/v1/read/numbers/30", "/v1/read/own"] {
        let (status, headers, body) = get(&served, path, None).await;
        assert_eq!((status, parked(&headers)), (200, None), "{path}: {body}");
    }
    assert_eq!(served.ok("/v1/read/own/2").await["status"], "OrderApproved");
    // What a client has from before says another number.
    let (status, headers, _) = get(&served, "/v1/read/own/1", Some(&tag)).await;
    assert_eq!((status, parked(&headers)), (200, None));
}
