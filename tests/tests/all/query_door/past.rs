//! Read models as of a moment, over HTTP.

use reqwest::header::IF_NONE_MATCH;
use serde_json::{Value, json};
use tests::harness::logs::Kind;
use tests::harness::stack::read_models;

use super::Served;
use crate::projections::{level, shop_history, submit_all, until};
use crate::write_side::{place, request};

/// All rows of a path, page by page, and the moment that the answers name.
async fn all(served: &Served, path: &str) -> (Vec<Value>, String, bool) {
    let (mut rows, mut moment, mut provisional) = (Vec::new(), String::new(), false);
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let response = served.get(&path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let headers = response.headers().clone();
        moment = headers["annals-as-of"].to_str().unwrap().to_owned();
        provisional = headers.contains_key("annals-provisional");
        next = headers.get("link").map(|link| {
            let link = link.to_str().unwrap();
            link[1..link.find('>').unwrap()].to_owned()
        });
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        rows.extend(body["rows"].as_array().unwrap().iter().cloned());
    }
    (rows, moment, provisional)
}

#[tokio::test]
async fn rows_are_shown_as_of_a_time_or_a_position_page_by_page() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let served = Served::start(kind).await;
        submit_all(&served.engine, shop_history(31, 60)).await;
        let placed = served
            .submit(request("order-last", "PlaceOrder", "a", &place()))
            .await;
        let position = placed.position.to_string();
        let all_models = read_models();
        let caught_up = async || level(&served.log, &served.postgres_url, &all_models).await;
        until("it has caught up", caught_up).await;
        let before = served.ok("/v1/read/order_summary?limit=1000").await["rows"].clone();
        let days = served.ok("/v1/read/daily_sales?limit=1000").await["rows"].clone();
        // What comes later does not change what was.
        let mut more = shop_history(32, 90);
        for line in &mut more {
            line.id = format!("later-{}", line.id.as_str()).parse().unwrap();
        }
        submit_all(&served.engine, more).await;
        let approved = served
            .submit(request("order-last", "ApproveOrder", "b", &json!({})))
            .await;
        let later = approved.position.to_string();
        let waits = format!("/v1/read/order_summary/last?min_position={later}");
        assert_eq!(served.ok(&waits).await["status"], "approved");
        until("it has caught up", caught_up).await;
        let path = format!("/v1/read/order_summary/last?as_of={position}");
        assert_eq!(served.ok(&path).await["status"], "placed");
        // The time of the order's first event. No other commit has it.
        let events = served.ok("/v1/streams/order-last/events").await;
        let time = events["events"][0]["recorded_at"].as_str().unwrap();
        for limit in [7, 1_000] {
            let path = format!("/v1/read/order_summary?as_of={time}&limit={limit}");
            let (rows, moment, provisional) = all(&served, &path).await;
            assert_eq!(json!(rows), before, "{kind:?}");
            assert_eq!((moment.as_str(), provisional), (time, false));
        }
        let path = format!("/v1/read/daily_sales?as_of={time}&limit=1000");
        assert_eq!(json!(all(&served, &path).await.0), days);
        // The position of a moment names it, whatever comes later.
        for (path, expected) in [
            (
                format!("/v1/read/order_summary?as_of={time}&limit=1000"),
                &before,
            ),
            (
                "/v1/read/order_summary?as_of=2999-01-01T00:00:00Z&limit=1000".to_owned(),
                &served.ok("/v1/read/order_summary?limit=1000").await["rows"],
            ),
            (
                "/v1/read/order_summary?as_of=2000-01-01T00:00:00Z".to_owned(),
                &json!([]),
            ),
        ] {
            let answer = served.get(&path).send().await.unwrap();
            let position = answer.headers()["annals-as-of-position"].clone();
            let path = format!(
                "/v1/read/order_summary?as_of={}&limit=1000",
                position.to_str().unwrap()
            );
            assert_eq!(&served.ok(&path).await["rows"], expected, "{kind:?}");
        }
        // A time to come is provisional.
        let path = "/v1/read/order_summary?as_of=2999-01-01T00:00:00Z&limit=1000";
        let (rows, _, provisional) = all(&served, path).await;
        let present = served.ok("/v1/read/order_summary?limit=1000").await["rows"].clone();
        assert_eq!((json!(rows), provisional), (present, true));
        // Before everything there is nothing.
        let path = "/v1/read/order_summary?as_of=2000-01-01T00:00:00Z";
        assert!(all(&served, path).await.0.is_empty());
        let missing = served.get("/v1/read/order_summary/last?as_of=2000-01-01T00:00:00Z");
        served.problem(missing, 404, "row_not_found").await;
        // The client has it already.
        let path = format!("/v1/read/order_summary/last?as_of={time}");
        let tag = served.get(&path).send().await.unwrap().headers()["etag"].clone();
        let again = served.get(&path).header(IF_NONE_MATCH, tag).send().await;
        assert_eq!(again.unwrap().status(), 304);
    }
}

#[tokio::test]
async fn what_cannot_be_shown_as_of_a_moment_is_refused_with_what_to_do() {
    let served = Served::start(Kind::Sqlite).await;
    served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    for moment in ["yesterday", "2026-03-01", "", "AgGiK-WAzXdK"] {
        let asked = served.get(&format!("/v1/read/order_summary?as_of={moment}"));
        let problem = served.problem(asked, 400, "query_invalid").await;
        assert_eq!(problem["parameter"], "as_of");
    }
    let asked = served.get("/v1/read/order_summary?format=csv&as_of=2026-03-01T00:00:00Z");
    served.problem(asked, 422, "limit_needed").await;
    // A position of another log, and one that is not reached.
    let other = Served::start(Kind::Sqlite).await;
    let elsewhere = other
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let token = elsewhere.position.to_string();
    let asked = served.get(&format!("/v1/read/order_summary?as_of={token}"));
    served.problem(asked, 409, "position_of_other_log").await;
    let mut ahead = served
        .submit(request("order-2", "PlaceOrder", "b", &place()))
        .await
        .position;
    ahead.positions.values_mut().for_each(|at| at.0 += 1_000);
    let asked = served
        .get(&format!("/v1/read/order_summary?as_of={ahead}"))
        .header("Annals-Timeout-Ms", "100");
    served.problem(asked, 503, "read_model_behind").await;
    let asked = served.get("/v1/read/stream_index?as_of=2026-03-01T00:00:00Z");
    served.problem(asked, 409, "history_off").await;
}
