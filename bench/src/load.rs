//! Load over HTTP: a closed loop, whose connections wait for answers, and an open loop, which does
//! not.
//!
//! Invariant: in the open loop a time begins when the request was due, not when it could be sent.
//! So a server that stalls does not get a lower load (coordinated omission). Deliberately absent:
//! what the results are compared with.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::apart::{Job, Loaded};
use crate::raw::per_second;
use crate::rows::query::QueryKind;
use crate::work;

/// A connection that carries one request at a time.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Opens a connection.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a server");
        stream.set_nodelay(true).expect("a socket that takes it");
        let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = opened.expect("a server that speaks HTTP");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Asks, and reads the answer to its end.
    pub async fn get(&mut self, path: &str) {
        let request = Request::builder()
            .uri(path)
            .header("host", "localhost")
            .body(Full::new(Bytes::new()))
            .expect("a request");
        self.ask(request).await;
    }

    /// Posts JSON, and reads the answer to its end.
    pub async fn post(&mut self, path: &str, id: &str, body: Bytes) {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("idempotency-key", id)
            .body(Full::new(body))
            .expect("a request");
        self.ask(request).await;
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) {
        self.0.ready().await.expect("an open connection");
        let uri = request.uri().clone();
        let response = self.0.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{uri}");
        response
            .into_body()
            .collect()
            .await
            .expect("a whole answer");
    }
}

/// A pool of connections; it opens a new one whenever none is idle.
pub struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn of(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            address,
            idle: Mutex::default(),
        })
    }

    /// Posts JSON over one of the connections.
    pub async fn post(&self, path: &str, id: &str, body: Bytes) {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(self.address).await,
        };
        connection.post(path, id, body).await;
        self.idle().push(connection);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of a command that begins a stream.
fn path(seed: u64, number: usize) -> String {
    format!("/v1/streams/{}/PlaceOrder", work::stream(seed, number))
}

fn body(number: usize) -> Bytes {
    work::order(number).to_string().into()
}

/// How many commands are sent one by one before the measurement: the first ones open connections.
const WARM_UP: usize = 64;
/// How many lines form one piece of the body of a batch.
const LINES_PER_PIECE: usize = 64;
/// This bit in a seed keeps the streams of the warm-up apart from the measured ones.
const WARM_SEED: u64 = 1 << 63;

/// Runs a load.
pub async fn run(job: Job) -> Loaded {
    match job {
        Job::Closed {
            address,
            connections,
            count,
            seed,
        } => closed_loop(address, connections, count, Asking::Command { seed }).await,
        Job::Queries {
            address,
            connections,
            count,
            seed,
            kind,
        } => closed_loop(address, connections, count, Asking::Query { kind, seed }).await,
        Job::Paths {
            address,
            connections,
            file,
        } => {
            let paths = std::fs::read_to_string(file).expect("a file with paths");
            let paths: Vec<String> = paths.lines().map(str::to_owned).collect();
            let (count, paths) = (paths.len(), paths.into());
            closed_loop(address, connections, count, Asking::Path(paths)).await
        }
        Job::Paced {
            address,
            rate,
            count,
            seed,
        } => {
            let pool = Pool::of(address);
            for number in 0..WARM_UP {
                let id = format!("warm-{number}");
                pool.post(&path(seed | WARM_SEED, number), &id, body(number))
                    .await;
            }
            let times = open_loop(rate, count, move |number| {
                let pool = Arc::clone(&pool);
                async move {
                    let id = format!("place-{number}");
                    pool.post(&path(seed, number), &id, body(number)).await;
                }
            });
            let mut times = times.await;
            Loaded {
                per_second: rate as f64,
                p50_ms: percentile_ms(&mut times, 50),
                p99_ms: percentile_ms(&mut times, 99),
            }
        }
        Job::Batch {
            address,
            count,
            seed,
        } => Loaded {
            per_second: batch(address, count, seed).await,
            p50_ms: 0.0,
            p99_ms: 0.0,
        },
    }
}

/// What each request of a closed loop is.
#[derive(Clone)]
enum Asking {
    Command { seed: u64 },
    Query { kind: QueryKind, seed: u64 },
    Path(Arc<[String]>),
}

