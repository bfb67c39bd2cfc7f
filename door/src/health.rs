//! `/livez`, `/readyz` and `/metrics`.
//!
//! Invariant: live means that the process answers; a role is ready if each check that it depends on
//! passes within a second. Without a role, `/readyz` answers for the process: a failed check that
//! only reading depends on makes the process *degraded*, and never takes the command door out of
//! rotation; in a process without the command door, the same holds of the query door and a failed
//! check of the projector. Deliberately absent: the checks and metrics themselves, which the serving program
//! adds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::code;
use crate::extract::{NoQuery, Query};
use crate::openapi::{self, Fragment};
use crate::problem::Problem;

/// The routes' paths. They are answered even if no other request is.
pub const PATHS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// How long a check may take.
const CHECK_WAIT: Duration = Duration::from_secs(1);
/// When a client should ask again if the server is not ready.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type CheckOutcome = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type CheckFn = Arc<dyn Fn() -> CheckOutcome + Send + Sync>;
type WarningsOutcome = Pin<Box<dyn Future<Output = Vec<String>> + Send>>;
type WarningsFn = Arc<dyn Fn() -> WarningsOutcome + Send + Sync>;
type MetricsFn = Arc<dyn Fn() -> String + Send + Sync>;

/// A task that a process can be configured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes commands.
    CommandApi,
    /// Writes the read models.
    Projector,
    /// Answers queries from the read models.
    QueryApi,
}

impl Role {
    /// Its name in configuration, and in `/readyz?role=`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CommandApi => "command-api",
            Self::Projector => "projector",
            Self::QueryApi => "query-api",
        }
    }
}

/// One check, and the roles that do not work if it fails.
#[derive(Clone)]
struct Check {
    name: &'static str,
    roles: &'static [Role],
    run: CheckFn,
}

/// The checks of `/readyz` and the metrics of `/metrics`.
#[derive(Clone)]
pub struct Health {
    roles: Vec<Role>,
    checks: Vec<Check>,
    warnings: Vec<WarningsFn>,
    metrics: MetricsFn,
}

impl Health {
    /// A process with these roles and no checks yet; `metrics` renders all metrics in Prometheus'
    /// text format.
    pub fn new(
        roles: impl IntoIterator<Item = Role>,
        metrics: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            roles: roles.into_iter().collect(),
            checks: Vec::new(),
            warnings: Vec::new(),
            metrics: Arc::new(metrics),
        }
    }

    /// Adds a check, and the roles that do not work if it fails. It returns `Ok` when ready,
    /// otherwise the reason, which every client of `/readyz` can read.
    #[must_use]
    pub fn check<F, R>(mut self, name: &'static str, roles: &'static [Role], check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        let run: CheckFn = Arc::new(move || Box::pin(check()));
        self.checks.push(Check { name, roles, run });
        self
    }

    /// Adds what an operator should know, although nothing that was asked for fails.
    #[must_use]
    pub fn warnings<F, R>(mut self, warnings: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Vec<String>> + Send + 'static,
    {
        self.warnings.push(Arc::new(move || Box::pin(warnings())));
        self
    }

    async fn warned(&self) -> Vec<String> {
        let all = self.warnings.iter().map(async |warnings| {
            let warnings = tokio::time::timeout(CHECK_WAIT, warnings()).await;
            warnings.unwrap_or_default()
        });
        futures::future::join_all(all).await.concat()
    }

    /// The results of the checks that at least one of these roles depends on.
    async fn outcomes(&self, roles: &[Role]) -> Vec<(&Check, Result<(), String>)> {
        let concerns = |check: &&Check| check.roles.iter().any(|role| roles.contains(role));
        let checks = self.checks.iter().filter(concerns).map(async |check| {
            let outcome = tokio::time::timeout(CHECK_WAIT, (check.run)()).await;
            let outcome = outcome.unwrap_or_else(|_| Err("no answer within a second".to_owned()));
            (check, outcome)
        });
        futures::future::join_all(checks).await
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

/// The parameters of `/readyz`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadyParameters {
    role: Option<Asked>,
}

/// The roles whose readiness is asked for.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Asked {
    CommandApi,
    Projector,
    QueryApi,
    /// Every role of the process.
    All,
}

