//! Serves routes on a socket until it is told to stop.
//!
//! Invariant: whatever clients do, the connections, the memory they hold and the time they take are
//! bounded ([`Limits`]), and health and metrics are always answered: on reserved connections if all
//! others are taken, and without shared memory. A request that had begun before the stop is
//! answered if that takes no longer than the grace period; an open batch whose client neither
//! writes nor leaves does not delay the stop any longer. Deliberately absent: TLS, and what is
//! served.

mod accept;
mod body;
mod hosts;
mod limits;
mod pace;
mod socket;
mod table;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Uri, header, request::Parts};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::code;
use crate::finish::{allow_options, refused};
use crate::header::CORRELATION_ID;
use crate::health;
use crate::memory::Memory;
use crate::problem::Problem;
use accept::AcceptErrors;
use body::{Arriving, Leaving};
use hosts::Hosts;
use socket::Socket;
use table::{Connection, Cut, Phase, Place, Table};

pub use body::TooSlow;
pub use limits::{Limits, RESERVE_CONNECTIONS};

/// The most bytes of a request's head.
const HEAD_SIZE_MAX: usize = 16 << 10;
/// The most bytes that are buffered for reading or writing, except for a large answer.
const BUFFER_SIZE_MAX: usize = 32 << 10;
/// The most bytes that are read and dropped of the body of a refused request.
const DRAIN_SIZE_MAX: usize = 256 << 10;
/// How long reading such a body may take.
const DRAIN_WAIT: Duration = Duration::from_millis(200);
/// How long the head of a request on a reserved connection may take.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(2);
/// When to try again if all connections are taken.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Serves `router` with the default settings until `stop` completes, and then for at most `grace`.
///
/// # Errors
/// The error of the socket.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    Server::default().serve(listener, router, stop, grace).await
}

/// The settings of a listener.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// The limits for its connections.
    pub limits: Limits,
    /// Names by which it is reached, in addition to its own address.
    pub hosts: Vec<String>,
}

/// The state of the listener, as its connections see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Connections end after their current request.
    Draining,
    /// Connections end at once.
    Ended,
}

/// The data that all connections of a listener share.
struct Shared {
    limits: Limits,
    hosts: Hosts,
    table: Arc<Table>,
    router: Router,
}

impl Server {
    /// Serves `router` until `stop` completes, and then for at most `grace`.
    ///
    /// # Errors
    /// The error of the socket.
    pub async fn serve(
        self,
        listener: TcpListener,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
        grace: Duration,
    ) -> io::Result<()> {
        let shared = Arc::new(Shared {
            hosts: Hosts::new(listener.local_addr()?, &self.hosts),
            table: Table::new(self.limits, Memory::new(self.limits.memory_bytes)),
            limits: self.limits,
            router,
        });
        let (stage, _) = watch::channel(Stage::Serving);
        let tasks = TaskTracker::new();
        let mut errors = AcceptErrors::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = errors.accept(&listener, &shared.table) => accepted,
            };
            let Some((stream, peer)) = accepted else {
                continue;
            };
            // Answers are small, and clients wait for each of them: the system must not delay one
            // to fill a packet.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "could not set TCP_NODELAY");
            }
            if let Some(place) = shared.table.admit(peer.ip()) {
                let shared = Arc::clone(&shared);
                tasks.spawn(drive(stream, place, shared, stage.subscribe()));
            }
        }
        drop(listener);
        stage.send_replace(Stage::Draining);
        tasks.close();
        if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
            tracing::warn!(
                grace_ms = grace.as_millis(),
                "the time for open requests is over; closing the connections that are still open"
            );
            stage.send_replace(Stage::Ended);
            tasks.wait().await;
        }
        Ok(())
    }
}

/// Serves one connection until it ends or is cut.
async fn drive(
    stream: TcpStream,
    place: Place,
    shared: Arc<Shared>,
    mut stage: watch::Receiver<Stage>,
) {
    let connection = Arc::clone(&place.connection);
    let (limits, table) = (&shared.limits, &shared.table);
    let socket = Socket::new(stream, limits, Arc::clone(&connection), Arc::clone(table));
    let service = service_fn(|request| answer(request, &shared, &connection));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // This function itself limits the time for a head, which is not the limit between two
        // requests.
        .header_read_timeout(None::<Duration>)
        .max_buf_size(BUFFER_SIZE_MAX)
        .max_header_size(HEAD_SIZE_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let mut served = pin!(served);
    let header_timeout = match connection.is_reserve {
        true => limits.header_timeout.min(RESERVE_TIMEOUT),
        false => limits.header_timeout,
    };
    let look_every = header_timeout.min(limits.idle_timeout) / 2;
    let mut look = pin!(sleep(look_every));
    loop {
        tokio::select! {
            biased;
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke off");
                }
                return;
            }
            () = connection.cut.notified() => return,
            changed = stage.changed() => match (changed, *stage.borrow_and_update()) {
                (Ok(()), Stage::Draining) => served.as_mut().graceful_shutdown(),
                (Ok(()), Stage::Serving) => {}
                (Ok(()), Stage::Ended) | (Err(_), _) => return,
            },
            () = look.as_mut() => {
                let (limit, cut) = match connection.phase() {
                    (Phase::Idle, time) => (limits.idle_timeout.saturating_sub(time), Cut::Idle),
                    (Phase::Head, time) => (header_timeout.saturating_sub(time), Cut::Head),
                    _ => (look_every, Cut::Idle),
                };
                if limit.is_zero() {
                    return table.count(cut);
                }
                look.as_mut().reset(Instant::now() + limit.min(look_every));
            }
        }
    }
}

