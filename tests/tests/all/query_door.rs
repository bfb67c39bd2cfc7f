//! The query door on a real log and a real Postgres, over real sockets.
//!
//! Invariant tested: the answers are what the read models and the log hold for the client's tenant;
//! every other answer is a problem document, and never a 500.

mod asking;
mod exports;
mod feed;
mod kept;
mod keys;
pub(crate) mod life;
mod parked;
mod past;
mod story;
mod together;
mod types;
mod versions;
mod waiting;
mod why;

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Engine;
use engine::command::{Answer, Request};
use kernel::registry::Registry;
use projector::{Projection, Projector, Sampler};
use query_api::{QueryDoor, router};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::Connection;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;
use tokio::net::TcpListener;

use crate::generated_requests::assert_door_keeps_its_document;
use crate::write_side::{place, request, start};

/// A door with a projector that serves on a free port until it is dropped.
pub(crate) struct Served {
    url: String,
    client: reqwest::Client,
    pub(crate) engine: Engine,
    projector: Option<Projector>,
    postgres_url: String,
    postgres: Postgres,
    pub(crate) log: NewLog,
}

impl Served {
    async fn start(kind: Kind) -> Self {
        Self::over(NewLog::make(kind, 4).await).await
    }

    /// The same door over an existing log.
    pub(crate) async fn over(log: NewLog) -> Self {
        Self::showing(log, read_models()).await
    }

    /// The same door to other read models.
    async fn showing(log: NewLog, all: Vec<Arc<dyn Projection>>) -> Self {
        let engine = start(&log).await;
        let postgres = Postgres::start();
        let postgres_url = postgres.create_database().await;
        projector::migrate(&postgres_url).await.unwrap();
        let projector = Projector::spawn(&log.log, &postgres_url, &all, 2).unwrap();
        let mut served = Self {
            url: String::new(),
            client: reqwest::Client::new(),
            engine,
            projector: Some(projector),
            postgres_url,
            postgres,
            log,
        };
        served.serve(&all).await;
        served
    }

    /// Serves a door of a program with these read models from now on.
    async fn serve(&mut self, all: &[Arc<dyn Projection>]) {
        let registry = self.engine.registry().clone();
        self.serve_with(all, registry).await;
    }

    /// The same with other rules than those of the engine.
    async fn serve_with(&mut self, all: &[Arc<dyn Projection>], registry: Registry) {
        let (log, postgres_url) = (&self.log.log, &self.postgres_url);
        let mut schemas = door::openapi::domain_generator();
        let fragments = [
            query_api::fragment(all, &registry, &mut schemas),
            door::health::fragment(),
        ];
        let document = door::openapi::document(&door::Program::annals(), fragments, schemas);
        let query = QueryDoor::new(log, postgres_url, all, registry).unwrap();
        let sampler = Arc::new(Sampler::spawn(log, postgres_url).unwrap());
        let query = query.with_sampler(&sampler);
        let health = door::health::Health::new([door::health::Role::QueryApi], String::new);
        let routes = router(query)
            .merge(door::openapi::router(&document))
            .merge(door::health::router(health));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.url = format!("http://{}", listener.local_addr().unwrap());
        let forever = std::future::pending();
        let served = door::serve(listener, door::finish(routes), forever, Duration::ZERO);
        tokio::spawn(served);
    }

