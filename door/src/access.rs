//! Records each request once its answer is complete: its duration as a metric, and a line in the
//! log.
//!
//! Invariant: a request's duration ends with the last byte of its answer; for a batch that is its
//! last line. Lines beyond [`LINES_PER_SECOND_MAX`] are counted and not written, so that their cost
//! is bounded. Deliberately absent: bodies, and any part of a path except its route.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::extract::MatchedPath;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use futures::Stream;

use crate::finish::{Correlation, Origin};
use crate::header::{IDEMPOTENCY_KEY, TRACEPARENT};

/// The most log lines per second for requests that succeed or are refused, and as many for requests
/// that fail.
const LINES_PER_SECOND_MAX: u64 = 1_000;
/// Routes that are polled all the time; their lines have the level debug.
const QUIET: [&str; 3] = ["/livez", "/readyz", "/metrics"];
/// How the routes for other nodes begin.
const PEERS: &str = "/v1/peer/";

/// The data of a request before it is answered.
pub(crate) struct Asked {
    method: Method,
    route: Option<MatchedPath>,
    trace_id: Option<String>,
    started: Instant,
    span: Option<spans::Request>,
}

impl Asked {
    pub(crate) fn of(method: &Method, route: Option<&MatchedPath>, headers: &HeaderMap) -> Self {
        Self {
            method: method.clone(),
            route: route.cloned(),
            trace_id: trace_id(headers),
            started: Instant::now(),
            span: span(method, route, headers),
        }
    }

    /// The request's span, for those that continue it; `None` if it is not traced.
    pub(crate) fn here(&self) -> Option<spans::Parent> {
        self.span.as_ref().map(spans::Request::here)
    }

    /// Records the request once `response` has been sent completely, or its client has gone.
    pub(crate) fn answered(self, response: Response, correlation: &Correlation) -> Response {
        let key = response.headers().get(&IDEMPOTENCY_KEY);
        let key = key.and_then(|key| key.to_str().ok());
        let answered = Answered {
            command_id: match key {
                Some(key) => Some(key.trim_matches('"').to_owned()),
                None if correlation.origin == Origin::Command => {
                    Some(correlation.id.as_str().to_owned())
                }
                None => None,
            },
            correlation_id: correlation.id.as_str().to_owned(),
            status: response.status(),
            asked: self,
        };
        let is_whole = response.body().size_hint().exact().is_some();
        if is_whole {
            drop(Telling(answered));
            return response;
        }
        response.map(|body| {
            let (body, telling) = (body.into_data_stream(), Some(Telling(answered)));
            Body::from_stream(Told { body, telling })
        })
    }
}

/// The trace id in a `traceparent` (W3C Trace Context: version, trace id, parent id, flags).
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let parent = headers.get(&TRACEPARENT)?.to_str().ok()?;
    let id = parent.split('-').nth(1)?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

/// The span of a request, if it is traced: neither those that are polled all the time, nor what nodes
/// ask of each other.
fn span(
    method: &Method,
    route: Option<&MatchedPath>,
    headers: &HeaderMap,
) -> Option<spans::Request> {
    let route = route.map_or("none", MatchedPath::as_str);
    if QUIET.contains(&route) || route.starts_with(PEERS) {
        return None;
    }
    spans::Request::begin(method_name(method), route, || {
        Some(headers.get(&TRACEPARENT)?.to_str().ok()?.to_owned())
    })
}

/// The method, from a closed set.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}

/// A request and its answer's data.
struct Answered {
    asked: Asked,
    status: StatusCode,
    command_id: Option<String>,
    correlation_id: String,
}

/// Records a request when it is dropped: at the end of its answer, or when its client has gone.
struct Telling(Answered);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.measure();
        self.0.log();
        if let Some(span) = self.0.asked.span.take() {
            span.end(self.0.status.as_u16());
        }
    }
}

/// A body whose request is recorded once it ends.
struct Told {
    body: BodyDataStream,
    telling: Option<Telling>,
}

impl Stream for Told {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.body).poll_next(context);
        if matches!(polled, Poll::Ready(None)) {
            self.telling = None;
        }
        polled
    }
}

impl Answered {
    fn route(&self) -> &str {
        self.asked
            .route
            .as_ref()
            .map_or("none", MatchedPath::as_str)
    }

    /// The labels come from a closed set, so that a client cannot create new series.
    fn measure(&self) {
        let labels = [
            ("method", method_name(&self.asked.method).to_owned()),
            ("route", self.route().to_owned()),
            ("status", self.status.as_u16().to_string()),
        ];
        let took = self.asked.started.elapsed();
        metrics::histogram!("annals_http_request_seconds", &labels).record(took);
    }

    fn log(&self) {
        let (method, route, status) = (
            method_name(&self.asked.method),
            self.route(),
            self.status.as_u16(),
        );
        let duration_ms = self.asked.started.elapsed().as_secs_f64() * 1_000.0;
        let trace_id = self.asked.trace_id.as_deref();
        let command_id = self.command_id.as_deref();
        let correlation_id = &*self.correlation_id;
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "door::access",
                    method,
                    route,
                    status,
                    duration_ms,
                    trace_id,
                    command_id,
                    correlation_id,
                    "request"
                )
            };
        }
        if QUIET.contains(&route) {
            line!(debug);
        } else if self.status.is_server_error() {
            if tracing::enabled!(target: "door::access", tracing::Level::WARN) && FAILED.has_room()
            {
                line!(warn);
            }
        } else if tracing::enabled!(target: "door::access", tracing::Level::INFO)
            && USUAL.has_room()
        {
            line!(info);
        }
    }
}

static USUAL: Lines = Lines::new();
static FAILED: Lines = Lines::new();

/// Counts the lines in the current second.
struct Lines {
    second: AtomicU64,
    written: AtomicU64,
}

impl Lines {
    const fn new() -> Self {
        Self {
            second: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    fn has_room(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let has_room = self.has_room_at(now.map_or(0, |now| now.as_secs()));
        if !has_room {
            metrics::counter!("annals_access_lines_left_out_total").increment(1);
        }
        has_room
    }

    fn has_room_at(&self, second: u64) -> bool {
        // Two threads that begin a second at the same time may let a few more lines through.
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.written.store(0, Ordering::Relaxed);
        }
        self.written.fetch_add(1, Ordering::Relaxed) < LINES_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_second_has_a_limit_of_log_lines() {
        let lines = Lines::new();
        let written = (0..5_000).filter(|_| lines.has_room_at(7)).count();
        assert_eq!(written as u64, LINES_PER_SECOND_MAX);
        assert!(lines.has_room_at(8));
    }

    #[test]
    fn a_trace_is_named_by_32_digits() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let traced = |parent: &str| {
            let value = HeaderValue::from_str(parent).unwrap();
            trace_id(&HeaderMap::from_iter([(TRACEPARENT, value)]))
        };
        let parent = format!("00-{id}-00f067aa0ba902b7-01");
        assert_eq!(traced(&parent).as_deref(), Some(id));
        for parent in ["", "00", "00-x-y-z", "4bf92f3577b34da6a3ce929d0e0e4736"] {
            assert_eq!(traced(parent), None, "{parent}");
        }
    }
}