impl Asking {
    async fn ask(&self, connection: &mut Connection, number: usize) {
        match self {
            Self::Command { seed } => {
                let id = format!("place-{number}");
                connection
                    .post(&path(*seed, number), &id, body(number))
                    .await;
            }
            Self::Query { kind, seed } => connection.get(&kind.path(number, *seed)).await,
            Self::Path(paths) => connection.get(&paths[number]).await,
        }
    }
}

/// Connections that each wait for their answer.
async fn closed_loop(
    address: SocketAddr,
    connections: usize,
    count: usize,
    asking: Asking,
) -> Loaded {
    let each = count / connections;
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(address).await);
    }
    let began = Instant::now();
    let asked = open.into_iter().enumerate().map(|(place, mut connection)| {
        let asking = asking.clone();
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(each);
            for number in place * each..(place + 1) * each {
                let began = Instant::now();
                asking.ask(&mut connection, number).await;
                times.push(began.elapsed());
            }
            times
        })
    });
    let mut times = Vec::new();
    for asked in futures::future::join_all(asked).await {
        times.extend(asked.expect("every request is answered"));
    }
    let took = began.elapsed();
    Loaded {
        per_second: per_second(times.len(), took),
        p50_ms: percentile_ms(&mut times, 50),
        p99_ms: percentile_ms(&mut times, 99),
    }
}

/// One request of many lines; returns how many were answered per second.
async fn batch(address: SocketAddr, count: usize, seed: u64) -> f64 {
    let line = |number| {
        let line = json!({
            "stream": work::stream(seed, number), "command": "PlaceOrder",
            "id": format!("place-{number}"), "data": work::order(number),
        });
        format!("{line}\n")
    };
    let lines: Vec<String> = (0..count).map(line).collect();
    let pieces: Vec<String> = lines.chunks(LINES_PER_PIECE).map(<[_]>::concat).collect();
    let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
    let client = reqwest::Client::builder().no_proxy().build();
    let began = Instant::now();
    let response = client
        .expect("a client")
        .post(format!("http://{address}/v1/commands"))
        .header("content-type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(futures::stream::iter(pieces)))
        .send()
        .await
        .expect("an answer");
    let mut answers = response.bytes_stream();
    let mut answered = 0;
    while let Some(piece) = answers.next().await {
        let piece = piece.expect("an unbroken answer");
        answered += piece.iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(answered, count, "every line has an answer");
    per_second(count, began.elapsed())
}

/// Begins `count` pieces of work, `rate` per second, whether or not earlier ones are done. Returns
/// for each piece the time from the moment when it was due to its end.
pub async fn open_loop<W, F>(rate: usize, count: usize, work: W) -> Vec<Duration>
where
    W: Fn(usize) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (took, mut times) = mpsc::unbounded_channel();
    let runtime = Handle::current();
    // A thread of its own: the runtime's timers have a resolution of only a millisecond.
    let pacing = std::thread::spawn(move || {
        let began = Instant::now();
        for number in 0..count {
            let due = began + Duration::from_secs_f64(number as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (work, took) = (work(number), took.clone());
            runtime.spawn(async move {
                work.await;
                let _ = took.send(due.elapsed());
            });
        }
    });
    let mut all = Vec::with_capacity(count);
    while let Some(time) = times.recv().await {
        all.push(time);
    }
    pacing.join().expect("a thread that only paces");
    assert_eq!(all.len(), count, "every piece of work is done");
    all
}

/// The percentile of the times, in milliseconds.
#[must_use]
pub fn percentile_ms(times: &mut [Duration], hundredths: usize) -> f64 {
    times.sort_unstable();
    let rank = (times.len() * hundredths).div_ceil(100).max(1);
    times[rank - 1].as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stall_makes_every_request_late_that_was_due_meanwhile() {
        let gate = Arc::new(tokio::sync::Mutex::new(()));
        let held = Arc::clone(&gate).lock_owned().await;
        let measuring = tokio::spawn(open_loop(1_000, 200, move |_| {
            let gate = Arc::clone(&gate);
            async move { drop(gate.lock().await) }
        }));
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(held);
        let mut times = measuring.await.unwrap();
        // Due evenly over 200 ms, and all answered after 300 ms.
        assert!(percentile_ms(&mut times, 50) > 150.0);
        assert!(percentile_ms(&mut times, 100) > 250.0);
    }
}
