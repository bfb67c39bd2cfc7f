//! The command door against a real engine on the embedded log, over real sockets.
//!
//! Invariant tested: for every request, the answer is the log's answer or a problem document, and
//! never a 500.

mod batch;
mod exact;
mod hostile;
mod openapi;

use std::time::Duration;

use engine::Engine;
use position::PositionToken;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tests::harness::logs::{Kind, NewLog};
use tokio::net::TcpListener;

use crate::write_side::{place, start};

/// A door that serves on a free port until it is dropped.
struct Served {
    url: String,
    client: reqwest::Client,
    engine: Engine,
    log: NewLog,
}

/// An answer with its whole body.
#[derive(Debug)]
struct Answered {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Answered {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that the answer is a complete problem document with this code.
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), &self.body["code"]),
            (status, &json!(code)),
            "{self:?}"
        );
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        for member in ["type", "title", "detail", "instance", "correlation_id"] {
            assert!(self.body[member].is_string(), "no {member}: {self:?}");
        }
        assert_eq!(self.body["status"], status);
        assert_eq!(
            self.body["correlation_id"],
            self.header("annals-correlation-id")
        );
    }
}

impl Served {
    async fn start() -> Self {
        let log = NewLog::make(Kind::Sqlite, 4).await;
        let engine = start(&log).await;
        let mut schemas = door::openapi::domain_generator();
        let fragments = [
            command_api::fragment(engine.registry(), &mut schemas),
            door::health::fragment(),
        ];
        let document = door::openapi::document(&door::Program::annals(), fragments, schemas);
        let health = {
            let engine = engine.clone();
            let role = door::health::Role::CommandApi;
            let health = door::health::Health::new([role], String::new);
            health.check("log", &[door::health::Role::CommandApi], move || {
                let readiness = engine.readiness();
                async move { readiness }
            })
        };
        let router = command_api::router(engine.clone(), command_api::Options::default())
            .merge(door::openapi::router(&document))
            .merge(door::health::router(health));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let forever = std::future::pending();
        tokio::spawn(door::serve(
            listener,
            door::finish(router),
            forever,
            Duration::ZERO,
        ));
        Self {
            url,
            client: reqwest::Client::new(),
            engine,
            log,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A command with its data.
    fn command(&self, stream: &str, command: &str, data: &Value) -> RequestBuilder {
        self.request(Method::POST, &format!("/v1/streams/{stream}/{command}"))
            .json(data)
    }
}

async fn ask(request: RequestBuilder) -> Answered {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.bytes().await.unwrap();
    let body = serde_json::from_slice(&text)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&text).into_owned()));
    Answered {
        status,
        headers,
        body,
    }
}

#[tokio::test]
async fn a_command_is_answered_with_its_version_events_and_place() {
    let served = Served::start().await;
    let first = || {
        served
            .command("order-1", "PlaceOrder", &place())
            .header("Idempotency-Key", "k1")
    };
    let placed = ask(first()).await;
    assert_eq!(placed.status, 200, "{placed:?}");
    assert_eq!(placed.body["stream"], "order-1");
    assert_eq!(placed.body["version"], 1);
    assert_eq!(placed.body["repeated"], false);
    assert_eq!(placed.body["events"][0]["type"], "OrderPlaced");
    assert_eq!(placed.body["events"][0]["version"], 1);
    assert_eq!(placed.header("etag"), "\"1\"");
    assert_eq!(placed.header("idempotency-key"), "\"k1\"");
    assert_eq!(placed.header("annals-correlation-id"), "k1");
    assert_eq!(placed.body["position"], placed.header("annals-position"));

    let again = ask(first()).await;
    assert_eq!(again.body["repeated"], true);
    assert_eq!(again.body["events"], placed.body["events"]);

    let reused = served.command("order-1", "ApproveOrder", &json!({}));
    let reused = ask(reused.header("Idempotency-Key", "\"k1\"")).await;
    reused.is_problem(422, "command_id_reused");
    assert_eq!(reused.body["command_id"], "k1");
}

