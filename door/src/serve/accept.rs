//! Accepts connections. The system may be unable to give any more.
//!
//! Invariant: no error ends the listener, and every error is counted and, at most once per
//! interval, logged. If the process runs out of file descriptors, the connection that has waited
//! longest for its client makes room.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::table::Table;

/// How long the listener pauses after the system could not give a connection.
const PAUSE: Duration = Duration::from_millis(50);
/// The interval in which at most one such error is logged.
const TALK_EVERY: Duration = Duration::from_secs(10);

/// Counts errors of `accept` that a client did not cause.
pub(super) struct AcceptErrors {
    count: Counter,
    unsaid: u64,
    said_at: Option<Instant>,
}

impl AcceptErrors {
    pub(super) fn new() -> Self {
        let count = counter!("annals_http_accept_errors_total");
        count.increment(0);
        Self {
            count,
            unsaid: 0,
            said_at: None,
        }
    }

    /// The next connection; none if the system could not give one.
    pub(super) async fn accept(
        &mut self,
        listener: &TcpListener,
        table: &Table,
    ) -> Option<(TcpStream, SocketAddr)> {
        match listener.accept().await {
            Ok(accepted) => Some(accepted),
            Err(error) if is_of_the_client(&error) => None,
            Err(error) => {
                self.note(&error);
                table.make_any_room();
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    }

    fn note(&mut self, error: &io::Error) {
        self.count.increment(1);
        self.unsaid += 1;
        if self.said_at.is_some_and(|at| at.elapsed() < TALK_EVERY) {
            return;
        }
        tracing::error!(
            %error,
            times = self.unsaid,
            "cannot accept connections; if too few files may be open, raise the limit (ulimit -n, \
             or LimitNOFILE of the service) or lower connections_max"
        );
        self.said_at = Some(Instant::now());
        self.unsaid = 0;
    }
}

/// Whether the client had gone before its connection was accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
