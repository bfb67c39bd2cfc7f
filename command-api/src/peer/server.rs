//! The routes that this node serves to its peers.
//!
//! Invariant: only peers get past the guard, whatever the route. A link's lines are read only as
//! fast as its answers are sent: at most [`ServerOptions::in_flight_max`] commands of a link wait
//! at once. No task is spawned; the task that polls the response does the work. Deliberately
//! absent: these routes in the public OpenAPI document. They are an agreement between versions of
//! this program, which change them together; a client that used them would bypass the order and the
//! limits that the command door keeps.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use door::extract::require_media_type;
use door::{Deadline, JsonText, NoQuery, Path, Problem};
use engine::command::{SubmitError, TurnedAway};
use engine::owner::Inquiry;
use engine::peers::{AcceptedLink, LinkAnswer, PeerService};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, stream};
use position::Partition;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::auth::{Guard, Identity};
use super::client::{HandOver, LetGo};
use super::code;
use super::heard::Heard;
use super::link::keep_alive;
use super::refusals::Refusals;
use super::wire::{COMMAND_SIZE_MAX, CommandRead, read_command, write_answer, write_outcome};
use crate::batch::MEDIA_TYPE;
use crate::lines::Lines;
use crate::traced::Traced;

/// The most answers in one chunk.
const ANSWERS_PER_CHUNK_MAX: usize = 256;
/// The typical size of an answer, in bytes.
const ANSWER_SIZE_TYPICAL: usize = 384;
/// When to try again with a command that was not understood.
const STRANGE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// When to try again if there was no room or no time.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The bounds of what a node does for its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// The most commands of one link that wait for their answers at once.
    pub in_flight_max: usize,
    /// The most links.
    pub links_max: usize,
    /// How often a link sends a sign of life.
    pub keep_alive: Duration,
    /// A link that receives nothing for this long ends.
    pub silence_max: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            in_flight_max: 1_024,
            links_max: 1_024,
            keep_alive: Duration::from_millis(250),
            silence_max: Duration::from_millis(1_500),
        }
    }
}

/// The serving side. It knows which headers were used, so a process must have only one and clone
/// it.
#[derive(Clone)]
pub struct Server {
    service: Arc<dyn PeerService>,
    guard: Arc<Guard>,
    refusals: Arc<Refusals>,
    links: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    options: ServerOptions,
}

impl Server {
    /// Serves `service` to the peers of `identity`.
    #[must_use]
    pub fn new(service: Arc<dyn PeerService>, identity: Identity, options: ServerOptions) -> Self {
        Self {
            service,
            guard: Arc::new(Guard::new(identity)),
            refusals: Arc::default(),
            links: Arc::new(Semaphore::new(options.links_max)),
            closing: watch::channel(false).0,
            options,
        }
    }

    /// The routes, to be merged with others and passed through [`door::finish`].
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/peer/partitions/{partition}/commands", post(commands))
            .route("/v1/peer/partitions/{partition}/hand-over", post(hand_over))
            .route("/v1/peer/partitions/{partition}/take-over", post(take_over))
            .route("/v1/peer/partitions/{partition}/outcome", post(outcome))
            .route_layer(from_fn_with_state(self.clone(), only_peers))
            .with_state(self.clone())
    }

    /// Ends all links, present and future: no more of their lines are read; commands already read
    /// are answered. Call this before the listener is asked to finish, since a link is a request
    /// that does not end by itself.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn partition(&self, number: u32) -> Result<Partition, Problem> {
        if number < self.service.topology().partition_count {
            return Ok(Partition(number));
        }
        Err(no_partition(number))
    }
}

fn no_partition(number: u32) -> Problem {
    let detail = format!("the log has no partition {number}");
    Problem::new(code::PARTITION_UNKNOWN, detail)
}

async fn only_peers(
    State(server): State<Server>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let path = request.uri().path();
    let guard = &server.guard;
    let checked = guard.check(request.method(), path, request.headers(), guard.now());
    match checked {
        Ok(peer) => {
            tracing::debug!(peer, path, "a peer sent a request");
            Ok(next.run(request).await)
        }
        Err(problem) => {
            if let Some(untold) = server.refusals.count(Instant::now()) {
                tracing::warn!(
                    path,
                    untold,
                    code = problem.code(),
                    "refused a request that does not seem to come from a peer"
                );
            }
            Err(problem)
        }
    }
}

/// `POST /v1/peer/partitions/{partition}/hand-over`
async fn hand_over(
    State(server): State<Server>,
    Path(number): Path<u32>,
    _: NoQuery,
    headers: HeaderMap,
    JsonText(text): JsonText,
) -> Result<Json<LetGo>, Problem> {
    let partition = server.partition(number)?;
    let asked: HandOver = serde_json::from_str(&text)
        .map_err(|error| Problem::new(door::code::SHAPE_INVALID, error.to_string()))?;
    let deadline = Deadline::of(&headers)?;
    let let_go = deadline.limit(server.service.hand_over(partition, asked.successor));
    match let_go.await {
        Some(let_go) => Ok(Json(LetGo { let_go })),
        None => {
            let detail = format!(
                "the partition was not handed over within {} ms",
                deadline.wait.as_millis()
            );
            Err(Problem::new(code::NOT_HANDED_OVER, detail).retry_after(RETRY_AFTER))
        }
    }
}

