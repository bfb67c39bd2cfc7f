//! Taking connections from the system, which may have no more of them to give.
//!
//! Invariant: no error ends the listener, and none is silent: each is counted, and the log says so
//! once in a while. Where files are short, whoever waits longest for its client makes room.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::table::Table;

/// How long nothing is accepted after the system had nothing to give.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the log says so.
const TALK_EVERY: Duration = Duration::from_secs(10);

/// What the system said that it should not have.
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

    /// The next connection; none where the system had none to give.
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
            "cannot take connections; if files are short, raise the limit (ulimit -n, or \
             LimitNOFILE of the service) or lower connections_max"
        );
        self.said_at = Some(Instant::now());
        self.unsaid = 0;
    }
}

/// Whether the client was gone before its connection was taken.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
