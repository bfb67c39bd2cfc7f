//! The Rust client of both doors, for any program: single commands and batches, streams, read
//! models, the feed of all events, and problems as values.
//!
//! Invariant: a command keeps its id through every attempt, so that it takes effect once, however
//! often it is sent. Deliberately absent: the log and the doors; this crate only speaks HTTP to
//! them.

mod batch;
mod command;
mod feed;
mod life;
mod problem;
mod query;
mod story;
#[cfg(test)]
mod tests;
mod why;
mod wire;

use std::time::Duration;

pub use batch::{
    BatchClient, CommandLine, IN_FLIGHT_MAX_DEFAULT, Observer, Origin, Outcome, RETRY_FOR_DEFAULT,
    Said, SendError, SendOptions,
};
pub use command::{Accepted, Command, EventRef};
pub use feed::{Feed, FeedItem, FeedKind, FeedPlace, FeedQuery};
pub use life::{Change, Diff, EventAuthor, Moment, Standing, StreamSummary};
pub use problem::{ClientError, Code, Problem};
pub use query::{EventsPage, Folded, Freshness, Page, Query, Read, RecordedEvent};
pub use story::{Story, StoryCommit, StoryEvent};
pub use why::{ContributedCell, Contribution, LeftOutStream, Why, WhyDifference};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take: longer than the longest wait that a door grants.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);

/// A client of one server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    retry_for: Duration,
}

impl Client {
    /// A client of the server at `url`, such as `http://127.0.0.1:4747`; nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Address`] if `url` is not a valid address.
    pub fn to(url: &str) -> Result<Self, ClientError> {
        let url = url.trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()
            .and_then(|http| http.get(&url).build().map(|_| http));
        match http {
            Ok(http) => Ok(Self {
                http,
                url,
                retry_for: RETRY_FOR_DEFAULT,
            }),
            Err(source) => Err(ClientError::Address { url, source }),
        }
    }

    /// The same client, which sends an unanswered command again for at most this long. Zero: every
    /// command is sent once. Queries are never sent again.
    #[must_use]
    pub fn retry_for(self, retry_for: Duration) -> Self {
        Self { retry_for, ..self }
    }
}