/// `POST /v1/peer/partitions/{partition}/take-over`
async fn take_over(
    State(server): State<Server>,
    Path(number): Path<u32>,
    _: NoQuery,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let partition = server.partition(number)?;
    let deadline = Deadline::of(&headers)?;
    let owned = server.service.take_over(partition, deadline.at).await;
    owned
        .map(|()| StatusCode::OK)
        .map_err(|why| Problem::new(code::NOT_TAKEN_OVER, why).retry_after(RETRY_AFTER))
}

/// `POST /v1/peer/partitions/{partition}/outcome`
async fn outcome(
    State(server): State<Server>,
    Path(number): Path<u32>,
    _: NoQuery,
    headers: HeaderMap,
    JsonText(text): JsonText,
) -> Result<Response, Problem> {
    let partition = server.partition(number)?;
    let asked: Inquiry = serde_json::from_str(&text)
        .map_err(|error| Problem::new(door::code::SHAPE_INVALID, error.to_string()))?;
    let deadline = Deadline::of(&headers)?;
    let outcome = server.service.outcome(partition, asked, deadline.at).await;
    let mut text = Vec::with_capacity(ANSWER_SIZE_TYPICAL);
    write_outcome(&mut text, &outcome);
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// `POST /v1/peer/partitions/{partition}/commands`
async fn commands(
    State(server): State<Server>,
    Path(number): Path<u32>,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    require_media_type(request.headers(), &[MEDIA_TYPE])?;
    let Ok(held) = Arc::clone(&server.links).try_acquire_owned() else {
        let detail = format!("{} links are open", server.options.links_max);
        return Err(Problem::new(code::LINKS_EXHAUSTED, detail).retry_after(RETRY_AFTER));
    };
    let link = server.service.accept(Partition(number));
    let chunks = request.into_body().into_data_stream();
    let intake = Intake {
        link: link.ok_or_else(|| no_partition(number))?,
        lines: Lines::new(
            Heard::new(chunks, server.options.silence_max),
            COMMAND_SIZE_MAX,
        ),
        is_spoilt: false,
        closing: server.closing.subscribe(),
        _held: held,
    };
    let body = Body::from_stream(answers(intake, server.options));
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response())
}

/// Reads lines and submits them to the partition.
struct Intake {
    link: Box<dyn AcceptedLink>,
    lines: Lines<Heard<BodyDataStream>>,
    /// A command was not understood. Later commands may depend on it and are not attempted.
    is_spoilt: bool,
    closing: watch::Receiver<bool>,
    _held: OwnedSemaphorePermit,
}

fn answers(
    intake: Intake,
    options: ServerOptions,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let asked = stream::unfold(Box::new(intake), |mut intake| async move {
        let (sequence, answer) = intake.next().await?;
        Some((answer.map(move |answer| (sequence, answer)), intake))
    });
    // Each answer has its number, so no answer waits for an earlier one.
    let mut answers = asked
        .buffer_unordered(options.in_flight_max.max(1))
        .ready_chunks(ANSWERS_PER_CHUNK_MAX)
        .map(|answers| Ok(written(&answers)))
        .boxed();
    let mut ticks = keep_alive(options.keep_alive);
    stream::poll_fn(move |context| {
        let answered = answers.poll_next_unpin(context);
        if answered.is_ready() {
            return answered;
        }
        let tick = ticks.poll_tick(context);
        tick.map(|_| Some(Ok(Bytes::from_static(b"\n"))))
    })
}

impl Intake {
    /// The next command's number and the future of its answer; none at the end of the link.
    async fn next(&mut self) -> Option<(u64, BoxFuture<'static, LinkAnswer>)> {
        let line = tokio::select! {
            line = self.lines.next() => line?,
            _ = self.closing.wait_for(|closing| *closing) => return None,
        };
        // If not even the number can be read, the link ends: no answer could name the command.
        let read = line.text.as_deref().ok().and_then(read_command)?;
        let ready = |answer| std::future::ready(answer).boxed();
        Some(match read {
            CommandRead::Whole { sequence, .. } | CommandRead::Strange(sequence)
                if self.is_spoilt =>
            {
                (sequence, ready(LinkAnswer::Moved(None)))
            }
            CommandRead::Whole {
                sequence,
                wait,
                request,
            } => {
                let deadline = Instant::now() + wait;
                let traced = Traced::forwarded(&request);
                let walk = traced.as_ref().map(Traced::walk);
                let answer = self.link.submit(*request, deadline, walk).await;
                let answer = match traced {
                    Some(traced) => answer
                        .inspect(|answer| traced.end_forwarded(answer))
                        .boxed(),
                    None => answer,
                };
                (sequence, answer)
            }
            CommandRead::Strange(sequence) => {
                self.is_spoilt = true;
                let error = SubmitError::TurnedAway {
                    reason: TurnedAway::NotReady,
                    retry_after: STRANGE_RETRY_AFTER,
                };
                (sequence, ready(LinkAnswer::Answered(Err(error))))
            }
        })
    }
}

fn written(answers: &[(u64, LinkAnswer)]) -> Bytes {
    let mut text = Vec::with_capacity(answers.len() * ANSWER_SIZE_TYPICAL);
    for (sequence, answer) in answers {
        write_answer(&mut text, *sequence, answer);
    }
    text.into()
}
