//! The operators' door over a real socket: what it shows, what it does, and what it refuses.

mod replays;

use std::sync::Arc;
use std::time::Duration;

use admin_api::{AdminDoor, Controls, Replays, router};
use projector::{Projection, Projector};
use reqwest::Method;
use serde_json::{Value, json};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;
use tokio::net::TcpListener;

use crate::generated_requests::assert_door_keeps_its_document;
use crate::projections::{
    Sample, database, execute, level, scalar, shop_history, submit_all, until,
};
use crate::write_side::start;

struct Served {
    url: String,
    client: reqwest::Client,
}

impl Served {
    async fn start(log: &NewLog, postgres_url: &str, controls: Controls) -> Self {
        Self::showing(log, postgres_url, read_models(), controls).await
    }

    /// A door of a program with these read models.
    async fn showing(
        log: &NewLog,
        postgres_url: &str,
        all: Vec<Arc<dyn Projection>>,
        controls: Controls,
    ) -> Self {
        Self::with_replays(log, postgres_url, all, controls, &Replays::default()).await
    }

    async fn with_replays(
        log: &NewLog,
        postgres_url: &str,
        all: Vec<Arc<dyn Projection>>,
        controls: Controls,
        replays: &Replays,
    ) -> Self {
        let admin = AdminDoor::new(&log.log, postgres_url, &all, controls, replays).unwrap();
        let schemas = door::openapi::domain_generator();
        let fragments = [admin_api::fragment(), door::health::fragment()];
        let document = door::openapi::document(&door::Program::annals(), fragments, schemas);
        let health = door::health::Health::new([door::health::Role::QueryApi], String::new);
        let routes = router(admin)
            .merge(door::openapi::router(&document))
            .merge(door::health::router(health));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let forever = std::future::pending();
        let served = door::serve(listener, door::finish(routes), forever, Duration::ZERO);
        tokio::spawn(served);
        Self {
            url,
            client: reqwest::Client::new(),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = match body {
            Some(body) => request
                .header("content-type", "application/json")
                .header("annals-actor", "ann")
                .body(body.to_string()),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn control(&self, path: &str) -> (u16, Value) {
        let body = json!({"reason": "a test"});
        self.ask(Method::POST, path, Some(body)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_and_control_the_projections() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    let door = Served::start(&log, &url, Controls::Served).await;
    // Before any projector ran, everything is there and says that it is absent.
    let absent = door.get("/v1/projections/daily_sales").await;
    assert_eq!(absent["state"], "absent");
    assert_eq!(absent["tables"], json!(["daily_sales"]));
    let projector = Projector::spawn(&log.log, &url, &all, 1).unwrap();
    submit_all(&engine, shop_history(1, 30)).await;
    let state = async |name: &str| {
        let shown = door.get(&format!("/v1/projections/{name}")).await;
        shown["state"].as_str().unwrap().to_owned()
    };
    until("it is live", async || state("daily_sales").await == "live").await;
    until("its owner is shown", async || {
        let shown = door.get("/v1/projections/daily_sales").await;
        let places = shown["generations"][0]["partitions"]
            .as_array()
            .unwrap()
            .clone();
        let is_whole = |place: &Value| place["owner"]["name"].is_string() && place["gap"] == 0;
        places.len() == 2 && places.iter().all(is_whole)
    })
    .await;
    let shown = door.get("/v1/projections").await;
    assert_eq!(shown["projections"].as_array().unwrap().len(), all.len());

    let members = door.get("/v1/members").await;
    let leases: i64 = members["members"][0]["leases"].as_i64().unwrap();
    assert_eq!(leases, 2 * i64::try_from(all.len()).unwrap(), "{members}");

    let (status, paused) = door.control("/v1/projections/daily_sales/pause").await;
    assert_eq!((status, &paused["state"]), (200, &json!("paused")));
    assert_eq!(paused["paused"]["by"], "ann");
    assert_eq!(paused["paused"]["reason"], "a test");
    let (status, _) = door.control("/v1/projections/daily_sales/resume").await;
    assert_eq!(status, 200);
    let (status, _) = door.control("/v1/projections/daily_sales/rebuild").await;
    assert_eq!(status, 202);
    until("it is switched", async || {
        let shown = door.get("/v1/projections/daily_sales").await;
        let states = shown["generations"].as_array().unwrap().clone();
        let states: Vec<_> = states.iter().map(|g| g["state"].clone()).collect();
        states == [json!("retired"), json!("live")]
    })
    .await;
    let (status, back) = door.control("/v1/projections/daily_sales/rollback").await;
    assert_eq!(status, 200, "{back}");
    let (status, none) = door.control("/v1/projections/daily_sales/switch").await;
    assert_eq!(
        (status, &none["code"]),
        (409, &json!("state_does_not_allow"))
    );
    let (status, none) = door.control("/v1/projections/nothing/pause").await;
    assert_eq!((status, &none["code"]), (404, &json!("projection_unknown")));
    let (status, none) = door.control("/v1/projections/daily_sales/explode").await;
    assert_eq!((status, &none["code"]), (404, &json!("action_unknown")));
    let (status, none) = door.control("/v1/parked/daily_sales/order-1/retry").await;
    assert_eq!((status, &none["code"]), (404, &json!("stream_not_parked")));
    assert_eq!(door.get("/v1/parked").await["parked"], json!([]));
    // Nothing is done without a reason.
    let path = "/v1/projections/daily_sales/pause";
    for body in [
        json!({}),
        json!({"reason": " "}),
        json!({"reason": "x", "more": 1}),
    ] {
        let (status, said) = door.ask(Method::POST, path, Some(body)).await;
        assert_eq!(status, 400, "{said}");
    }
    let noted = "SELECT string_agg(actor || ' ' || action, ', ' ORDER BY id) FROM annals.control";
    assert_eq!(
        scalar::<String>(&url, noted).await,
        "ann pause, ann resume, ann rebuild, ann roll back"
    );
    // A door that others can reach shows everything and does nothing.
    let public = Served::start(&log, &url, Controls::Off).await;
    let (status, said) = public.control(path).await;
    assert_eq!((status, &said["code"]), (403, &json!("controls_off")));
    assert_eq!(
        public.get("/v1/projections/daily_sales").await["state"],
        "live"
    );
    projector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_requests_get_only_answers_of_the_document() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    drop(start(&log).await);
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let projector = Projector::spawn(&log.log, &url, &read_models(), 1).unwrap();
    until("it is ready", async || projector.ready().is_ok()).await;
    let door = Arc::new(Served::start(&log, &url, Controls::Served).await);
    let settings = include_str!("admin_door/schemathesis.toml");
    assert_door_keeps_its_document(&door.url, settings, 15).await;
    projector.stop().await.unwrap();
}

fn sample(fails_at: Option<&'static str>) -> Arc<dyn Projection> {
    Arc::new(Sample {
        name: "sample",
        version: 1,
        fails_at,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_stream_is_shown_with_the_events_that_wait() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = vec![sample(Some("order-17"))];
    let projector = Projector::spawn(&log.log, &url, &all, 1).unwrap();
    submit_all(&engine, shop_history(3, 30)).await;
    until("it has caught up", async || level(&log, &url, &all).await).await;
    let door = Served::showing(&log, &url, all, Controls::Served).await;
    let path = "/v1/parked/sample/order-17";
    let shown = door.get(path).await;
    assert!(
        shown["reason"].as_str().unwrap().contains("panicked"),
        "{shown}"
    );
    let waiting = shown["waiting"].as_array().unwrap();
    let commits = shown["commits"].as_u64().unwrap();
    assert!(commits > 1, "{shown}");
    assert_eq!(
        waiting.len() as u64 + shown["more"].as_u64().unwrap(),
        commits
    );
    assert_eq!(waiting[0]["position"], shown["position"]);
    let first = &waiting[0]["events"][0];
    assert_eq!(
        (&first["type"], &first["version"]),
        (&json!("OrderPlaced"), &json!(1))
    );
    assert!(
        first["data"].is_object() && first["occurred_at"].is_string(),
        "{first}"
    );
    let events = waiting.iter().flat_map(|c| c["events"].as_array().unwrap());
    let versions: Vec<u64> = events.map(|e| e["version"].as_u64().unwrap()).collect();
    assert!(
        versions.is_sorted() && versions.len() > 1,
        "in their order: {versions:?}"
    );
    let one = door.get(&format!("{path}?limit=1")).await;
    assert_eq!(one["waiting"].as_array().unwrap().len(), 1);
    assert_eq!(one["more"], commits - 1);
    for (path, status, code) in [
        (format!("{path}?limit=0"), 400, "query_invalid"),
        (format!("{path}?limit=101"), 400, "query_invalid"),
        (
            "/v1/parked/sample/order-1".to_owned(),
            404,
            "stream_not_parked",
        ),
        (
            "/v1/parked/nothing/order-17".to_owned(),
            404,
            "stream_not_parked",
        ),
    ] {
        let (found, said) = door.ask(Method::GET, &path, None).await;
        assert_eq!((found, &said["code"]), (status, &json!(code)), "{path}");
    }
    // Whoever looks often needs no connections of their own: a few are kept.
    let eldest = "SELECT min(backend_start)::text FROM pg_stat_activity \
                  WHERE application_name = 'annals-admin'";
    let before: String = scalar(&url, eldest).await;
    for _ in 0..10 {
        door.get("/v1/projections").await;
        door.get(path).await;
    }
    assert_eq!(scalar::<String>(&url, eldest).await, before);
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'annals-admin'";
    assert!(scalar::<i64>(&url, count).await <= 2);
    // What is not the parked record is not shown as if it were.
    let change = "UPDATE annals.parked_commit SET record_hash = sha256('other') \
                  WHERE position = (SELECT min(position) FROM annals.parked_commit)";
    execute(&url, change).await;
    let shown = door.get(path).await;
    let first = &shown["waiting"][0];
    assert!(
        first["unreadable"]
            .as_str()
            .unwrap()
            .contains("another record"),
        "{first}"
    );
    assert_eq!(first["events"], json!([]));
    assert!(shown["waiting"][1]["unreadable"].is_null(), "{shown}");
    projector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_that_the_program_lost_is_dropped() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    drop(start(&log).await);
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let mut all = read_models();
    all.push(sample(None));
    projector::catch_up(&log.log, &url, &all, Box::new(|_| {}))
        .await
        .unwrap();
    let public = Served::start(&log, &url, Controls::Off).await;
    let path = "/v1/projections/sample/drop";
    let (status, said) = public.control(path).await;
    assert_eq!((status, &said["code"]), (403, &json!("controls_off")));
    let door = Served::start(&log, &url, Controls::Served).await;
    let shown = door.get("/v1/projections/sample").await;
    assert_eq!(shown["state"], "unknown");
    // What users built on it is named and stays.
    execute(
        &url,
        "CREATE VIEW public.of_a_user AS SELECT * FROM read.sample",
    )
    .await;
    let (status, said) = door.control(path).await;
    assert_eq!(
        (status, &said["code"]),
        (409, &json!("state_does_not_allow"))
    );
    let detail = said["detail"].as_str().unwrap();
    assert!(detail.contains("of_a_user"), "{detail}");
    execute(&url, "DROP VIEW public.of_a_user").await;
    let (status, said) = door.control(path).await;
    assert_eq!(
        (status, said),
        (200, json!({"name": "sample", "generations": 1}))
    );
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'sample%'";
    assert_eq!(scalar::<i64>(&url, left).await, 0);
    let noted = "SELECT string_agg(actor || ' ' || action || ': ' || reason, ', ' ORDER BY id) \
                 FROM annals.control WHERE projection = 'sample'";
    assert_eq!(scalar::<String>(&url, noted).await, "ann drop: a test");
    let (status, said) = door.control(path).await;
    assert_eq!((status, &said["code"]), (404, &json!("projection_unknown")));
    // A projector would make it again.
    let (status, said) = door.control("/v1/projections/daily_sales/drop").await;
    assert_eq!(
        (status, &said["code"]),
        (409, &json!("state_does_not_allow"))
    );
}
