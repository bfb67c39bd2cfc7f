//! Queries: streams and read models.
//!
//! Deliberately absent: any retry; a query that failed has changed nothing.

use kernel::{Actor, Timestamp};
use position::PositionToken;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::life::Moment;
use crate::wire::{Answered, header, segment};
use crate::{Client, ClientError};

/// The options of every query.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// For whom the streams and rows are kept; absent: `main`.
    pub tenant: Option<String>,
    /// Wait until the read model has reached this position, such as that of a command's answer.
    pub min_position: Option<PositionToken>,
    /// Show rows as they were: as of a time (RFC 3339) or a position token; absent: as they are.
    pub as_of: Option<String>,
}

impl Query {
    /// A query that sees everything up to a position, such as that of a command's answer.
    #[must_use]
    pub fn from_position(position: &PositionToken) -> Self {
        Self {
            min_position: Some(position.clone()),
            ..Self::default()
        }
    }
}

/// An answer of a read model.
#[derive(Clone, Debug)]
pub struct Read<T> {
    /// The content of the answer.
    pub value: T,
    /// How far the read model was at that time.
    pub freshness: Freshness,
}

/// How far a read model is behind the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Freshness {
    /// The position that its rows have reached at least; absent if it has read nothing yet.
    pub position: Option<PositionToken>,
    /// For how many seconds the oldest record that its rows lack has been in the log, if known.
    pub lag_seconds: Option<f64>,
    /// Why its rows may be out of date: `stopped`, or `behind`.
    pub stale: Option<String>,
    /// How many streams of the tenant the read model has parked: what they contribute is missing.
    pub parked_streams: u64,
    /// The moment that is shown, if the query named one.
    pub as_of: Option<String>,
    /// How far each partition had got at that moment. As of this position, the same is shown later, too.
    pub as_of_position: Option<PositionToken>,
    /// Whether commits may still come that belong to that moment.
    pub provisional: bool,
}

/// Some rows of a read model, in the order of its key.
#[derive(Clone, Debug, Deserialize)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; absent after the last page.
    pub next: Option<String>,
}

/// Some events of a stream, in their order.
#[derive(Clone, Debug, Deserialize)]
pub struct EventsPage {
    /// The stream's version.
    pub version: u64,
    /// The events.
    pub events: Vec<RecordedEvent>,
    /// The version of the next page's first event; absent after the last page.
    pub next: Option<u64>,
}

/// An event with its complete envelope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// Its id.
    pub id: Uuid,
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The schema version of its data.
    pub schema: u16,
    /// The stream's version after this event.
    pub version: u64,
    /// When it happened in the business.
    pub occurred_at: Timestamp,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Its data.
    pub data: Box<RawValue>,
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
    /// The position of its commit in the log.
    pub position: Option<PositionToken>,
}

/// A stream's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Folded {
    /// The stream.
    pub stream: String,
    /// The version of the last event that counts; 0 is the empty state.
    pub version: u64,
    /// The state, as JSON.
    pub state: Box<RawValue>,
    /// The id of that event's commit; absent for version 0.
    pub commit: Option<Uuid>,
    /// When that commit was recorded; absent for version 0.
    pub recorded_at: Option<Timestamp>,
    /// Whether the stream never was in this state: by business time, events are left out although
    /// they come earlier.
    pub hypothetical: bool,
    /// How many events up to `version` are left out.
    pub skipped: u64,
    /// Whether records that are still to come may change the answer.
    pub provisional: bool,
    /// The position at which it was read.
    pub position: Option<PositionToken>,
}

impl Client {
    /// Events of a stream from a version on, at most `limit` of them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(
        &self,
        stream: &str,
        from_version: u64,
        limit: u32,
        query: &Query,
    ) -> Result<Read<EventsPage>, ClientError> {
        let stream = segment(stream);
        let path = format!("streams/{stream}/events?from_version={from_version}&limit={limit}");
        self.question(&path, query).await
    }

    /// What the events of a stream add up to.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn state(&self, stream: &str, query: &Query) -> Result<Read<Folded>, ClientError> {
        self.state_at(stream, Moment::Newest, query).await
    }

    /// One row of a read model, by the columns of its key, joined by commas.
    ///
    /// # Errors
    /// [`ClientError`]; the code `row_not_found` if there is no such row.
    pub async fn row<T: DeserializeOwned>(
        &self,
        model: &str,
        key: &str,
        query: &Query,
    ) -> Result<Read<T>, ClientError> {
        let path = format!("read/{}/{}", segment(model), segment(key));
        self.question(&path, query).await
    }

    /// Rows of a read model after `after`, the [`next`](Page::next) of another page; at most
    /// `limit`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rows<T: DeserializeOwned>(
        &self,
        model: &str,
        after: Option<&str>,
        limit: u32,
        query: &Query,
    ) -> Result<Read<Page<T>>, ClientError> {
        let after = after.map(|after| format!("&after={}", segment(after)));
        let after = after.unwrap_or_default();
        let path = format!("read/{}?limit={limit}{after}", segment(model));
        self.question(&path, query).await
    }

    pub(crate) async fn question<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &Query,
    ) -> Result<Read<T>, ClientError> {
        let moment = query.as_of.as_ref().map(|moment| {
            let sign = if path.contains('?') { '&' } else { '?' };
            format!("{sign}as_of={}", segment(moment))
        });
        let moment = moment.unwrap_or_default();
        let mut get = self.http.get(format!("{}/v1/{path}{moment}", self.url));
        if let Some(tenant) = &query.tenant {
            get = get.header("annals-tenant", header("annals-tenant", tenant)?);
        }
        if let Some(position) = &query.min_position {
            get = get.header("annals-min-position", position.to_string());
        }
        let answered = self.ask(get).await?;
        Ok(Read {
            value: self.read(&answered.text)?,
            freshness: Freshness::of(&answered),
        })
    }
}

impl Freshness {
    fn of(answered: &Answered) -> Self {
        let parsed = |name: &str| answered.header(name).map(str::to_owned);
        Self {
            position: parsed("annals-position").and_then(|text| text.parse().ok()),
            lag_seconds: parsed("annals-lag").and_then(|text| text.parse().ok()),
            stale: parsed("annals-stale"),
            parked_streams: parsed("annals-parked").map_or(0, |text| text.parse().unwrap_or(0)),
            as_of: parsed("annals-as-of"),
            as_of_position: parsed("annals-as-of-position").and_then(|text| text.parse().ok()),
            provisional: parsed("annals-provisional").is_some(),
        }
    }
}
