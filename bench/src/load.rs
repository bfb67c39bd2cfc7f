//! Load over HTTP: connections, a closed loop of so many that wait, and an open one that does not.
//!
//! Invariant: in the open loop a time begins when the request was due, not when it could be sent, so
//! that a server that stands still is not asked less (coordinated omission). Deliberately absent: what
//! the load is held against.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// One connection, for one request at a time.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Opens one.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a server");
        stream.set_nodelay(true).expect("a socket that takes it");
        let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = opened.expect("a server that speaks HTTP");
        tokio::spawn(connection);
        Self(sender)
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
        self.0.ready().await.expect("an open connection");
        let response = self.0.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        response
            .into_body()
            .collect()
            .await
            .expect("a whole answer");
    }
}

/// Connections that are taken and given back; as many as are needed at the same time.
pub struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// An empty one.
    #[must_use]
    pub fn of(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            address,
            idle: Mutex::default(),
        })
    }

    /// Posts JSON over one of them.
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

/// Begins `count` pieces of work, `rate` in a second, whether or not earlier ones are done. Returns how
/// long each took from the moment when it was due.
pub async fn open_loop<W, F>(rate: usize, count: usize, work: W) -> Vec<Duration>
where
    W: Fn(usize) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (took, mut times) = mpsc::unbounded_channel();
    let runtime = Handle::current();
    // A thread of its own: the runtime's timers are a millisecond apart.
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

/// The time below which a share of the times lies, in milliseconds.
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
    async fn what_stands_still_makes_everything_late_that_was_due_meanwhile() {
        let gate = Arc::new(tokio::sync::Mutex::new(()));
        let held = Arc::clone(&gate).lock_owned().await;
        let measuring = tokio::spawn(open_loop(1_000, 200, move |_| {
            let gate = Arc::clone(&gate);
            async move { drop(gate.lock().await) }
        }));
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(held);
        let mut times = measuring.await.unwrap();
        // Due evenly over 200 ms, and all answered after 300.
        assert!(percentile_ms(&mut times, 50) > 150.0);
        assert!(percentile_ms(&mut times, 100) > 250.0);
    }
}
