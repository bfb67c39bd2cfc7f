//! `/livez`, `/readyz` and `/metrics`.
//!
//! Invariant: alive means that the process answers; ready means that every check passes within a
//! second. Deliberately absent: what is checked and measured, which whoever serves says.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::code;
use crate::extract::NoQuery;
use crate::openapi::{self, Fragment};
use crate::problem::Problem;

/// The routes' paths. They are answered when nothing else is.
pub const PATHS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// How long a check may take.
const CHECK_WAIT: Duration = Duration::from_secs(1);
/// When another look makes sense for who finds the server not ready.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type CheckOutcome = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type CheckFn = Arc<dyn Fn() -> CheckOutcome + Send + Sync>;
type MetricsFn = Arc<dyn Fn() -> String + Send + Sync>;

/// What `/readyz` asks and `/metrics` shows.
#[derive(Clone)]
pub struct Health {
    checks: Vec<(&'static str, CheckFn)>,
    metrics: MetricsFn,
}

impl Health {
    /// No checks; `metrics` renders all metrics in Prometheus' text format.
    pub fn new(metrics: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self {
            checks: Vec::new(),
            metrics: Arc::new(metrics),
        }
    }

    /// Adds a check: `Ok` when ready, else the reason, which is shown to whoever asks.
    #[must_use]
    pub fn check<F, R>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: CheckFn = Arc::new(move || Box::pin(check()));
        self.checks.push((name, check));
        self
    }
}

/// The routes.
pub fn router(health: Health) -> Router {
    Router::new()
        .route(
            "/livez",
            get(|_: NoQuery| async { Json(json!({"status": "live"})) }),
        )
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>, _: NoQuery) -> Response {
    let outcomes = futures::future::join_all(health.checks.iter().map(|(name, check)| async {
        let outcome = tokio::time::timeout(CHECK_WAIT, check()).await;
        let outcome = outcome.unwrap_or_else(|_| Err("no answer within a second".to_owned()));
        (*name, outcome)
    }))
    .await;
    let mut checks = Map::new();
    let mut failed = Vec::new();
    for (name, outcome) in outcomes {
        let shown = match outcome {
            Ok(()) => "ready".to_owned(),
            Err(reason) => {
                failed.push(format!("{name}: {reason}"));
                reason
            }
        };
        checks.insert(name.to_owned(), Value::String(shown));
    }
    if failed.is_empty() {
        return Json(json!({"status": "ready", "checks": checks})).into_response();
    }
    Problem::new(code::NOT_READY, failed.join("; "))
        .member("checks", checks)
        .retry_after(RETRY_AFTER)
        .into_response()
}

async fn metrics(State(health): State<Health>, _: NoQuery) -> Response {
    let media_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], (health.metrics)()).into_response()
}

/// The routes as a fragment of the OpenAPI document.
#[must_use]
pub fn fragment() -> Fragment {
    let answer = |description: &str, media_type: &str, schema: Value| {
        json!({
            "description": description,
            "headers": {"Annals-Correlation-Id": openapi::header_ref("CorrelationId")},
            "content": {media_type: {"schema": schema}},
        })
    };
    let status = |word: &str| {
        json!({
            "type": "object",
            "properties": {
                "status": {"type": "string", "const": word},
                "checks": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "required": ["status"],
        })
    };
    let mut fragment = Fragment::default();
    fragment.tag(
        "health",
        "Whether the server lives, is ready, and what it measures.",
    );
    for (path, id, summary, ok) in [
        (
            "/livez",
            "livez",
            "Whether the process answers",
            answer("It does.", "application/json", status("live")),
        ),
        (
            "/readyz",
            "readyz",
            "Whether every part is ready",
            answer("Every check passes.", "application/json", status("ready")),
        ),
        (
            "/metrics",
            "metrics",
            "All metrics",
            answer(
                "In Prometheus' text format.",
                "text/plain",
                json!({"type": "string"}),
            ),
        ),
    ] {
        let mut responses = openapi::responses(if path == "/readyz" {
            &[400, 503]
        } else {
            &[400]
        });
        responses.insert("200".to_owned(), ok);
        fragment.operation(
            path,
            "get",
            json!({
                "operationId": id,
                "tags": ["health"],
                "summary": summary,
                "parameters": [openapi::parameter_ref("CorrelationId")],
                "responses": responses,
            }),
        );
    }
    fragment
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(health: Health, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = crate::finish(router(health))
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn is_ready_when_every_check_passes() {
        let health = Health::new(|| "up 1\n".to_owned()).check("log", || async { Ok(()) });
        assert_eq!(ask(health.clone(), "/livez").await.0, 200);
        assert_eq!(
            ask(health.clone(), "/metrics").await,
            (200, "up 1\n".to_owned())
        );
        assert_eq!(ask(health.clone(), "/readyz").await.0, 200);
        let health = health.check("postgres", || async { Err("refused".to_owned()) });
        let (status, body) = ask(health, "/readyz").await;
        assert_eq!(status, 503);
        assert!(
            body.contains(r#""checks":{"log":"ready","postgres":"refused"}"#),
            "{body}"
        );
    }
}
