//! One command in a request, and the query for what became of a command.
//!
//! Invariant: the deadline counts from the moment at which the request's headers are read.
//! Deliberately absent: what the engine's answers mean in HTTP (`answer`).

use axum::Json;
use axum::body::HttpBody as _;
use axum::extract::{Extension, FromRequest, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{self, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use door::extract::is_of_media_type;
use door::header::{IDEMPOTENCY_KEY, tenant};
use door::{Correlation, Deadline, JsonText, NoQuery, Path, Problem};
use engine::command::{Answer, Became, Decision};
use kernel::{CommandId, StreamName};
use position::PositionToken;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::answer::{self, Asked, malformed, quoted, said, unanswered};
use crate::headers::CommandHeaders;
use crate::traced::Traced;
use crate::{Door, code};

/// `POST /v1/streams/{stream}/{command}`
pub(crate) async fn submit(
    State(door): State<Door>,
    Path((stream, command)): Path<(String, String)>,
    _: NoQuery,
    Extension(correlation): Extension<Correlation>,
    request: Request,
) -> Result<Response, Problem> {
    let stream = stream_of(&stream)?;
    let deadline = Deadline::of(request.headers())?;
    let headers = CommandHeaders::of(request.headers(), &correlation)?;
    let here: Option<spans::Parent> = request.extensions().get().cloned();
    let id = headers.id.clone();
    let with_id = |problem: Problem| problem.header(IDEMPOTENCY_KEY, &quoted(&id));
    let text = data(request).await.map_err(with_id)?;
    let precondition = headers.expected.version();
    let data = RawValue::from_string(text)
        .map_err(|error| with_id(Problem::new(door::code::JSON_INVALID, error.to_string())))?;
    let mut request = engine::command::Request {
        schema: None,
        tenant: headers.tenant,
        stream,
        command: command.into(),
        id: headers.id,
        occurred_at: headers.occurred_at,
        expected_version: precondition.as_ref().ok().copied().flatten(),
        correlation_id: headers.correlation_id,
        causation_id: headers.causation_id,
        actor: headers.actor,
        trace: headers.trace,
        data,
    };
    let traced = Traced::begin(here.as_ref(), &mut request);
    let asked = Asked::of(&request);
    // Many generated clients send null if the program gives no body.
    let without_members = (request.data.get() == "null").then(|| request.clone());
    let mut prepared = door.engine.prepare(request);
    if let (Err(_), Some(mut request)) = (&prepared, without_members) {
        request.data = RawValue::from_string(EMPTY.to_owned()).expect("it is JSON");
        prepared = door.engine.prepare(request);
    }
    let prepared = prepared.map_err(|error| with_id(malformed(error, "")))?;
    precondition.map_err(with_id)?;
    let prepared = prepared.traced(traced.as_ref().map(Traced::walk));
    let reply = door.engine.submit(prepared, deadline.at).await;
    if let Some(traced) = traced {
        traced.end(&reply);
    }
    let answer = reply.map_err(|error| unanswered(&error, &asked.id))?;
    let body = said(&answer, &asked)?;
    Ok((answer::headers(&answer), Json(body)).into_response())
}

/// The command's data. No body stands for a command without members.
///
/// A request without a body must say that it would be JSON, as some clients do, or have an
/// `Idempotency-Key`: a page in a browser can send a request without a body anywhere without asking
/// first, but not with these headers.
async fn data(request: Request) -> Result<String, Problem> {
    let headers = request.headers();
    let is_typed = headers.contains_key(CONTENT_TYPE);
    if request.body().is_end_stream() {
        match is_typed {
            true if is_of_media_type(headers, "application/json") => return Ok(EMPTY.to_owned()),
            false if headers.contains_key(IDEMPOTENCY_KEY) => return Ok(EMPTY.to_owned()),
            false => return Err(neither_body_nor_id()),
            true => {}
        }
    }
    let JsonText(text) = JsonText::from_request(request, &()).await?;
    Ok(text)
}

/// The data of a command without members.
const EMPTY: &str = "{}";

fn neither_body_nor_id() -> Problem {
    let detail = "a request without a body needs an Idempotency-Key; a body needs the Content-Type \
                  application/json";
    Problem::new(door::code::MEDIA_TYPE_UNSUPPORTED, detail)
        .header(header::ACCEPT, "application/json")
}

/// What became of a command, as a resource of its own: if the command was refused, this request
/// still succeeds.
#[derive(Serialize)]
struct Outcome<'a> {
    stream: &'a StreamName,
    command_id: &'a CommandId,
    outcome: &'static str,
    version: u64,
    position: &'a PositionToken,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum What<'a> {
    Events(&'a [engine::command::EventRef]),
    Rejection(&'a kernel::RecordedRejection),
}

/// `GET /v1/streams/{stream}/commands/{id}`
pub(crate) async fn outcome(
    State(door): State<Door>,
    Path((stream, id)): Path<(String, String)>,
    _: NoQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let stream = stream_of(&stream)?;
    let id: CommandId = id.parse().map_err(|error| bad_path("id", error))?;
    let tenant = tenant(&headers)?;
    let deadline = Deadline::of(&headers)?;
    if door.engine.registry().get(stream.category()).is_none() {
        let known = door.engine.registry().categories();
        let category = stream.category().to_owned();
        let error = engine::command::RequestError::UnknownCategory { category, known };
        return Err(malformed(error, ""));
    }
    let became = door.engine.outcome(&tenant, &stream, &id, deadline.at);
    match became.await.map_err(|error| unanswered(&error, &id))? {
        Became::Answered(answer) => Ok(Json(said_of(&answer)).into_response()),
        Became::NotInLog { up_to } => Err(not_in_log(&stream, &id, &up_to)),
    }
}

/// The answer can only say how far the log was read: a command already sent may still reach it.
fn not_in_log(stream: &StreamName, id: &CommandId, up_to: &PositionToken) -> Problem {
    let places = up_to.positions.iter();
    let places = places.map(|(partition, position)| format!("{position} of partition {partition}"));
    let places: Vec<String> = places.collect();
    let detail = format!(
        "command {id} on {stream} is not in the log up to position {}; it may still reach the \
         log: send it again with the same id",
        places.join(", ")
    );
    Problem::new(code::COMMAND_NOT_IN_LOG, detail)
        .member("command_id", id.as_str())
        .member("position", up_to.to_string())
}

fn said_of(answer: &Answer) -> Outcome<'_> {
    let (outcome, what) = match &answer.decision {
        Decision::Accepted(events) => ("accepted", What::Events(events)),
        Decision::Rejected(rejection) => ("rejected", What::Rejection(rejection)),
    };
    Outcome {
        stream: &answer.stream,
        command_id: &answer.command_id,
        outcome,
        version: answer.version,
        position: &answer.position,
        what,
    }
}

fn stream_of(text: &str) -> Result<StreamName, Problem> {
    text.parse().map_err(|error| bad_path("stream", error))
}

fn bad_path(parameter: &'static str, error: impl std::fmt::Display) -> Problem {
    Problem::new(door::code::PATH_INVALID, error.to_string()).member("parameter", parameter)
}
