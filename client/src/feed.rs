//! The feed of all accepted commits: read to its end, or followed, through broken connections.
//!
//! Invariant: items are given only in whole commits, so that a client that goes on after an interruption
//! gets no item twice and misses none. Deliberately absent: keeping the cursor; a program stores it
//! together with what it made of the items.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kernel::{Actor, Timestamp};
use reqwest::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::batch::Backoff;
use crate::wire::{header, segment};
use crate::{Client, ClientError, Problem};

/// A server says something at least every few seconds; after this long, the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The limit of one request, which the feed does not have.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// The most bytes of one line: a commit's event with its envelope.
const LINE_BYTES_MAX: usize = 8 << 20;

/// What is asked of the feed. Each filter that is absent leaves nothing out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedQuery {
    /// For whom the streams are kept; absent: `main`; `*`: all tenants.
    pub tenant: Option<String>,
    /// Where to begin: `beginning`, `now`, the cursor of an earlier item, or the position token of a
    /// command, behind whose commit the feed then begins. Absent: the beginning.
    pub from: Option<String>,
    /// The time from which on commits were recorded, instead of `from`.
    pub from_time: Option<Timestamp>,
    /// The time before which commits were recorded.
    pub until: Option<Timestamp>,
    /// Whether the feed goes on with what comes.
    pub follow: bool,
    /// The stream.
    pub stream: Option<String>,
    /// The category of the streams.
    pub category: Option<String>,
    /// The type of the events.
    pub event_type: Option<String>,
    /// Who asked, as `KIND:ID`.
    pub actor: Option<String>,
    /// The conversation.
    pub correlation_id: Option<String>,
    /// The id of the command.
    pub command_id: Option<String>,
    /// `accepted`, `refused` or `all`; absent: accepted commands only.
    pub outcome: Option<String>,
    /// `recorded` or `latest`: the shape of the data; absent: as it was recorded.
    pub schema: Option<String>,
}

impl FeedQuery {
    /// The path with the query; `cursor` takes the place of where the feed began.
    fn path(&self, cursor: Option<&str>) -> String {
        let times = [
            ("from_time", self.from_time.filter(|_| cursor.is_none())),
            ("until", self.until),
        ];
        let times = times.map(|(name, time)| (name, time.map(|time| time.to_string())));
        let texts = [
            ("from", cursor.or(self.from.as_deref())),
            ("stream", self.stream.as_deref()),
            ("category", self.category.as_deref()),
            ("type", self.event_type.as_deref()),
            ("actor", self.actor.as_deref()),
            ("correlation_id", self.correlation_id.as_deref()),
            ("command_id", self.command_id.as_deref()),
            ("outcome", self.outcome.as_deref()),
            ("schema", self.schema.as_deref()),
        ];
        let times = times.iter().map(|(name, time)| (*name, time.as_deref()));
        let mut path = format!("events?format=ndjson&follow={}", self.follow);
        for (name, text) in texts.into_iter().chain(times) {
            if let Some(text) = text {
                path.push_str(&format!("&{name}={}", segment(text)));
            }
        }
        path
    }
}

/// What an item of the feed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedKind {
    /// An event.
    Event,
    /// A command that was refused.
    Refusal,
}

/// The place of a commit in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPlace {
    /// Its partition.
    pub partition: u32,
    /// Its number among the accepted records of the partition.
    pub position: u64,
    /// The log's own number of its record.
    pub offset: u64,
}

/// An event or a refusal, with its complete envelope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedItem {
    /// What it is.
    pub kind: FeedKind,
    /// For whom the stream is kept.
    pub tenant: String,
    /// The stream.
    pub stream: String,
    /// The stream's version after the event, or when the command was refused.
    pub version: u64,
    /// The event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// The event's type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// The schema version of the event's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u16>,
    /// The stable code of the rule that the refused command broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What the rule says, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When it happened in the business.
    pub occurred_at: Timestamp,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The id of its command.
    pub command_id: String,
    /// The type of its command.
    pub command: String,
    /// The conversation it belongs to.
    pub correlation_id: String,
    /// What caused it.
    pub causation_id: String,
    /// Who asked.
    pub actor: Option<Actor>,
    /// The trace of the request (W3C Trace Context).
    pub traceparent: Option<String>,
    /// Where its commit stands.
    pub place: FeedPlace,
    /// The event's data, or the refused command's.
    pub data: Box<RawValue>,
    /// Stands for all that came so far; on the last item of each commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A line of the feed.
#[derive(Deserialize)]
struct Line {
    kind: String,
    cursor: Option<String>,
    problem: Option<Box<RawValue>>,
}

