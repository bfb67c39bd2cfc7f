//! Replays of a node: begun, stepped, played, paused and ended over HTTP.
//!
//! Invariant: an answer never waits for the work of a replay, but for a moment at its begin, so that what
//! cannot be made is refused at once. Deliberately absent: the task of a replay (`kept`), what is shown of
//! it (`shown`), and the work (`projector`).

mod kept;
mod shown;

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use door::{JsonText, NoQuery, Path, Problem, Query};
use kernel::Timestamp;
use projector::{Existing, Gait, RuntimeError, Until};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::kept::{EndedBy, Wish};
pub use self::kept::{ReplayLimits, Replays};
use self::shown::ReplayShown;
use super::{AdminDoor, actor, code};

/// How long an answer waits for a change that it is asked to wait for.
pub(super) const CHANGE_WAIT: Duration = Duration::from_secs(5);
/// How long the answer to a begin waits, so that it can say what is in the way.
const BEGIN_WAIT: Duration = Duration::from_secs(1);

/// What is to be replayed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewReplayAsked {
    projection: String,
    /// A time, a position token or a condition.
    until: Option<String>,
    /// Begin with the rows as of this time.
    from_snapshot: Option<String>,
    schema: Option<String>,
    replace: Option<bool>,
}

/// A begin that can be tried.
#[derive(Clone, Debug)]
struct Begin {
    projection: String,
    schema: String,
    existing: Existing,
    until: Until,
    until_text: Option<String>,
    from: Option<Timestamp>,
}

impl Begin {
    fn of(door: &AdminDoor, asked: NewReplayAsked) -> Result<Self, Problem> {
        let all = &door.inner.projections;
        if !all.iter().any(|one| one.name() == asked.projection) {
            let detail = format!("there is no projection {:?}", asked.projection);
            return Err(Problem::new(code::PROJECTION_UNKNOWN, detail));
        }
        let schema = asked.schema;
        if schema.as_deref().is_some_and(|schema| !is_name(schema)) {
            let detail = "the name of a schema has 1 to 63 letters a-z, digits and _, and does not \
                          begin with a digit";
            let problem = Problem::new(door::code::REQUEST_INVALID, detail);
            return Err(problem.pointer("/schema"));
        }
        let refused = |detail: String, pointer: &'static str| {
            Problem::new(code::REPLAY_NOT_POSSIBLE, detail).pointer(pointer)
        };
        let until = match &asked.until {
            None => Until::End,
            Some(text) => Until::read(text).map_err(|why| refused(why, "/until"))?,
        };
        let from = asked.from_snapshot.map(|text| {
            let time = text.parse::<Timestamp>();
            time.map_err(|error| refused(format!("{text:?}: {error}"), "/from_snapshot"))
        });
        Ok(Self {
            schema: schema.unwrap_or_else(|| format!("replay_{}", asked.projection)),
            projection: asked.projection,
            existing: match asked.replace {
                Some(true) => Existing::Replaced,
                _ => Existing::Refused,
            },
            until,
            until_text: asked.until,
            from: from.transpose()?,
        })
    }
}

/// Whether it can be the name of a schema. Some names are refused where it is made.
fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let is_first = text.bytes().next().is_some_and(is_letter);
    let is_plain = text.bytes().all(|b| is_letter(b) || b.is_ascii_digit());
    is_first && is_plain && text.len() <= 63
}

/// Reads a body that is an object; the form of a structure as an array is no request.
fn body<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let object = serde_json::from_str::<Map<String, Value>>(text);
    object
        .and_then(|object| serde_json::from_value(Value::Object(object)))
        .map_err(|error| Problem::new(door::code::REQUEST_INVALID, error.to_string()))
}

