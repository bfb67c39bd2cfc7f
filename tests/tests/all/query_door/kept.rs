//! Answers that the client or the door has already: never one of rows that have changed since.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use reqwest::header::{HeaderMap, IF_NONE_MATCH};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tests::harness::logs::Kind;

use super::Served;
use crate::write_side::{place, request};

/// The status, the headers and the text of an answer.
async fn get(served: &Served, path: &str, known: Option<&str>) -> (u16, HeaderMap, String) {
    let mut request = served.get(path);
    if let Some(known) = known {
        request = request.header(IF_NONE_MATCH, known);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.text().await.unwrap())
}

async fn place_order(served: &Served, number: usize) -> String {
    let stream = format!("order-{number}");
    let placed = served
        .submit(request(&stream, "PlaceOrder", "a", &place()))
        .await;
    placed.position.to_string()
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again_until_a_row_changes() {
    let served = Served::start(Kind::Sqlite).await;
    let mut position = place_order(&served, 1).await;
    for (path, form) in [
        ("/v1/read/order_summary?limit=10", "application/json"),
        ("/v1/read/order_summary/1", "application/json"),
        ("/v1/read/order_summary?format=csv", "text/csv"),
        (
            "/v1/read/order_summary?format=ndjson&limit=10",
            "application/x-ndjson",
        ),
    ] {
        let and = if path.contains('?') { '&' } else { '?' };
        let waits = format!("{path}{and}min_position={position}");
        let (status, headers, body) = get(&served, &waits, None).await;
        assert_eq!(status, 200, "{body}");
        let content_type = headers["content-type"].to_str().unwrap();
        assert!(content_type.starts_with(form), "{content_type}");
        let tag = headers["etag"].to_str().unwrap();
        for _ in 0..2 {
            let (status, again, body) = get(&served, path, Some(tag)).await;
            assert_eq!((status, body.as_str()), (304, ""), "{path}");
            for name in ["etag", "annals-position", "vary", "cache-control"] {
                assert!(again.contains_key(name), "{path}: {name}");
            }
        }
        // Another question, another tenant and another form are something else.
        for other in ["/v1/read/daily_sales", "/v1/read/order_summary?limit=11"] {
            assert_eq!(get(&served, other, Some(tag)).await.0, 200);
        }
        let theirs = served.get(path).header("Annals-Tenant", "acme");
        let theirs = theirs.header(IF_NONE_MATCH, tag).send().await.unwrap();
        assert_ne!(theirs.status(), 304);
        let approve = request("order-1", "ApproveOrder", "b", &json!({}));
        served.submit(approve).await;
        position = place_order(&served, position.len() + path.len()).await;
        let waits = format!("{path}{and}min_position={position}");
        let (status, headers, _) = get(&served, &waits, Some(tag)).await;
        assert_eq!(status, 200, "{path}");
        assert_ne!(headers["etag"].to_str().unwrap(), tag);
    }
}

/// A writer raises a number in a row with the epoch, in one transaction, and says the number when it
/// is committed. Whoever asks from then on sees at least that number.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_is_older_than_its_request() {
    let served = Arc::new(Served::start(Kind::Sqlite).await);
    let position = place_order(&served, 1).await;
    let path = "/v1/read/order_summary/1";
    served.ok(&format!("{path}?min_position={position}")).await;
    let committed = Arc::new(AtomicI64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let readers = (0..16).map(|number| {
        let (served, committed) = (Arc::clone(&served), Arc::clone(&committed));
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            let mut tag: Option<(String, i64)> = None;
            let (mut unchanged, mut read) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                let least = committed.load(Ordering::SeqCst);
                // Some have the answer before.
                let known = tag.as_ref().filter(|_| number % 2 == 0);
                let known = known.map(|(tag, _)| tag.as_str());
                let (status, headers, body) = get(&served, path, known).await;
                let seen = match (status, &tag) {
                    (304, Some((_, seen))) => {
                        unchanged += 1;
                        *seen
                    }
                    _ => {
                        assert_eq!(status, 200, "{body}");
                        let row: Value = serde_json::from_str(&body).unwrap();
                        row["item_count"].as_i64().unwrap()
                    }
                };
                assert!(seen >= least, "{seen} after {least} was committed");
                let new = headers["etag"].to_str().unwrap().to_owned();
                tag = Some((new, seen));
                read += 1;
            }
            (unchanged, read)
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut writer = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    for number in 1..=150_i64 {
        let mut tx = writer.begin().await.unwrap();
        let change = "UPDATE projection.order_summary_v3_g1 SET item_count = $1";
        let changed = sqlx::query(change)
            .bind(number)
            .execute(&mut *tx)
            .await
            .unwrap();
        assert_eq!(changed.rows_affected(), 1);
        let raise = "UPDATE annals.generation SET epoch = epoch + 1 \
                     WHERE projection = 'order_summary' AND state = 'live'";
        sqlx::query(raise).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        committed.store(number, Ordering::SeqCst);
        // Between two changes there is time for some to find the answer kept.
        let kept = served.get(path).send().await.unwrap();
        assert_eq!(kept.json::<Value>().await.unwrap()["item_count"], number);
    }
    is_over.store(true, Ordering::Relaxed);
    let (mut unchanged, mut read) = (0, 0);
    for reader in readers {
        let (some, all) = reader.await.unwrap();
        unchanged += some;
        read += all;
    }
    println!("{read} answers, {unchanged} of them not modified");
    assert!(unchanged > 100 && read > 500, "{unchanged} of {read}");
}

#[tokio::test]
async fn every_form_of_an_answer_says_that_its_read_model_has_stopped() {
    let mut served = Served::start(Kind::Sqlite).await;
    let position = place_order(&served, 1).await;
    let all = [
        "/v1/read/order_summary?limit=10",
        "/v1/read/order_summary/1",
        "/v1/read/order_summary/2",
        "/v1/read/order_summary?format=csv",
        "/v1/read/order_summary?format=ndjson",
        "/v1/read/order_summary?format=csv&limit=10",
    ];
    let waits = format!("/v1/read/order_summary?min_position={position}");
    served.ok(&waits).await;
    served.projector.take().unwrap().stop().await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    let stop = "INSERT INTO annals.stop (projection, generation, partition, reason) \
                SELECT projection, generation, 0, 'a test' FROM annals.generation \
                WHERE projection = 'order_summary' AND state = 'live'";
    sqlx::query(stop).execute(&mut connection).await.unwrap();
    let began = std::time::Instant::now();
    while get(&served, all[0], None)
        .await
        .1
        .get("annals-stale")
        .is_none()
    {
        assert!(began.elapsed().as_secs() < 20, "the sampler notices it");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for path in all {
        let mut tag = None;
        // Anew, kept by the door, and kept by the client.
        for _ in 0..3 {
            let (status, headers, _) = get(&served, path, tag.as_deref()).await;
            assert_eq!(headers["annals-stale"], "stopped", "{path}: {status}");
            let new = headers.get("etag");
            tag = tag.or(new.map(|tag| tag.to_str().unwrap().to_owned()));
        }
        assert_eq!(tag.is_some(), !path.ends_with("/2"), "{path}");
    }
    let ahead: position::PositionToken = position.parse().unwrap();
    let mut ahead = ahead.clone();
    ahead
        .positions
        .values_mut()
        .for_each(|position| position.0 += 7);
    let behind = served.get(&format!("{}&min_position={ahead}", all[0]));
    let behind = behind.header("Prefer", "wait=0");
    let response = behind.send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["annals-stale"], "stopped");
    assert_eq!(response.headers()["preference-applied"], "wait=0");
    assert_eq!(response.headers()["retry-after"], "60");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["missing"], 7);
    assert!(problem["lag_seconds"].is_number() && problem["gap"].is_number());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_go_on_while_the_views_are_replaced() {
    let served = Arc::new(Served::start(Kind::Sqlite).await);
    let position = place_order(&served, 1).await;
    let path = "/v1/read/order_summary?customer_id.in=c1&limit=5";
    let path = path.replace("customer_id.in=c1&", "");
    served.ok(&format!("{path}&min_position={position}")).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let readers = (0..8).map(|_| {
        let (served, is_over) = (Arc::clone(&served), Arc::clone(&is_over));
        let path = path.clone();
        tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let page = served.ok(&path).await;
                assert_eq!(page["rows"][0]["order_id"], "1");
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut writer = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    let definition = "SELECT pg_get_viewdef('read.order_summary'::regclass)";
    let definition: String = sqlx::query_scalar(definition)
        .fetch_one(&mut writer)
        .await
        .unwrap();
    let mut types = ["text COLLATE \"C\"", "varchar"].iter().cycle();
    for _ in 0..40 {
        // Another type of a column: the plans that connections have prepared fail.
        let of = types.next().unwrap();
        let columns = format!(
            "SELECT d.*, d.status::{of} AS another FROM ({}) AS d",
            definition.trim_end_matches(';')
        );
        let replace = format!(
            "BEGIN; DROP VIEW read.order_summary; CREATE VIEW read.order_summary AS {columns}; COMMIT"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(replace))
            .execute(&mut writer)
            .await
            .unwrap();
        served.ok(&path).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}