    pub(crate) async fn submit(&self, request: Request) -> Answer {
        let command = self.engine.prepare(request).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        self.engine.submit(command, deadline).await.unwrap()
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) async fn ok(&self, path: &str) -> Value {
        let (status, body) = ask(self.get(path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Asserts that the answer is a complete problem document with this code.
    async fn problem(&self, request: RequestBuilder, status: u16, code: &str) -> Value {
        let (found, body) = ask(request).await;
        assert_eq!(
            (found.as_u16(), &body["code"]),
            (status, &json!(code)),
            "{body}"
        );
        for member in ["type", "title", "detail", "instance", "correlation_id"] {
            assert!(body[member].is_string(), "no {member}: {body}");
        }
        body
    }
}

async fn ask(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let bytes = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

fn of_tenant(tenant: &str, request: Request) -> Request {
    Request {
        tenant: tenant.parse().unwrap(),
        ..request
    }
}

#[tokio::test]
async fn a_query_that_brings_its_position_reads_its_own_write() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let served = Served::start(kind).await;
        for number in 0..20 {
            let stream = format!("order-{number}");
            let placed = served
                .submit(request(&stream, "PlaceOrder", "a", &place()))
                .await;
            let position = placed.position.to_string();
            let path = format!("/v1/read/order_summary/{number}?min_position={position}");
            let row = served.ok(&path).await;
            assert_eq!(row["status"], "placed");
            assert_eq!(row["placed_at"], "2018-06-04T16:44:48Z");
            assert_eq!(
                (&row["items_minor"], &row["canceled_at"]),
                (&json!(2199), &Value::Null)
            );
            let state = served.get(&format!("/v1/streams/{stream}/state"));
            let response = state
                .header("Annals-Min-Position", &position)
                .send()
                .await
                .unwrap();
            let tag = response.headers()["etag"].to_str().unwrap();
            assert!(tag.starts_with("\"1-"), "{tag}");
            assert!(response.headers().contains_key("annals-position"));
            let state: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
            assert_eq!(state["state"]["placed"]["facts"]["customer"], "c1");
        }
    }
}

#[tokio::test]
async fn a_read_model_is_read_page_by_page_in_the_order_of_its_key() {
    let served = Served::start(Kind::Sqlite).await;
    let mut last = String::new();
    for number in 0..25 {
        let stream = format!("order-{number:02}");
        let placed = served
            .submit(request(&stream, "PlaceOrder", "a", &place()))
            .await;
        let ship = request(&stream, "ShipOrder", "b", &json!({}));
        let refused = served.submit(ship).await;
        let other = of_tenant("acme", request(&stream, "PlaceOrder", "a", &place()));
        let other = served.submit(other).await.position;
        let merged = placed
            .position
            .merge(&refused.position)
            .unwrap()
            .merge(&other)
            .unwrap();
        last = match last.parse::<position::PositionToken>() {
            Ok(token) => token.merge(&merged).unwrap().to_string(),
            Err(_) => merged.to_string(),
        };
    }
    for (model, key) in [("order_summary", "order_id"), ("rejections", "stream")] {
        let mut path = format!("/v1/read/{model}?limit=10&min_position={last}");
        let mut keys = Vec::new();
        loop {
            let page = served.ok(&path).await;
            assert_eq!(page["model"], model);
            assert!(page["position"].is_string());
            let rows = page["rows"].as_array().unwrap();
            keys.extend(rows.iter().map(|row| row[key].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            path = format!("/v1/read/{model}?limit=10&after={next}");
        }
        let mut sorted = keys.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!((sorted.len(), &sorted), (25, &keys), "{model}");
    }
    let theirs = served
        .get("/v1/read/daily_sales/2018-06-04,BRL")
        .header("Annals-Tenant", "acme");
    let (status, row) = ask(theirs).await;
    assert_eq!((status.as_u16(), &row["orders"]), (200, &json!(25)));
    let models = served.ok("/v1/read").await;
    assert_eq!(models["models"].as_array().unwrap().len(), 8);
    assert_eq!(models["models"][1]["key"], json!(["day", "currency"]));
}

#[tokio::test]
async fn a_streams_events_come_with_their_whole_envelope() {
    let served = Served::start(Kind::Sqlite).await;
    let placed = Request {
        actor: serde_json::from_value(json!({"id": "shop", "kind": "service"})).unwrap(),
        correlation_id: Some("talk".parse().unwrap()),
        ..request("order-1", "PlaceOrder", "a", &place())
    };
    served.submit(placed).await;
    served
        .submit(request("order-1", "ShipOrder", "refused", &json!({})))
        .await;
    for (id, step) in [
        ("b", "ApproveOrder"),
        ("c", "ShipOrder"),
        ("d", "DeliverOrder"),
    ] {
        served
            .submit(request("order-1", step, id, &json!({})))
            .await;
    }
    let last = served
        .submit(request("order-1", "DeliverOrder", "again", &json!({})))
        .await;
    let first = format!(
        "/v1/streams/order-1/events?limit=3&min_position={}",
        last.position
    );
    let page = served.ok(&first).await;
    assert_eq!((&page["version"], &page["next"]), (&json!(4), &json!(4)));
    let event = &page["events"][0];
    for (member, value) in [
        ("type", json!("OrderPlaced")),
        ("schema", json!(1)),
        ("version", json!(1)),
        ("occurred_at", json!("2018-06-04T16:44:48Z")),
        ("command_id", json!("a")),
        ("command", json!("PlaceOrder")),
        ("correlation_id", json!("talk")),
        ("causation_id", json!("a")),
        ("actor", json!({"id": "shop", "kind": "service"})),
    ] {
        assert_eq!(event[member], value, "{event}");
    }
    assert_eq!(event["data"]["customer"], "c1");
    let rest = served.ok("/v1/streams/order-1/events?from_version=4").await;
    assert_eq!(rest["events"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&rest["events"][0]["type"], &rest["next"]),
        (&json!("OrderDelivered"), &Value::Null)
    );
    let beyond = served
        .ok("/v1/streams/order-1/events?from_version=99")
        .await;
    assert_eq!(beyond["events"], json!([]));
    // A stream with nothing but refusals exists, at version 0.
    let refused = served
        .submit(request("order-2", "ShipOrder", "a", &json!({})))
        .await;
    let path = format!(
        "/v1/streams/order-2/state?min_position={}",
        refused.position
    );
    let state = served.ok(&path).await;
    assert_eq!(
        (&state["version"], &state["state"]["placed"]),
        (&json!(0), &Value::Null)
    );
}

#[tokio::test]
async fn what_cannot_be_shown_is_a_problem_that_says_why() {
    let served = Served::start(Kind::Sqlite).await;
    let placed = served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let token = placed.position;
    served
        .ok(&format!("/v1/read/order_summary/1?min_position={token}"))
        .await;
    for (path, status, code) in [
        ("/v1/read/nothing", 404, "model_unknown"),
        ("/v1/read/stream_commits", 404, "model_unknown"),
        ("/v1/read/order_summary/2", 404, "row_not_found"),
        ("/v1/read/order_summary/%00", 404, "row_not_found"),
        ("/v1/read/daily_sales/2018-06-04", 404, "row_not_found"),
        ("/v1/read/daily_sales/2018-02-30,BRL", 404, "row_not_found"),
        (
            "/v1/read/rejections/order-1,99999999999999999999",
            404,
            "row_not_found",
        ),
        ("/v1/read/order_summary/%ff", 400, "path_invalid"),
        ("/v1/read/order_summary?limit=0", 400, "query_invalid"),
        ("/v1/read/order_summary?limit=1001", 400, "query_invalid"),
        (
            "/v1/read/order_summary?limit=1&limit=2",
            400,
            "query_invalid",
        ),
        ("/v1/read/order_summary?color=red", 400, "query_invalid"),
        ("/v1/read/order_summary?after=x", 404, "cursor_unknown"),
        ("/v1/read/daily_sales?after=WyIxIl0", 404, "cursor_unknown"),
        (
            "/v1/read/order_summary?min_position=x",
            400,
            "position_invalid",
        ),
        ("/v1/streams/order-9/events", 404, "stream_not_found"),
        ("/v1/streams/order-9/state", 404, "stream_not_found"),
        ("/v1/streams/nothing/events", 400, "path_invalid"),
        (
            "/v1/streams/order-1/events?from_version=0",
            400,
            "query_invalid",
        ),
        ("/v1/streams/order-1/nothing", 404, "not_found"),
    ] {
        served.problem(served.get(path), status, code).await;
    }
    let post = served
        .client
        .post(format!("{}/v1/read/order_summary", served.url));
    served.problem(post, 405, "method_not_allowed").await;
    let bad_tenant = served
        .get("/v1/read/order_summary")
        .header("Annals-Tenant", "A");
    served.problem(bad_tenant, 400, "header_invalid").await;
    let theirs = served
        .get("/v1/streams/order-1/events")
        .header("Annals-Tenant", "acme");
    served.problem(theirs, 404, "stream_not_found").await;

    let path =
        |token: &position::PositionToken| format!("/v1/read/order_summary?min_position={token}");
    let mut other = token.clone();
    other.log = position::LogId(uuid::Uuid::max());
    served
        .problem(served.get(&path(&other)), 409, "position_of_other_log")
        .await;
    let mut ahead = token.clone();
    ahead
        .positions
        .values_mut()
        .for_each(|position| position.0 += 1_000);
    let behind = served.get(&path(&ahead)).header("Annals-Timeout-Ms", "30");
    let response = behind.try_clone().unwrap().send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    served.problem(behind, 503, "read_model_behind").await;
    let mut beyond = token.clone();
    beyond
        .positions
        .insert(position::Partition(9), position::Position(1));
    served
        .problem(served.get(&path(&beyond)), 400, "position_invalid")
        .await;
}

#[tokio::test]
async fn a_changed_record_is_never_shown() {
    let served = Served::start(Kind::Sqlite).await;
    let placed = served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let events = "/v1/streams/order-1/events";
    served
        .ok(&format!("{events}?min_position={}", placed.position))
        .await;
    let event_log::log::LogAddress::Sqlite { path } = &served.log.address else {
        panic!("a file")
    };
    let url = format!("sqlite:{}", path.display());
    let mut file = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let edit = "UPDATE record SET value = replace(CAST(value AS TEXT), '2199', '1199') \
                WHERE key = CAST('main/order-1' AS BLOB)";
    let edited = sqlx::query(edit).execute(&mut file).await.unwrap();
    assert_eq!(edited.rows_affected(), 1);
    served
        .problem(served.get(events), 503, "stream_damaged")
        .await;
    let state = served.get("/v1/streams/order-1/state");
    served.problem(state, 503, "stream_damaged").await;
}

#[tokio::test]
async fn queries_say_that_postgres_is_down_and_answer_when_it_is_back() {
    let mut served = Served::start(Kind::Sqlite).await;
    let placed = served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let path = format!("/v1/read/order_summary/1?min_position={}", placed.position);
    served.ok(&path).await;
    served.postgres.kill9();
    served
        .problem(served.get(&path), 503, "read_model_unavailable")
        .await;
    // Commands go on without Postgres.
    let approved = served
        .submit(request("order-1", "ApproveOrder", "b", &json!({})))
        .await;
    served.postgres.restart();
    let path = format!(
        "/v1/read/order_summary/1?min_position={}",
        approved.position
    );
    let row = served.get(&path).header("Annals-Timeout-Ms", "20000");
    let (status, row) = ask(row).await;
    assert_eq!(
        (status.as_u16(), &row["status"]),
        (200, &json!("approved")),
        "{row}"
    );
    served.projector.take().unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_database_that_was_never_migrated_is_a_problem_and_not_a_bug() {
    let mut served = Served::start(Kind::Sqlite).await;
    // Stop the projector first: its locks and the DROP below would deadlock.
    served.projector.take().unwrap().stop().await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    sqlx::raw_sql("DROP SCHEMA read CASCADE; DROP SCHEMA annals CASCADE")
        .execute(&mut connection)
        .await
        .unwrap();
    for path in ["/v1/read/order_summary", "/v1/streams/order-1/events"] {
        served
            .problem(served.get(path), 503, "read_model_unavailable")
            .await;
    }
}

#[tokio::test]
async fn the_query_door_keeps_what_its_document_says() {
    let served = Served::start(Kind::Sqlite).await;
    for number in 0..5 {
        let stream = format!("order-{number}");
        served
            .submit(request(&stream, "PlaceOrder", "a", &place()))
            .await;
        served
            .submit(request(&stream, "ShipOrder", "b", &json!({})))
            .await;
    }
    let settings = include_str!("query_door/schemathesis.toml");
    assert_door_keeps_its_document(&served.url, settings, 15).await;
}
