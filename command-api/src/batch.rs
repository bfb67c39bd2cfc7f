//! A batch of commands: lines in, lines out, both as streams. Or one JSON array in, and one out, for
//! clients that cannot write lines; it becomes lines and goes the same way.
//!
//! The request's body is read only as fast as answers are sent: at most
//! [`Options::batch_in_flight_max`](crate::Options) commands wait at once, and when the client
//! stops reading, the door stops reading, too. No task is spawned; the task that polls the response
//! does the work.
//!
//! Invariant: one answer for each line that is not blank, in the order of the lines; a line that
//! cannot be read affects no other line. Deliberately absent: the order of commands within a
//! stream, which the engine keeps.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::extract::FromRequest as _;
use axum::extract::{Extension, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use door::extract::{is_of_media_type, require_media_type};
use door::{BODY_SIZE_MAX, Charge, Correlation, Deadline, Held, JsonText, NoQuery, Owed, Problem};
use engine::command::{Answer, SubmitError};
use engine::{Batch, Pending};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::{Accepted, Asked, malformed, said, unanswered};
use crate::headers::{given, trace};
use crate::line::{self, Defaults};
use crate::lines::{Line, Lines};
use crate::traced::Traced;
use crate::{Door, code};

/// The media type of a batch of lines and of its answers.
pub(crate) const MEDIA_TYPE: &str = "application/x-ndjson";
/// The media type of a batch as one array, and of its answers.
const ARRAY_TYPE: &str = "application/json";
/// The most commands in an array.
pub(crate) const ARRAY_COMMANDS_MAX: usize = 1_000;
/// The most answers in one chunk.
const ANSWERS_PER_CHUNK_MAX: usize = 256;
/// The typical size of an answer, in bytes.
const ANSWER_SIZE_TYPICAL: usize = 320;

/// `POST /v1/commands`
pub(crate) async fn submit(
    State(door): State<Door>,
    _: NoQuery,
    Extension(correlation): Extension<Correlation>,
    request: Request,
) -> Result<Response, Problem> {
    require_media_type(request.headers(), &[MEDIA_TYPE, ARRAY_TYPE])?;
    let form = match is_of_media_type(request.headers(), ARRAY_TYPE) {
        true => Form::Array,
        false => Form::Lines,
    };
    let origin = Origin {
        instance: request.uri().path().to_owned(),
        correlation_id: correlation.id.as_str().to_owned(),
    };
    let charge = Charge::of_request(request.extensions());
    let here = request.extensions().get().cloned();
    let wait = Deadline::of(request.headers())?.wait;
    let defaults = Defaults {
        correlation_id: given(&correlation),
        trace: trace(request.headers()),
    };
    let body = match form {
        Form::Lines => request.into_body(),
        Form::Array => {
            let JsonText(text) = JsonText::from_request(request, &()).await?;
            lines_of(&text)?.into()
        }
    };
    let intake = Intake {
        budget: Budget::of(door.options.batch_in_flight_bytes_max),
        wait,
        defaults,
        lines: Lines::new(body.into_data_stream(), BODY_SIZE_MAX).charged(charge.clone()),
        charge,
        here,
        batch: door.engine.batch(),
        door,
    };
    let answers = answers(intake, origin, form);
    let (media_type, body) = match form {
        Form::Lines => (MEDIA_TYPE, Body::from_stream(answers)),
        Form::Array => {
            let bracket = |text| stream::iter([Ok(Bytes::from_static(text))]);
            let whole = bracket(b"[").chain(answers).chain(bracket(b"]"));
            (ARRAY_TYPE, Body::from_stream(whole))
        }
    };
    Ok(([(header::CONTENT_TYPE, media_type)], body).into_response())
}

/// How a batch and its answers are written.
#[derive(Clone, Copy)]
enum Form {
    Lines,
    Array,
}

/// The commands of an array, one in each line.
fn lines_of(text: &str) -> Result<String, Problem> {
    let commands: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| {
        let code = match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => door::code::SHAPE_INVALID,
            Err(_) => door::code::JSON_INVALID,
        };
        let detail = format!("a batch is an array of commands, or lines ({MEDIA_TYPE}): {error}");
        Problem::new(code, detail)
    })?;
    if commands.len() > ARRAY_COMMANDS_MAX {
        let detail = format!(
            "the array has {} commands, and may have {ARRAY_COMMANDS_MAX}; send more as {MEDIA_TYPE}",
            commands.len()
        );
        let problem = Problem::new(code::BATCH_TOO_LONG, detail);
        return Err(problem.member("max", ARRAY_COMMANDS_MAX));
    }
    // Within a JSON text, a line break is always white space: in strings it is escaped.
    let line = |command: &&RawValue| command.get().replace(['\n', '\r'], " ") + "\n";
    Ok(commands.iter().map(line).collect())
}

/// Reads lines and submits them to the engine.
struct Intake {
    door: Door,
    lines: Lines<BodyDataStream>,
    batch: Batch,
    defaults: Defaults,
    /// How long each line may wait, from the moment it was read.
    wait: std::time::Duration,
    budget: Budget,
    charge: Charge,
    /// The request's span, if it is traced.
    here: Option<spans::Parent>,
}

/// The origin that a line's problem names, unless the problem names another.
struct Origin {
    instance: String,
    correlation_id: String,
}

/// A line that was answered at once, or whose answer will come.
enum Asking {
    Refused(Problem, Option<Asked>),
    InFlight {
        pending: Pending,
        asked: Asked,
        traced: Option<Box<Traced>>,
        _held: (Option<OwnedSemaphorePermit>, Held, Owed),
    },
}