impl Asked {
    fn role(self) -> Option<Role> {
        match self {
            Self::CommandApi => Some(Role::CommandApi),
            Self::Projector => Some(Role::Projector),
            Self::QueryApi => Some(Role::QueryApi),
            Self::All => None,
        }
    }
}

async fn ready(
    State(health): State<Health>,
    Query(parameters): Query<ReadyParameters>,
) -> Response {
    let one = parameters.role.and_then(Asked::role);
    if let Some(role) = one.filter(|role| !health.roles.contains(role)) {
        let detail = format!("this process does not have the role {}", role.name());
        return Problem::new(code::NOT_READY, detail)
            .retry_after(RETRY_AFTER)
            .into_response();
    }
    let asked = one.map_or_else(|| health.roles.clone(), |role| vec![role]);
    let (outcomes, warnings) = tokio::join!(health.outcomes(&asked), health.warned());
    let works = |role: &Role| {
        let mut own = outcomes
            .iter()
            .filter(|(check, _)| check.roles.contains(role));
        own.all(|(_, outcome)| outcome.is_ok())
    };
    let word = |ready: bool| if ready { "ready" } else { "not_ready" };
    let roles = asked
        .iter()
        .map(|role| (role.name().to_owned(), word(works(role)).into()));
    let roles: Map<String, Value> = roles.collect();
    let all_work = asked.iter().all(works);
    // What clients ask the process for.
    let door = [Role::CommandApi, Role::QueryApi];
    let door = door.iter().find(|door| asked.contains(door));
    let is_served = door.is_some_and(works);
    let (mut checks, mut failed) = (Map::new(), Vec::new());
    for (check, outcome) in &outcomes {
        let shown = match outcome {
            Ok(()) => "ready",
            Err(reason) => {
                failed.push(format!("{}: {reason}", check.name));
                reason
            }
        };
        checks.insert(check.name.to_owned(), Value::from(shown));
    }
    if all_work || (parameters.role.is_none() && is_served) {
        let status = if all_work { "ready" } else { "degraded" };
        let body =
            json!({"status": status, "roles": roles, "checks": checks, "warnings": warnings});
        return Json(body).into_response();
    }
    Problem::new(code::NOT_READY, failed.join("; "))
        .member("roles", roles)
        .member("checks", checks)
        .member("warnings", warnings)
        .retry_after(RETRY_AFTER)
        .into_response()
}

async fn metrics(State(health): State<Health>, _: NoQuery) -> Response {
    let media_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], (health.metrics)()).into_response()
}