/// `POST /v1/replays`
pub(super) async fn begin(
    State(door): State<AdminDoor>,
    _: NoQuery,
    headers: HeaderMap,
    JsonText(text): JsonText,
) -> Result<Response, Problem> {
    door.require_controls()?;
    let (asked, by) = (body(&text)?, actor(&headers)?);
    let new = Begin::of(&door, asked)?;
    let schema = new.schema.clone();
    let one = door.inner.replays.begin(&door.inner, new, by)?;
    let shown = one.when(BEGIN_WAIT, |now| !now.is_beginning()).await;
    if let Some(problem) = one.problem_of_begin() {
        door.inner.replays.forget(&schema, &one);
        return Err(problem);
    }
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

#[derive(Serialize)]
struct ReplaysShown {
    replays: Vec<ReplayShown>,
}

/// `GET /v1/replays`
pub(super) async fn all(State(door): State<AdminDoor>, _: NoQuery) -> Result<Response, Problem> {
    let replays = door.inner.replays.all();
    Ok(Json(ReplaysShown { replays }).into_response())
}

/// The parameters of one replay.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneParameters {
    /// Wait until the revision is above this.
    after: Option<u64>,
}

/// `GET /v1/replays/{schema}`
pub(super) async fn one(
    State(door): State<AdminDoor>,
    Path(schema): Path<String>,
    Query(parameters): Query<OneParameters>,
) -> Result<Response, Problem> {
    if parameters
        .after
        .is_some_and(|after| i64::try_from(after).is_err())
    {
        let detail = "after takes the revision of an earlier answer";
        return Err(Problem::new(door::code::QUERY_INVALID, detail));
    }
    let one = door.inner.replays.one(&schema)?;
    let shown = match parameters.after {
        None => one.shown(),
        Some(after) => {
            let is_new = |now: &ReplayShown| now.revision > after || now.is_ended();
            one.when(CHANGE_WAIT, is_new).await
        }
    };
    Ok(Json(shown).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlayAsked {
    speed: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StepBy {
    #[default]
    Commit,
    Event,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepAsked {
    by: Option<StepBy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NothingAsked {}

/// `POST /v1/replays/{schema}/{action}`
pub(super) async fn control(
    State(door): State<AdminDoor>,
    Path((schema, action)): Path<(String, String)>,
    _: NoQuery,
    headers: HeaderMap,
    JsonText(text): JsonText,
) -> Result<Response, Problem> {
    door.require_controls()?;
    let by = actor(&headers)?;
    let wish = match action.as_str() {
        "play" => {
            let speed = body::<PlayAsked>(&text)?.speed;
            if speed.is_some_and(|speed| speed <= 0.0) {
                let problem = Problem::new(
                    door::code::REQUEST_INVALID,
                    "a speed is a number above 0; leave it out to go as fast as possible",
                );
                return Err(problem.pointer("/speed"));
            }
            Wish::Go(Gait::On, speed)
        }
        "step" => match body::<StepAsked>(&text)?.by.unwrap_or_default() {
            StepBy::Commit => Wish::Go(Gait::Commit, None),
            StepBy::Event => Wish::Go(Gait::Event, None),
        },
        "pause" => body::<NothingAsked>(&text).map(|_| Wish::Pause)?,
        "end" => body::<NothingAsked>(&text).map(|_| Wish::End(EndedBy::Asked))?,
        _ => {
            let detail =
                format!("there is no action {action:?}; the actions are: play, pause, step, end");
            return Err(Problem::new(code::ACTION_UNKNOWN, detail));
        }
    };
    let one = door.inner.replays.one(&schema)?;
    let shown = one.ask(wish)?;
    tracing::info!(schema, action, by, "a replay was asked for something");
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// The code of an error of a replay.
fn code_of(error: &RuntimeError) -> door::Code {
    match error {
        RuntimeError::Unknown { .. } => code::PROJECTION_UNKNOWN,
        RuntimeError::Asked { .. } | RuntimeError::Apart { .. } | RuntimeError::InPlace { .. } => {
            code::REPLAY_NOT_POSSIBLE
        }
        _ => code::OPERATION_UNAVAILABLE,
    }
}