/// The feed as it comes.
#[derive(Debug)]
pub struct Feed {
    client: Client,
    query: FeedQuery,
    cursor: Option<String>,
    retry_for: Duration,
    /// The answer that is read; absent before the first one and after an interruption.
    response: Option<Response>,
    text: Vec<u8>,
    /// The items of a commit that is not whole yet.
    begun: Vec<FeedItem>,
    ready: VecDeque<FeedItem>,
    has_ended: bool,
}

impl Client {
    /// The feed; nothing is asked before the first [`Feed::next`].
    #[must_use]
    pub fn feed(&self, query: FeedQuery) -> Feed {
        Feed {
            client: self.clone(),
            query,
            cursor: None,
            retry_for: self.retry_for,
            response: None,
            text: Vec::new(),
            begun: Vec::new(),
            ready: VecDeque::new(),
            has_ended: false,
        }
    }
}

impl Feed {
    /// The same feed, which tries for this long to go on after an interruption. By default the client's
    /// time, as for commands.
    #[must_use]
    pub fn retry_for(self, retry_for: Duration) -> Self {
        Self { retry_for, ..self }
    }

    /// Where a later feed goes on to get what comes after all items that were given so far; it may stand
    /// further on than the last item, if nothing came meanwhile. Absent before the first one.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        let cursor = self.cursor.as_deref();
        // While a commit's items are being given, only its last one may be gone on from.
        cursor.filter(|_| self.ready.is_empty())
    }

    /// The next item; absent at the end of a feed that does not follow. After an interruption the feed
    /// goes on by itself.
    ///
    /// # Errors
    /// [`ClientError`]: the problem `log_changed` if the log no longer holds what came before; others if
    /// they last longer than it tries.
    pub async fn next(&mut self) -> Result<Option<FeedItem>, ClientError> {
        let mut backoff = Backoff::new();
        let mut failing_since: Option<Instant> = None;
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.has_ended {
                return Ok(None);
            }
            let error = match self.read().await {
                Ok(()) => {
                    failing_since = None;
                    continue;
                }
                Err(error) => error,
            };
            self.response = None;
            self.text.clear();
            self.begun.clear();
            let may_pass = match &error {
                ClientError::Unreachable { .. } => true,
                ClientError::Problem(problem) => problem.is_repeatable(),
                ClientError::Address { .. }
                | ClientError::Header { .. }
                | ClientError::NotADoor { .. } => false,
            };
            let since = *failing_since.get_or_insert_with(Instant::now);
            if !may_pass || since.elapsed() >= self.retry_for {
                return Err(error);
            }
            let asked = error.problem().and_then(|problem| problem.retry_after);
            sleep(backoff.next_pause(asked)).await;
        }
    }

    /// Reads one line, or begins to.
    async fn read(&mut self) -> Result<(), ClientError> {
        let Some(response) = &mut self.response else {
            let path = self.query.path(self.cursor.as_deref());
            let get = self
                .client
                .http
                .get(format!("{}/v1/{path}", self.client.url));
            let mut get = get.timeout(NO_LIMIT);
            if let Some(tenant) = &self.query.tenant {
                get = get.header("annals-tenant", header("annals-tenant", tenant)?);
            }
            self.response = Some(self.client.begin(get).await?);
            return Ok(());
        };
        if let Some(end) = self.text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.text.drain(..=end).collect();
            return self.take(&line[..end]);
        }
        let broken = |why: &str| {
            let mut problem = Problem::without_document(reqwest::StatusCode::SERVICE_UNAVAILABLE);
            problem.detail = format!("the feed broke off: {why}");
            ClientError::Problem(Box::new(problem))
        };
        if self.text.len() > LINE_BYTES_MAX {
            return Err(broken("a line is longer than any item"));
        }
        match timeout(SILENCE_MAX, response.chunk()).await {
            Err(_elapsed) => Err(broken("the server has been silent for too long")),
            Ok(Err(source)) => Err(self.client.unreachable(source)),
            Ok(Ok(None)) => Err(broken("the server has ended it")),
            Ok(Ok(Some(piece))) => {
                self.text.extend_from_slice(&piece);
                Ok(())
            }
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), ClientError> {
        let text = String::from_utf8_lossy(line);
        let Line {
            kind,
            cursor,
            problem,
        } = self.client.read(&text)?;
        match kind.as_str() {
            "event" | "refusal" => self.begun.push(self.client.read(&text)?),
            "end" => self.has_ended = true,
            "problem" => {
                let text = problem.as_deref().map_or("{}", RawValue::get);
                let mut problem: Problem = self.client.read(text)?;
                problem.text = text.to_owned();
                return Err(ClientError::Problem(Box::new(problem)));
            }
            // Signs of life, and what a later server may add.
            _ => {}
        }
        if cursor.is_some() {
            self.cursor = cursor;
            self.ready.extend(self.begun.drain(..));
        }
        Ok(())
    }
}