/// The outcome of a line.
enum Outcome {
    Refused(Problem, Option<Asked>),
    Unanswered(SubmitError, Asked),
    Said(Answer, Asked),
}

fn answers(
    intake: Intake,
    origin: Origin,
    form: Form,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let in_flight_max = intake.door.options.batch_in_flight_max.max(1);
    stream::unfold(Box::new(intake), |mut intake| async move {
        let line = intake.lines.next().await?;
        let number = line.number;
        let asking = intake.ask(line).await;
        Some((outcome(number, asking), intake))
    })
    .buffered(in_flight_max)
    .ready_chunks(ANSWERS_PER_CHUNK_MAX)
    .map(move |outcomes| Ok(written(outcomes, &origin, form)))
}

async fn outcome(number: u64, asking: Asking) -> (u64, Outcome) {
    let outcome = match asking {
        Asking::Refused(problem, asked) => Outcome::Refused(problem, asked),
        Asking::InFlight {
            pending,
            asked,
            traced,
            _held,
        } => {
            let reply = pending.await;
            if let Some(traced) = traced {
                traced.end(&reply);
            }
            match reply {
                Ok(answer) => Outcome::Said(answer, asked),
                Err(error) => Outcome::Unanswered(error, asked),
            }
        }
    };
    (number, outcome)
}

impl Intake {
    async fn ask(&mut self, line: Line) -> Asking {
        let text = match line.text {
            Ok(text) => text,
            Err(problem) => return Asking::Refused(problem, None),
        };
        let mut request = match line::read(&text, &self.defaults) {
            Ok(request) => request,
            Err(problem) => return Asking::Refused(problem, None),
        };
        let traced = Traced::begin(self.here.as_ref(), &mut request).map(Box::new);
        let asked = Asked::of(&request);
        let prepared = match self.door.engine.prepare(request) {
            Ok(prepared) => prepared.traced(traced.as_ref().map(|traced| traced.walk())),
            Err(error) => {
                let problem = malformed(error, "/data").member("command_id", asked.id.as_str());
                return Asking::Refused(problem, Some(asked));
            }
        };
        let held = (
            self.budget.take(text.len()).await,
            room(&self.charge, text.len()).await,
            self.charge.owe(),
        );
        let deadline = Deadline::after(self.wait);
        Asking::InFlight {
            pending: self.batch.submit(prepared, deadline.at).await,
            asked,
            traced,
            _held: held,
        }
    }
}

/// Waits without a limit until there is memory for a line. An error reply would let the lines after
/// it, perhaps for the same stream, run first.
async fn room(charge: &Charge, size: usize) -> Held {
    loop {
        if let Ok(held) = charge.take(size).await {
            return held;
        }
    }
}

/// Limits the bytes of all lines that wait for their answers.
struct Budget {
    bytes: Arc<Semaphore>,
    max: u32,
}

impl Budget {
    fn of(bytes_max: usize) -> Self {
        let max = u32::try_from(bytes_max.max(BODY_SIZE_MAX)).unwrap_or(u32::MAX >> 4);
        Self {
            bytes: Arc::new(Semaphore::new(max as usize)),
            max,
        }
    }

    /// Waits until there is room; a single line always fits.
    async fn take(&self, size: usize) -> Option<OwnedSemaphorePermit> {
        let size = u32::try_from(size).unwrap_or(self.max).min(self.max);
        // The semaphore is never closed, so this always returns a permit.
        self.bytes.clone().acquire_many_owned(size).await.ok()
    }
}

#[derive(Serialize)]
struct AcceptedLine<'a> {
    line_number: u64,
    status: u16,
    command_id: &'a kernel::CommandId,
    #[serde(flatten)]
    accepted: Accepted<'a>,
}

#[derive(Serialize)]
struct ProblemLine<'a> {
    line_number: u64,
    #[serde(flatten)]
    problem: &'a Problem,
}

fn written(outcomes: Vec<(u64, Outcome)>, origin: &Origin, form: Form) -> Bytes {
    let mut text = Vec::with_capacity(outcomes.len() * ANSWER_SIZE_TYPICAL);
    for (number, outcome) in outcomes {
        if matches!(form, Form::Array) && number > 1 {
            text.push(b',');
        }
        write(&mut text, number, outcome, origin);
        text.push(b'\n');
    }
    text.into()
}

fn write(text: &mut Vec<u8>, line_number: u64, outcome: Outcome, origin: &Origin) {
    let (problem, asked) = match outcome {
        Outcome::Said(answer, asked) => match said(&answer, &asked) {
            Ok(accepted) => {
                let command_id = &answer.command_id;
                let line = AcceptedLine {
                    line_number,
                    status: 200,
                    command_id,
                    accepted,
                };
                return put(text, &line);
            }
            Err(problem) => (problem, Some(asked)),
        },
        Outcome::Unanswered(error, asked) => (unanswered(&error, &asked.id), Some(asked)),
        Outcome::Refused(problem, asked) => (problem, asked),
    };
    let correlation_id = asked
        .as_ref()
        .map_or(&*origin.correlation_id, Asked::correlation_id);
    let problem = problem.complete(&origin.instance, correlation_id);
    put(
        text,
        &ProblemLine {
            line_number,
            problem: &problem,
        },
    );
}

fn put(text: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(text, line).expect("strings and numbers are always written to memory");
}
