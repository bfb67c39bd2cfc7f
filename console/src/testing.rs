//! A node of canned answers, so that each room can be asked what it shows of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use door::Program;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{About, Console, Setting};

/// What the canned node was asked: method and path with its parameters, headers, and body.
pub(crate) type Asked = (String, HeaderMap, Bytes);

/// A console of a node that gives canned answers.
pub(crate) struct Canned {
    routes: Router,
    asked: Arc<Mutex<Vec<Asked>>>,
    pub(crate) console: Console,
}

impl Canned {
    /// A node with these answers: by method and path, each a status and JSON. Other routes are not
    /// served.
    pub(crate) fn of<'a>(answers: impl IntoIterator<Item = (&'a str, u16, Value)>) -> Self {
        let answers = answers.into_iter();
        let answers: BTreeMap<String, (u16, Value)> = answers
            .map(|(asked, status, answer)| (asked.to_owned(), (status, answer)))
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let node = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let line = format!("{} {}", parts.method, parts.uri);
            seen.lock()
                .unwrap()
                .push((line.clone(), parts.headers, body));
            let without_query = line.split('?').next().unwrap();
            match answers.get(&line).or_else(|| answers.get(without_query)) {
                Some((status, answer)) => {
                    let status = StatusCode::from_u16(*status).unwrap();
                    (status, axum::Json(answer.clone())).into_response()
                }
                None => StatusCode::NOT_FOUND.into_response(),
            }
        });
        let about = About {
            program: Program::annals(),
            node: "n1".to_owned(),
            settings: Some(vec![Setting {
                name: "listen".to_owned(),
                value: Some("127.0.0.1:0".to_owned()),
                source: "--listen".to_owned(),
                variable: "ANNALS_LISTEN".to_owned(),
                meaning: "address for HTTP".to_owned(),
            }]),
        };
        let console = Console::begin(about);
        Self {
            routes: console.router(&node),
            asked,
            console,
        }
    }

    /// The answer of the console.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let Ok(response) = self.routes.clone().oneshot(request).await;
        response
    }

    /// The page at a path: its status and its text.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.answer(request).await;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Sends a form as a browser does: the status, the place that it leads to, and the text.
    pub(crate) async fn post(&self, path: &str, form: &str) -> (u16, Option<String>, String) {
        let request = Request::builder()
            .method("POST")
            .uri(path)
            .header("sec-fetch-site", "same-origin")
            .header("origin", "http://127.0.0.1:4747")
            .body(Body::from(form.to_owned()))
            .unwrap();
        let response = self.answer(request).await;
        let place = response.headers().get("location");
        let place = place.map(|place| place.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, place, String::from_utf8(body.to_vec()).unwrap())
    }

    /// What the node was asked by pages, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        let by_pages = asked.iter().filter(|(line, ..)| line != "GET /metrics");
        by_pages.cloned().collect()
    }
}

/// A problem document.
pub(crate) fn problem(code: &str, detail: &str) -> Value {
    json!({"title": code.replace('_', " "), "detail": detail, "code": code, "correlation_id": "c-1"})
}
