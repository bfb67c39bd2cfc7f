//! One command, and its one answer.
//!
//! Invariant: until there is an answer, the client sends the command again under the same id, so
//! that it takes effect only once. Deliberately absent: many commands at once (`batch`).

use std::time::{Duration, Instant};

use position::PositionToken;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::Backoff;
use crate::wire::{header, segment};
use crate::{Client, ClientError};

/// A command to one stream. Only the stream, the type and the data must be given.
#[derive(Clone, Debug)]
pub struct Command {
    /// The stream: category, dash, id.
    pub stream: String,
    /// The command's type.
    pub command: String,
    /// Its data, as JSON.
    pub data: String,
    /// The client's name for this intent.
    pub id: String,
    /// For whom the stream is kept; absent: `main`.
    pub tenant: Option<String>,
    /// When it happened in the business (RFC 3339).
    pub occurred_at: Option<String>,
    /// The command is refused if the stream has another version than this; 0: no events yet.
    pub expected_version: Option<u64>,
    /// Who asks, as `KIND:ID`.
    pub actor: Option<String>,
    /// The conversation it belongs to.
    pub correlation_id: Option<String>,
    /// What caused it.
    pub causation_id: Option<String>,
    /// How long the answer to one attempt may take.
    pub timeout: Option<Duration>,
}

/// The answer to an accepted command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The stream.
    pub stream: String,
    /// Its version now.
    pub version: u64,
    /// The position of the command's commit: a query with it sees what the command did.
    pub position: PositionToken,
    /// The command's events; none if there was nothing left to do.
    pub events: Vec<EventRef>,
    /// Whether this id was answered before, and this is that answer.
    pub repeated: bool,
}

/// An event of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRef {
    /// Its id.
    pub id: Uuid,
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The stream's version after this event.
    pub version: u64,
}

impl Command {
    /// A command under a new id.
    ///
    /// A caller that may have to send the command again later, after a crash, keeps the id, or
    /// derives it from the intent.
    ///
    /// # Errors
    /// If `data` cannot be written as JSON.
    pub fn new(
        stream: impl Into<String>,
        command: impl Into<String>,
        data: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self::of_json(stream, command, serde_json::to_string(data)?))
    }

    /// The same, with data that is JSON already.
    pub fn of_json(
        stream: impl Into<String>,
        command: impl Into<String>,
        data: impl Into<String>,
    ) -> Self {
        Self {
            stream: stream.into(),
            command: command.into(),
            data: data.into(),
            id: Uuid::now_v7().to_string(),
            tenant: None,
            occurred_at: None,
            expected_version: None,
            actor: None,
            correlation_id: None,
            causation_id: None,
            timeout: None,
        }
    }
}

impl Client {
    /// Sends a command until it has an answer, or until it had none for as long as
    /// [`retry_for`](Self::retry_for) says.
    ///
    /// # Errors
    /// [`ClientError`]. If it [is repeatable](ClientError::is_repeatable), the outcome of the
    /// command is not known yet, and the caller may send it again under the same id.
    pub async fn send(&self, command: &Command) -> Result<Accepted, ClientError> {
        let begun = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            let error = match self.send_once(command).await {
                Ok(accepted) => return Ok(accepted),
                Err(error) => error,
            };
            let asked = error.problem().and_then(|problem| problem.retry_after);
            let pause = backoff.next_pause(asked);
            if !error.is_repeatable() || begun.elapsed() + pause > self.retry_for {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn send_once(&self, command: &Command) -> Result<Accepted, ClientError> {
        let (stream, name) = (segment(&command.stream), segment(&command.command));
        let url = format!("{}/v1/streams/{stream}/{name}", self.url);
        let expected = command
            .expected_version
            .map(|version| format!("\"{version}\""));
        let timeout = command
            .timeout
            .map(|timeout| timeout.as_millis().to_string());
        let headers = [
            ("idempotency-key", Some(&command.id)),
            ("annals-tenant", command.tenant.as_ref()),
            ("annals-occurred-at", command.occurred_at.as_ref()),
            ("annals-actor", command.actor.as_ref()),
            ("annals-correlation-id", command.correlation_id.as_ref()),
            ("annals-causation-id", command.causation_id.as_ref()),
            ("annals-timeout-ms", timeout.as_ref()),
            ("if-match", expected.as_ref()),
        ];
        let mut post = self.http.post(url).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            if let Some(value) = value {
                post = post.header(name, header(name, value)?);
            }
        }
        let answered = self.ask(post.body(command.data.clone())).await?;
        self.read(&answered.text)
    }
}