/// The name of these routes in the OpenAPI document.
pub(crate) const DOOR: &str = "Health";

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
    let by_name = |description: &str| {
        json!({"type": "object", "additionalProperties": {"type": "string"},
               "description": description})
    };
    let alive = json!({
        "type": "object",
        "properties": {"status": {"type": "string", "enum": ["live"]}},
        "required": ["status"],
    });
    let ready = json!({
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["ready", "degraded"],
                       "description": "`degraded`: the process takes commands, and a role that \
                                       only reads fails; without the role command-api: it answers \
                                       queries, and another role fails."},
            "roles": by_name("For each role: `ready`, or why it is not."),
            "checks": by_name("For each check: `ready`, or why it failed."),
            "warnings": {"type": "array", "items": {"type": "string"},
                         "description": "What an operator should know although the checks pass: \
                                         a new version of a read model that waits, rows that \
                                         differ from the log."},
        },
        "required": ["status", "roles", "checks", "warnings"],
    });
    let role = json!({
        "name": "role",
        "in": "query",
        "description": "The role to ask about. Without it, the answer is about the process, which \
                        is `degraded` (with 200) as long as it takes commands (or, without that \
                        role, answers queries) and only the rest fails. `all` asks about every role.",
        "schema": {"type": "string", "enum": ["command-api", "projector", "query-api", "all"]},
    });
    let mut fragment = Fragment::of(DOOR, &[]);
    fragment.tag(
        "health",
        "Whether the server is alive and ready, and its metrics.",
    );
    fragment.schema("Alive", alive);
    fragment.schema("Ready", ready);
    for (path, id, (summary, description), ok) in [
        (
            "/livez",
            "livez",
            (
                "Whether the process answers",
                "Asks nothing else: a process that answers need not be restarted.",
            ),
            answer(
                "The process answers.",
                "application/json",
                openapi::schema_ref("Alive"),
            ),
        ),
        (
            "/readyz",
            "readyz",
            (
                "Whether a role is ready",
                "For a load balancer: send a role's requests here only while it is ready.",
            ),
            answer(
                "The role is ready; without `role`, the process takes commands or, without that \
                 role, answers queries.",
                "application/json",
                openapi::schema_ref("Ready"),
            ),
        ),
        (
            "/metrics",
            "metrics",
            (
                "All metrics",
                "For Prometheus; `docs/metrics.md` describes each of them.",
            ),
            answer(
                "The metrics in Prometheus' text format.",
                "text/plain",
                json!({"type": "string"}),
            ),
        ),
    ] {
        let statuses: &[u16] = match path {
            "/readyz" => &[400, 503],
            _ => &[400],
        };
        let mut responses = openapi::responses(DOOR, statuses);
        responses.insert("200".to_owned(), ok);
        let mut parameters = vec![openapi::parameter_ref("CorrelationId")];
        parameters.extend((path == "/readyz").then(|| role.clone()));
        fragment.operation(
            path,
            "get",
            json!({
                "operationId": id,
                "tags": ["health"],
                "summary": summary,
                "description": description,
                "parameters": parameters,
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
        let health = Health::new([Role::QueryApi], || "up 1\n".to_owned());
        let health = health.check("log", &[Role::QueryApi], || async { Ok(()) });
        assert_eq!(ask(health.clone(), "/livez").await.0, 200);
        assert_eq!(
            ask(health.clone(), "/metrics").await,
            (200, "up 1\n".to_owned())
        );
        assert_eq!(ask(health.clone(), "/readyz").await.0, 200);
        let health = health.check("postgres", &[Role::QueryApi], || async {
            Err("refused".to_owned())
        });
        let (status, body) = ask(health, "/readyz").await;
        assert_eq!(status, 503);
        assert!(
            body.contains(r#""checks":{"log":"ready","postgres":"refused"}"#),
            "{body}"
        );
    }

    #[tokio::test]
    async fn a_failing_read_side_never_takes_the_command_door_out_of_rotation() {
        let roles = [Role::CommandApi, Role::Projector, Role::QueryApi];
        let health = Health::new(roles, String::new)
            .check("writing", &[Role::CommandApi], || async { Ok(()) })
            .check("projecting", &[Role::Projector], || async {
                Err("stopped".to_owned())
            })
            .check("postgres", &[Role::QueryApi], || async { Ok(()) });
        let (status, body) = ask(health.clone(), "/readyz").await;
        assert_eq!(status, 200);
        assert!(body.contains(r#""status":"degraded""#), "{body}");
        assert!(body.contains(r#""projector":"not_ready""#), "{body}");
        for (role, status) in [
            ("command-api", 200),
            ("projector", 503),
            ("query-api", 200),
            ("all", 503),
            ("chief", 400),
        ] {
            let (answered, body) = ask(health.clone(), &format!("/readyz?role={role}")).await;
            assert_eq!(answered, status, "{role}: {body}");
        }
        let away = health.check("log", &[Role::CommandApi], || async {
            Err("away".to_owned())
        });
        assert_eq!(ask(away.clone(), "/readyz").await.0, 503);
        assert_eq!(ask(away, "/readyz?role=query-api").await.0, 200);
    }

    #[tokio::test]
    async fn a_projection_that_stopped_never_takes_the_query_door_out_of_rotation() {
        let health = Health::new([Role::Projector, Role::QueryApi], String::new)
            .check("projecting", &[Role::Projector], || async {
                Err("projection daily_sales is stuck in partition 1".to_owned())
            })
            .check("postgres", &[Role::QueryApi], || async { Ok(()) });
        let (status, body) = ask(health.clone(), "/readyz").await;
        assert_eq!(status, 200);
        assert!(body.contains(r#""status":"degraded""#), "{body}");
        assert!(
            body.contains("daily_sales is stuck in partition 1"),
            "{body}"
        );
        assert_eq!(ask(health, "/readyz?role=projector").await.0, 503);
    }

    #[tokio::test]
    async fn a_role_that_the_process_lacks_is_not_ready() {
        let health = Health::new([Role::Projector], String::new);
        assert_eq!(ask(health.clone(), "/readyz?role=projector").await.0, 200);
        let (status, body) = ask(health, "/readyz?role=command-api").await;
        assert_eq!(status, 503);
        assert!(body.contains("does not have the role"), "{body}");
    }
}