/// Answers one request.
async fn answer(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
) -> Result<Response<Leaving>, Infallible> {
    connection.enter(Phase::Busy);
    let (mut parts, body) = request.into_parts();
    let charge = connection.share.charge_of(Arc::clone(&connection.open));
    let leaving = |response: Response<Body>| {
        let (parts, body) = response.into_parts();
        let body = Leaving::new(body, charge.clone(), Arc::clone(connection));
        Ok(Response::from_parts(parts, body))
    };
    if let Some(uri) = without_slash(&parts.uri) {
        parts.uri = uri;
    }
    let is_health = health::PATHS.contains(&parts.uri.path());
    if let Err(problem) = admitted(&parts, is_health, shared, connection) {
        if !parts.headers.contains_key(header::EXPECT) {
            connection.enter(Phase::Receiving);
            drain(body).await;
            connection.enter(Phase::Busy);
        }
        let mut response = refused(&parts, problem);
        close(&mut response);
        return leaving(response);
    }
    let path = (!is_health).then(|| parts.uri.path().to_owned());
    if !is_health {
        parts.extensions.insert(charge.clone());
    }
    let body = Arriving::new(
        body,
        &parts.headers,
        &shared.limits,
        Arc::clone(connection),
        Arc::clone(&shared.table),
    );
    let request = Request::from_parts(parts, Body::new(body));
    let Ok(mut response) = shared.router.clone().oneshot(request).await;
    allow_options(&mut response);
    // The size is known unless the answer is a stream.
    let size = response.body().size_hint().exact();
    if let (Some(path), Some(size)) = (path, size)
        && let Err(problem) = charge
            .settle(usize::try_from(size).unwrap_or(usize::MAX))
            .await
    {
        response = no_room(&response, problem, &path);
    }
    if connection.is_reserve {
        close(&mut response);
    }
    leaving(response)
}

/// The path without slashes at its end, if it has some: they change nothing. Only the folder of files
/// at `/docs/` needs its slash, because its files are named relative to it.
fn without_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let plain = match path.trim_end_matches('/') {
        "" => "/",
        plain => plain,
    };
    if plain.len() >= path.len() || plain == "/docs" {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    let plain = match uri.query() {
        Some(query) => format!("{plain}?{query}"),
        None => plain.to_owned(),
    };
    parts.path_and_query = Some(plain.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Refuses a request that must not reach a route.
fn admitted(
    parts: &Parts,
    is_health: bool,
    shared: &Shared,
    connection: &Connection,
) -> Result<(), Problem> {
    shared.hosts.check(&parts.uri, &parts.headers)?;
    if connection.is_reserve && !is_health {
        let detail = "all connections are in use; use fewer connections, or try again later";
        let problem = Problem::new(code::CONNECTIONS_EXHAUSTED, detail);
        return Err(problem.retry_after(RETRY_AFTER));
    }
    Ok(())
}

/// Reads what a client is just sending. If the connection closed while the client is still writing,
/// a TCP reset could destroy the answer.
async fn drain(mut body: Incoming) {
    let drained = async {
        let mut left = DRAIN_SIZE_MAX;
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len()));
            if left == 0 {
                break;
            }
        }
    };
    // At the end of the body or of the time, nothing is left to do.
    let _ = tokio::time::timeout(DRAIN_WAIT, drained).await;
}

fn close(response: &mut Response<Body>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

/// The answer that replaces one for which there is no memory.
fn no_room(response: &Response<Body>, problem: Problem, path: &str) -> Response<Body> {
    use axum::response::IntoResponse as _;
    let id = response.headers().get(CORRELATION_ID).cloned();
    let text = id.as_ref().and_then(|id| id.to_str().ok());
    let mut refused = problem
        .complete(path, text.unwrap_or_default())
        .into_response();
    if let Some(id) = id {
        refused.headers_mut().insert(CORRELATION_ID, id);
    }
    refused
}

#[cfg(test)]
mod tests;
