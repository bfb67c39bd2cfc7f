//! The client of the batch door: takes lines, and reports one outcome for each.
//!
//! Invariant: a line counts as done only when the door has told its outcome. Until then the client
//! keeps the line, and sends it again under the same id, after every earlier line that is not done
//! either. So the lines of a stream keep their order through broken connections and overload. At
//! most [`SendOptions::in_flight_max`] lines of 64 MiB together are kept. Deliberately absent:
//! where lines come from, and what is made of the outcomes.

mod answer;
mod backlog;
mod backoff;
mod exchange;
mod line;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use futures::Stream;
use tokio::time::{Instant, sleep};

pub(crate) use answer::is_worth_another_try;
pub use answer::{Outcome, Said};
use backlog::Backlog;
pub(crate) use backoff::Backoff;
use exchange::{End, Exchange};
pub use line::{CommandLine, Origin};

/// How many lines may wait for their answers at once, unless said otherwise.
pub const IN_FLIGHT_MAX_DEFAULT: usize = 2_000;
/// How many bytes such lines may have together.
const OPEN_SIZE_MAX: usize = 64 * 1024 * 1024;
/// How long the client goes on without any progress, unless said otherwise.
pub const RETRY_FOR_DEFAULT: Duration = Duration::from_secs(60);
/// How long a server may be silent while lines wait; longer than it waits for its log.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The minimum of that limit, however little time is left.
const SILENCE_MIN: Duration = Duration::from_millis(100);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How lines are sent.
#[derive(Clone, Debug)]
pub struct SendOptions {
    /// The server, such as `http://127.0.0.1:4747`.
    pub url: String,
    /// How many lines may wait for their answers at once; at least 1.
    pub in_flight_max: usize,
    /// How long to go on without any progress.
    pub retry_for: Duration,
}

impl SendOptions {
    /// To `url`, with the defaults.
    pub fn to(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
            retry_for: RETRY_FOR_DEFAULT,
        }
    }
}

/// What a caller is told while its lines are sent.
pub trait Observer {
    /// The door has told the outcome of `line`.
    fn done(&mut self, line: &CommandLine, said: Said);

    /// `lines` lines have no outcome yet and will be sent again after a pause.
    fn waiting(&mut self, lines: usize, cause: &str, pause: Duration);
}

/// Why not every line has an outcome.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There was no progress for too long.
    #[error(
        "no progress for {} s: {cause}; {lines_open} lines were sent and have no outcome; repeat \
         the same lines, no command takes effect twice", waited.as_secs_f64().round()
    )]
    GaveUp {
        /// How long.
        waited: Duration,
        /// The last reason.
        cause: String,
        /// Lines that were sent and whose outcome is not known.
        lines_open: usize,
    },
    /// The server refused the whole batch.
    #[error("{url} answered {status} to the whole batch: {detail}")]
    Refused {
        /// The URL of the request.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says.
        detail: String,
    },
    /// The server speaks another protocol.
    #[error("{url} does not answer as a command door does: {detail}")]
    NotADoor {
        /// The URL of the request.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// No request can be made.
    #[error("cannot send to {url}")]
    Request {
        /// The URL of the request.
        url: String,
        /// What the HTTP client says.
        source: reqwest::Error,
    },
    /// The next line cannot be read.
    #[error("reading the next line failed")]
    Source(#[from] io::Error),
}

impl SendError {
    /// Whether it makes sense to send the same again.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Self::GaveUp { .. })
    }
}

/// A client of the batch door of one server.
pub struct BatchClient {
    http: reqwest::Client,
    url: String,
    options: SendOptions,
}

impl BatchClient {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`SendError::Request`] if the address is not valid.
    pub fn new(options: SendOptions) -> Result<Self, SendError> {
        let url = format!("{}/v1/commands", options.url.trim_end_matches('/'));
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .and_then(|http| http.post(&url).build().map(|_| http));
        match http {
            Ok(http) => Ok(Self { http, url, options }),
            Err(source) => Err(SendError::Request { url, source }),
        }
    }

    /// Sends every line of `source` and tells `observer` the outcome of each, in order within a
    /// stream.
    ///
    /// # Errors
    /// [`SendError`]; outcomes that `observer` was told stay true.
    pub async fn send(
        &self,
        source: impl Stream<Item = io::Result<CommandLine>> + Send + Unpin,
        observer: &mut (impl Observer + Send),
    ) -> Result<(), SendError> {
        let mut source = exchange::Source::new(source);
        let mut backlog = Backlog::new(self.options.in_flight_max);
        let mut backoff = Backoff::new();
        loop {
            let done_before = backlog.done_count();
            // Only a part of the time left: if this connection is dead, there must be time for
            // another.
            let silence_max = SILENCE_MAX
                .min(self.time_left(&backlog) * 3 / 4)
                .max(SILENCE_MIN);
            let exchange = Exchange::open(&self.http, &self.url, silence_max);
            let end = exchange.run(&mut source, &mut backlog, observer).await?;
            backlog.settle();
            let again = match end {
                End::Finished => return Ok(()),
                End::Again(again) => again,
            };
            if backlog.done_count() > done_before {
                backoff = Backoff::new();
            }
            let left = self.time_left(&backlog);
            if left.is_zero() {
                return Err(SendError::GaveUp {
                    waited: backlog.waiting_since().elapsed(),
                    cause: again.cause,
                    lines_open: backlog.open_count(),
                });
            }
            let pause = backoff.next_pause(again.after).min(left);
            observer.waiting(backlog.open_count(), &again.cause, pause);
            sleep(pause).await;
        }
    }

    /// How much longer to go on without progress; the whole time if no line is open.
    fn time_left(&self, backlog: &Backlog) -> Duration {
        if backlog.open_count() == 0 {
            return self.options.retry_for;
        }
        let deadline = backlog.waiting_since() + self.options.retry_for;
        deadline.saturating_duration_since(Instant::now())
    }
}