#[tokio::test]
async fn a_command_without_an_id_gets_one_that_names_its_conversation() {
    let served = Served::start().await;
    let answer = ask(served.command("order-1", "PlaceOrder", &place())).await;
    let id = answer
        .header("idempotency-key")
        .trim_matches('"')
        .to_owned();
    assert_eq!(answer.header("annals-correlation-id"), id);
    let became = ask(served.get(&format!("/v1/streams/order-1/commands/{id}"))).await;
    assert_eq!(became.body["outcome"], "accepted", "{became:?}");
    assert_eq!(became.body["command_id"], id);
    assert_eq!(became.body["events"], answer.body["events"]);
    assert_eq!(became.body["position"], answer.body["position"]);
}

#[tokio::test]
async fn a_stale_version_is_a_failed_precondition() {
    let served = Served::start().await;
    let place = || served.command("order-1", "PlaceOrder", &place());
    let stale = ask(place().header("If-Match", "\"3\"")).await;
    stale.is_problem(412, "version_conflict");
    assert_eq!(
        (
            &stale.body["current_version"],
            &stale.body["expected_version"]
        ),
        (&json!(0), &json!(3))
    );
    assert_eq!(stale.header("etag"), "\"0\"");
    assert_eq!(ask(place().header("If-None-Match", "*")).await.status, 200);
    let taken = ask(place().header("If-None-Match", "*")).await;
    taken.is_problem(412, "version_conflict");
    assert_eq!(taken.body["current_version"], 1);
    let approve = served.command("order-1", "ApproveOrder", &json!({}));
    assert_eq!(
        ask(approve.header("If-Match", "\"1\""))
            .await
            .header("etag"),
        "\"2\""
    );
}

#[tokio::test]
async fn a_refusal_is_recorded_and_shows_its_facts() {
    let served = Served::start().await;
    let ship = || {
        served
            .command("order-1", "ShipOrder", &json!({}))
            .header("Idempotency-Key", "s")
    };
    let refused = ask(ship()).await;
    refused.is_problem(422, "order_not_placed");
    assert_eq!(refused.body["instance"], "/v1/streams/order-1/ShipOrder");
    assert!(!refused.header("annals-position").is_empty());
    ask(served.command("order-1", "PlaceOrder", &place())).await;
    // The recorded refusal is repeated, although the order is placed by now.
    let again = ask(ship()).await;
    again.is_problem(422, "order_not_placed");
    assert_eq!(again.body["repeated"], true);

    let became = ask(served.get("/v1/streams/order-1/commands/s")).await;
    assert_eq!(became.status, 200);
    assert_eq!(became.body["outcome"], "rejected");
    assert_eq!(became.body["rejection"]["code"], "order_not_placed");

    let mut twice = place();
    twice["items"] = json!([twice["items"][0], twice["items"][0]]);
    let refused = ask(served.command("order-2", "PlaceOrder", &twice)).await;
    refused.is_problem(422, "order_lines_repeat");
    assert_eq!(refused.body["line"], 1);
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let served = Served::start().await;
    let place = |tenant| {
        let command = served.command("order-1", "PlaceOrder", &place());
        command
            .header("Annals-Tenant", tenant)
            .header("Idempotency-Key", "k")
    };
    assert_eq!(ask(place("north")).await.body["version"], 1);
    assert_eq!(ask(place("south")).await.body["repeated"], false);
    let became = served.get("/v1/streams/order-1/commands/k");
    let became = ask(became).await;
    became.is_problem(404, "command_not_in_log");
    assert_eq!(became.body["command_id"], "k");
    let position: PositionToken = serde_json::from_value(became.body["position"].clone()).unwrap();
    assert_eq!(position.positions.len(), 1, "how far the log was read");
    let became = served
        .get("/v1/streams/order-1/commands/k")
        .header("Annals-Tenant", "north");
    assert_eq!(ask(became).await.status, 200);
}

#[tokio::test]
async fn a_server_that_stops_turns_commands_away() {
    let served = Served::start().await;
    assert_eq!(ask(served.get("/readyz")).await.status, 200);
    served.engine.drain(Duration::from_secs(5)).await;
    let away = ask(served.command("order-1", "PlaceOrder", &place())).await;
    away.is_problem(503, "stopping");
    assert_eq!(away.header("retry-after"), "1");
    assert_eq!(
        away.body["command_id"],
        away.header("idempotency-key").trim_matches('"')
    );
}
