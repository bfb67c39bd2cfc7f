//! All rows as CSV or lines of JSON: whole, in bounded memory, and visibly broken where they end early.

use std::sync::Arc;

use domain::Order;
use domain::order::{OrderCanceled, OrderPlaced};
use futures::StreamExt as _;
use projector::ColumnType::{Text, Timestamptz};
use projector::{Projection, Rules, Table, Value, View, key, set};
use serde_json::{Value as Json, json};
use sqlx::Connection as _;
use tests::harness::logs::{Kind, NewLog};

use super::Served;
use crate::write_side::{place, request};

const NOTES: Table = Table {
    name: "notes",
    about: "Why orders were canceled.",
    key: &[key("order_id", Text, "The order.")],
    values: &[
        set("reason", Text, "Why.").nullable(),
        set("placed_at", Timestamptz, "When it was placed."),
    ],
    view: View::FEW_ROWS,
    ..Table::PLAIN
};

fn notes() -> Arc<dyn Projection> {
    let rules = Rules::new("notes", 1, &[NOTES]);
    let rules = rules.on::<Order, OrderPlaced>(|_, event, changes| {
        changes
            .row(&NOTES, [Value::from(event.stream_id())])
            .put("placed_at", event.occurred_at());
    });
    Arc::new(
        rules.on::<Order, OrderCanceled>(|canceled, event, changes| {
            let reason = canceled.reason.to_string();
            changes
                .row(&NOTES, [Value::from(event.stream_id())])
                .put("reason", reason.as_str());
        }),
    )
}

async fn served(reasons: &[&str]) -> (Served, String) {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let served = Served::showing(log, projector::with_general(vec![notes()])).await;
    let mut last = String::new();
    for (number, reason) in reasons.iter().enumerate() {
        let stream = format!("order-{number}");
        let placed = served
            .submit(request(&stream, "PlaceOrder", "a", &place()))
            .await;
        last = placed.position.to_string();
        if !reason.is_empty() {
            let cancel = request(&stream, "CancelOrder", "b", &json!({"reason": reason}));
            last = served.submit(cancel).await.position.to_string();
        }
    }
    (served, last)
}

#[tokio::test]
async fn a_spreadsheet_gets_text_and_a_program_gets_the_data() {
    let (served, last) = served(&["", "late, \"very\"", "=1+1", "two\nlines"]).await;
    let path = format!("/v1/read/notes?min_position={last}");
    let response = served
        .get(&path)
        .header("Accept", "text/csv")
        .send()
        .await
        .unwrap();
    let headers = response.headers().clone();
    assert_eq!(
        headers["content-type"],
        "text/csv; charset=utf-8; header=present"
    );
    assert_eq!(
        headers["content-disposition"],
        "attachment; filename=\"notes.csv\""
    );
    assert!(headers.contains_key("annals-position"));
    let at = "2018-06-04T16:44:48Z";
    let expected = format!(
        "order_id,reason,placed_at\r\n0,,{at}\r\n1,\"late, \"\"very\"\"\",{at}\r\n2,'=1+1,{at}\r\n\
         3,\"two\nlines\",{at}\r\n"
    );
    assert_eq!(response.text().await.unwrap(), expected);
    let lines = served.get("/v1/read/notes?format=ndjson&sort=-order_id&reason.null=false");
    let lines = lines.send().await.unwrap().text().await.unwrap();
    let rows: Vec<Json> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let reasons: Vec<&Json> = rows.iter().map(|row| &row["reason"]).collect();
    assert_eq!(reasons, ["two\nlines", "=1+1", "late, \"very\""]);
    // With a limit it is a page, with a link to the next one in the same form.
    let page = served
        .get("/v1/read/notes?format=csv&limit=3")
        .send()
        .await
        .unwrap();
    let link = page.headers()["link"].to_str().unwrap().to_owned();
    let next = link
        .strip_prefix('<')
        .unwrap()
        .split_once('>')
        .unwrap()
        .0
        .to_owned();
    assert!(
        page.text()
            .await
            .unwrap()
            .ends_with(&format!("'=1+1,{at}\r\n"))
    );
    let rest = served
        .get(&next)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(
        rest,
        format!("order_id,reason,placed_at\r\n3,\"two\nlines\",{at}\r\n")
    );
}

/// Makes this many rows.
async fn fill(served: &Served, rows: i32) {
    let mut connection = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    let insert = "INSERT INTO projection.notes_v1_g1 (tenant, order_id, reason, placed_at) \
                  SELECT 'main', 'n' || n, repeat('x', 200), now() FROM generate_series(1, $1) AS n";
    sqlx::query(insert)
        .bind(rows)
        .execute(&mut connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_no_whole_file() {
    const ROWS: i32 = 200_000;
    let (served, last) = served(&["none"]).await;
    served
        .ok(&format!("/v1/read/notes?min_position={last}"))
        .await;
    fill(&served, ROWS).await;
    let path = "/v1/read/notes?format=ndjson&order_id.prefix=n";
    let mut whole = served.get(path).send().await.unwrap().bytes_stream();
    let mut lines = 0;
    while let Some(piece) = whole.next().await {
        lines += piece.unwrap().iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(lines, usize::try_from(ROWS).unwrap());
    let mut connection = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    let mut broken = served.get(path).send().await.unwrap().bytes_stream();
    broken.next().await.unwrap().unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = 'annals-query' AND query LIKE '%notes%' AND state = 'active'";
    let ended: i64 = sqlx::query_scalar(end)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(ended, 1, "Postgres waits until the client reads on");
    let mut last = None;
    while let Some(piece) = broken.next().await {
        last = Some(piece.is_err());
    }
    assert_eq!(
        last,
        Some(true),
        "the client notices that it has only a part"
    );
    // The next one is whole again.
    let whole = served.get(path).send().await.unwrap().bytes().await;
    assert!(whole.unwrap().ends_with(b"}\n"));
}

#[tokio::test]
async fn exports_leave_connections_and_memory_to_other_queries() {
    let (served, last) = served(&["none"]).await;
    served
        .ok(&format!("/v1/read/notes?min_position={last}"))
        .await;
    fill(&served, 200_000).await;
    let path = "/v1/read/notes?format=csv";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = served.get(path).send().await.unwrap().bytes_stream();
        stream.next().await.unwrap().unwrap();
        open.push(stream);
    }
    served
        .problem(served.get(path), 503, "exports_exhausted")
        .await;
    for _ in 0..20 {
        served.ok("/v1/read/notes?limit=1").await;
    }
    // Who goes away makes room.
    drop(open);
    let mut tries = 0;
    while served.get(path).send().await.unwrap().status() != 200 {
        tries += 1;
        assert!(
            tries < 1_000,
            "the room of those that went away is free again"
        );
    }
}
