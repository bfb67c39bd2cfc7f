//! Queries over the life of a stream: what it is, its state at any moment, what differs between two.
//!
//! Deliberately absent: its events (`query`).

use kernel::{Actor, Timestamp};
use position::PositionToken;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::query::{Folded, Query, Read, RecordedEvent};
use crate::wire::segment;
use crate::{Client, ClientError};

/// A moment in the life of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After its last event.
    Newest,
    /// After this many events; 0 is the empty state.
    Version(u64),
    /// After what was recorded up to this time.
    Recorded(Timestamp),
    /// After what happened up to this time, as the business says it.
    Occurred(Timestamp),
}

impl Moment {
    /// The parameters that name it: by version, and by time.
    fn parameters(self, version: &str, time: &str) -> String {
        match self {
            Self::Newest => String::new(),
            Self::Version(number) => format!("&{version}={number}"),
            Self::Recorded(at) => format!("&{time}={}", segment(&at.to_string())),
            Self::Occurred(at) => format!("&{time}={}&time=occurred", segment(&at.to_string())),
        }
    }
}

/// What a stream is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamSummary {
    /// The stream.
    pub stream: String,
    /// Its category.
    pub category: String,
    /// Whether the server has rules for the category.
    pub known: bool,
    /// How many events it has.
    pub version: u64,
    /// The partition of the log that holds it.
    pub partition: u32,
    /// When its first commit was recorded, refusals included.
    pub first_recorded_at: Timestamp,
    /// When its last commit was recorded, refusals included.
    pub last_recorded_at: Timestamp,
    /// Whether commands for it were refused.
    pub refused: bool,
    /// Its last event.
    pub last_event: Option<RecordedEvent>,
    /// The position at which it was read.
    pub position: Option<PositionToken>,
}

/// The moment that one side of a difference stands on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// The version of the last event that counts; 0 is the empty state.
    pub version: u64,
    /// The id of that event's commit; absent for version 0.
    pub commit: Option<Uuid>,
    /// When that commit was recorded; absent for version 0.
    pub recorded_at: Option<Timestamp>,
    /// Whether the stream never was in this state.
    pub hypothetical: bool,
    /// How many events up to `version` are left out.
    pub skipped: u64,
    /// Whether records that are still to come may change the answer.
    pub provisional: bool,
}

/// What differs between two states of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Diff {
    /// The stream.
    pub stream: String,
    /// Its category.
    pub category: String,
    /// The earlier moment.
    pub from: Standing,
    /// The later moment.
    pub to: Standing,
    /// The fields that differ: applied in this order to the earlier state, they give the later one.
    pub changes: Vec<Change>,
    /// Whether these are all.
    pub complete: bool,
    /// The position at which it was read.
    pub position: Option<PositionToken>,
}

/// A field that differs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Where it is: a JSON pointer.
    pub path: String,
    /// What happened to it: `added`, `removed` or `changed`.
    pub kind: String,
    /// Its value before; null if it was added.
    pub before: Box<RawValue>,
    /// Its value after; null if it was removed.
    pub after: Box<RawValue>,
    /// The event that changed it last; absent if a state is hypothetical.
    pub by: Option<EventAuthor>,
}

/// An event with its envelope, without its data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventAuthor {
    /// The stream's version after this event.
    pub version: u64,
    /// Its id.
    pub id: Uuid,
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
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
}

impl Client {
    /// What a stream is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream(
        &self,
        stream: &str,
        query: &Query,
    ) -> Result<Read<StreamSummary>, ClientError> {
        self.question(&format!("streams/{}", segment(stream)), query)
            .await
    }

    /// What the events of a stream add up to at a moment.
    ///
    /// # Errors
    /// [`ClientError`]; the code `fold_unfinished` if the stream is long: ask again, and the answer
    /// goes on from there.
    pub async fn state_at(
        &self,
        stream: &str,
        moment: Moment,
        query: &Query,
    ) -> Result<Read<Folded>, ClientError> {
        let at = moment.parameters("at_version", "at_time");
        let path = format!(
            "streams/{}/state?{}",
            segment(stream),
            at.trim_start_matches('&')
        );
        self.question(path.trim_end_matches('?'), query).await
    }

    /// What differs between two states of a stream, field by field. If `from` is absent, it is the
    /// version before `to`. Times of both moments are of one kind.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn diff(
        &self,
        stream: &str,
        from: Option<Moment>,
        to: Moment,
        query: &Query,
    ) -> Result<Read<Diff>, ClientError> {
        let from = from.map_or_else(String::new, |from| from.parameters("from", "from_time"));
        let mut to = to.parameters("to", "to_time");
        if from.ends_with("time=occurred") {
            to = to.replace("&time=occurred", "");
        }
        let path = format!(
            "streams/{}/diff?{}",
            segment(stream),
            format!("{from}{to}").trim_start_matches('&')
        );
        self.question(path.trim_end_matches('?'), query).await
    }
}
