//! The operators' door: how the read models are doing, and what can be done about them.
//!
//! - `GET /v1/projections`, `GET /v1/projections/{name}`: how they are doing
//! - `POST /v1/projections/{name}/{action}`: pause, resume, rebuild, verify, cancel, switch, rollback,
//!   drop
//! - `GET /v1/members`: the processes that run projections
//! - `GET /v1/parked`, `GET /v1/parked/{projection}/{stream}`: streams that a projection could not take
//!   up, and the commits that wait
//! - `POST /v1/parked/{projection}/{stream}/{action}`: retry, discard
//! - `GET /v1/replays`, `POST /v1/replays`, `GET /v1/replays/{schema}`,
//!   `POST /v1/replays/{schema}/{action}`: replays of this node; play, pause, step, end
//!
//! Invariant: what is asked of live read models is recorded with who asked and why, and done by the
//! projectors that run; a request never waits for the work. Controls are served on loopback only, until there is
//! access control. Deliberately absent: the work itself (`projector`), and rows (`query-api`).

pub mod code;
mod openapi;
mod parked;
mod projections;
mod replays;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, HeaderName};
use axum::routing::{get, post};
use door::Problem;
use door::header::single;
use event_log::log::EventLog;
use kernel::explained;
use projector::{Actor, Operator, Operators, Projection, Report, RuntimeError};
use serde::Deserialize;
use serde_json::Number;

pub use openapi::fragment;
pub use replays::{ReplayLimits, Replays};

/// Who asks.
const ACTOR: HeaderName = HeaderName::from_static("annals-actor");
/// When to try again if Postgres or the log does not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The state that all routes share; cheap to clone.
#[derive(Clone)]
pub struct AdminDoor {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn EventLog>,
    postgres_url: String,
    projections: Vec<Arc<dyn Projection>>,
    operators: Operators,
    replays: Replays,
    /// Whether anything may be changed.
    controls: bool,
    /// An earlier look, for rates.
    earlier: Mutex<Option<(Instant, Vec<Report>)>>,
}

impl AdminDoor {
    /// A door to the read models of `projections` in the Postgres at `postgres_url`, which are made
    /// from `log`. `controls` says whether anything may be changed: only if nobody but this machine
    /// can reach the door. `replays` ends when its owner closes it.
    ///
    /// # Errors
    /// `Postgres` if the URL cannot be parsed.
    pub fn new(
        log: &Arc<dyn EventLog>,
        postgres_url: &str,
        projections: &[Arc<dyn Projection>],
        controls: Controls,
        replays: &Replays,
    ) -> Result<Self, RuntimeError> {
        let inner = Inner {
            log: Arc::clone(log),
            postgres_url: postgres_url.to_owned(),
            projections: projections.to_vec(),
            operators: Operators::new(postgres_url, projections)?,
            replays: replays.clone(),
            controls: controls == Controls::Served,
            earlier: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    async fn operator(&self) -> Result<Operator, Problem> {
        let operator = self.inner.operators.operator().await;
        operator.map_err(|error| failed(&error))
    }

    fn require_controls(&self) -> Result<(), Problem> {
        if self.inner.controls {
            return Ok(());
        }
        let detail = "this node listens on an address that other machines can reach, and there is \
                      no access control yet: use the command line on a machine that reaches \
                      Postgres";
        Err(Problem::new(code::CONTROLS_OFF, detail))
    }
}

/// Whether a door changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controls {
    /// It does what operators ask for.
    Served,
    /// It only shows.
    Off,
}

/// The routes, to be merged with others and passed through [`door::finish`].
pub fn router(door: AdminDoor) -> Router {
    Router::new()
        .route("/v1/projections", get(projections::all))
        .route("/v1/projections/{name}", get(projections::one))
        .route(
            "/v1/projections/{name}/{action}",
            post(projections::control),
        )
        .route("/v1/members", get(projections::members))
        .route("/v1/parked", get(parked::list))
        .route("/v1/parked/{projection}/{stream}", get(parked::one))
        .route(
            "/v1/parked/{projection}/{stream}/{action}",
            post(parked::control),
        )
        .route("/v1/replays", get(replays::all).post(replays::begin))
        .route("/v1/replays/{schema}", get(replays::one))
        .route("/v1/replays/{schema}/{action}", post(replays::control))
        .with_state(door)
}

/// The body of a request that changes something.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Why.
    reason: String,
    /// For how long the live tables are kept after a switch, in seconds.
    keep_seconds: Option<Number>,
    /// Whether a rebuild leaves the new tables beside the live ones.
    no_switch: Option<bool>,
}

impl Asked {
    fn of(body: &str) -> Result<Self, Problem> {
        let asked: Self = serde_json::from_str(body)
            .map_err(|error| Problem::new(door::code::REQUEST_INVALID, error.to_string()))?;
        if asked.reason.trim().is_empty() {
            let detail = "say why: the reason is kept with the record of what was done";
            let problem = Problem::new(door::code::REQUEST_INVALID, detail);
            return Err(problem.pointer("/reason"));
        }
        if asked.keep().is_none() {
            let detail = format!("keep_seconds is a whole number from 0 to {KEEP_SECONDS_MAX}");
            let problem = Problem::new(door::code::REQUEST_INVALID, detail);
            return Err(problem.pointer("/keep_seconds"));
        }
        Ok(asked)
    }

    /// For how long the live tables are kept; absent if what was asked for is not possible.
    fn keep(&self) -> Option<Duration> {
        let Some(asked) = &self.keep_seconds else {
            return Some(Duration::from_secs(KEEP_SECONDS_DEFAULT));
        };
        // JSON does not tell 60 from 60.0.
        let seconds = asked.as_f64().filter(|seconds| seconds.fract() == 0.0)?;
        let is_possible = (0.0..=f64::from(KEEP_SECONDS_MAX)).contains(&seconds);
        is_possible.then(|| Duration::from_secs_f64(seconds))
    }
}

/// For how long the tables that were live are kept after a switch, if nobody says otherwise.
const KEEP_SECONDS_DEFAULT: u64 = 3_600;
/// The longest time: ten years.
const KEEP_SECONDS_MAX: u32 = 315_360_000;

/// Who asks, by the header `Annals-Actor`.
fn actor(headers: &HeaderMap) -> Result<String, Problem> {
    Ok(single(headers, &ACTOR)?.unwrap_or("http").to_owned())
}

fn said<'a>(name: &'a str, asked: &'a Asked) -> Actor<'a> {
    Actor {
        name,
        reason: &asked.reason,
    }
}

/// The problem of a failed request.
fn failed(error: &RuntimeError) -> Problem {
    let detail = explained(error);
    match error {
        RuntimeError::Unknown { .. } => Problem::new(code::PROJECTION_UNKNOWN, detail),
        RuntimeError::InPlace { .. }
        | RuntimeError::NotReady { .. }
        | RuntimeError::NotVerified { .. }
        | RuntimeError::InTheWay { .. }
        | RuntimeError::OtherOwner { .. }
        | RuntimeError::Rebuilding { .. }
        | RuntimeError::Cancelled { .. }
        | RuntimeError::InUse { .. }
        | RuntimeError::Needed { .. } => Problem::new(code::STATE_DOES_NOT_ALLOW, detail),
        _ => {
            tracing::warn!(reason = detail, "an operator's request failed");
            let detail = "the read models do not answer";
            Problem::new(code::OPERATION_UNAVAILABLE, detail).retry_after(RETRY_AFTER)
        }
    }
}
