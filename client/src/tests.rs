//! The client of single commands, against doors that turn away or break, and servers that are no
//! doors.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::*;

/// The answers that a door gives in turn, and the command ids that it received.
#[derive(Default)]
struct Door {
    answers: Vec<(u16, String)>,
    ids: Vec<String>,
}

type Shared = Arc<Mutex<Door>>;

async fn answer(State(door): State<Shared>, request: Request) -> Response {
    let mut door = door.lock().unwrap();
    let id = request.headers()["idempotency-key"].to_str().unwrap();
    door.ids.push(id.to_owned());
    let (status, body) = door.answers.remove(0);
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

/// A client of a door that gives these answers.
async fn client_of(answers: &[(u16, &str)]) -> (Client, Shared) {
    let answers = answers
        .iter()
        .map(|(status, body)| (*status, (*body).to_owned()));
    let door = Arc::new(Mutex::new(Door {
        answers: answers.collect(),
        ids: Vec::new(),
    }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(answer).with_state(Arc::clone(&door));
    tokio::spawn(async { axum::serve(listener, routes).await });
    (Client::to(&url).unwrap(), door)
}

const BUSY: &str = r#"{"status": 503, "code": "overloaded", "detail": "many wait"}"#;

fn approve() -> Command {
    Command::new("order-1", "ApproveOrder", &json!({})).unwrap()
}

fn accepted() -> String {
    let position = position::PositionToken::at(
        position::LogId(uuid::Uuid::from_u128(1)),
        position::Partition(0),
        position::Position(1),
    );
    json!({"stream": "order-1", "version": 1, "position": position, "events": [], "repeated": false})
        .to_string()
}

#[tokio::test]
async fn a_command_without_an_answer_is_sent_again_under_its_id() {
    let accepted = accepted();
    let html = "<h1>502</h1>";
    let (client, door) = client_of(&[(503, BUSY), (502, html), (200, &accepted)]).await;
    let command = approve();
    let answer = client.send(&command).await.unwrap();
    assert_eq!((answer.stream.as_str(), answer.version), ("order-1", 1));
    let ids = door.lock().unwrap().ids.clone();
    assert_eq!(ids, vec![command.id; 3]);
}

#[tokio::test]
async fn a_client_that_does_not_wait_reports_why_it_was_turned_away() {
    let (client, door) = client_of(&[(503, BUSY)]).await;
    let client = client.retry_for(Duration::ZERO);
    let error = client.send(&approve()).await.unwrap_err();
    assert!(error.is_repeatable());
    assert_eq!(error.problem().unwrap().code, Code::Overloaded);
    assert_eq!(door.lock().unwrap().ids.len(), 1);
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_brings_its_facts() {
    let refusal = r#"{"status": 422, "code": "order_not_approved", "detail": "the order is not approved",
                      "placed_at": "2030-01-01T00:00:00Z"}"#;
    let (client, _) = client_of(&[(422, refusal)]).await;
    let error = client.send(&approve()).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert!(problem.is_refusal() && !error.is_repeatable());
    assert_eq!(problem.code, Code::Other("order_not_approved".to_owned()));
    assert_eq!(problem.facts["placed_at"], "2030-01-01T00:00:00Z");
    assert_eq!(error.to_string(), "the order is not approved");
}

#[tokio::test]
async fn a_value_that_cannot_be_a_header_is_named_and_nothing_is_sent() {
    let (client, door) = client_of(&[]).await;
    let mut command = approve();
    command.actor = Some("user:7\n".to_owned());
    let error = client.send(&command).await.unwrap_err();
    assert!(!error.is_repeatable());
    assert!(
        error.to_string().starts_with("annals-actor cannot"),
        "{error}"
    );
    let query = Query {
        tenant: Some("a\nb".to_owned()),
        ..Query::default()
    };
    let error = client.state("order-1", &query).await.unwrap_err();
    assert!(
        error.to_string().starts_with("annals-tenant cannot"),
        "{error}"
    );
    assert!(door.lock().unwrap().ids.is_empty());
}

#[tokio::test]
async fn an_answer_that_no_door_gives_is_an_error_of_its_own() {
    let (client, _) = client_of(&[(200, "hello")]).await;
    let error = client.send(&approve()).await.unwrap_err();
    assert!(matches!(error, ClientError::NotADoor { .. }), "{error}");
    let nobody = Client::to("http://127.0.0.1:1").unwrap();
    let error = nobody
        .retry_for(Duration::ZERO)
        .send(&approve())
        .await
        .unwrap_err();
    assert!(error.is_connect() && error.is_repeatable());
    assert!(matches!(
        Client::to("no address"),
        Err(ClientError::Address { .. })
    ));
}
