//! The value of a commit: everything that one command left, as JSON.
//!
//! Invariant: a commit is serialised once, and those bytes are hashed, stored, sent and shown.
//! Members with their default value are left out: null; tenant `main`; a correlation or causation
//! id equal to the command's id; the command's time if the client gave none; an event's time if it
//! is the time that the client gave, or `recorded_at` if the client gave none; an event's version,
//! which follows from its place. Deliberately absent: where the record stands, and whether it
//! counts.

mod written;

use bytes::Bytes;
use kernel::schemars::{self, JsonSchema};
use kernel::{
    Actor, CausationId, CommandId, CorrelationId, RecordedRejection, StreamName, TenantId,
    Timestamp, TypeName,
};
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The most bytes of a serialised commit.
pub const COMMIT_SIZE_MAX: usize = 900_000;
/// The most bytes of a refused command's data that are kept. Of larger data only the size and the
/// digest are kept.
pub const REFUSED_DATA_SIZE_MAX: usize = 16_384;

/// The highest version of a stream: the maximum of a `bigint`. Every other counter of events can
/// hold it, too.
pub const VERSION_MAX: u64 = i64::MAX.cast_unsigned();

/// All that one command left in the log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The commit's own id (UUID v7).
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub commit: Uuid,
    /// The tenant for whom the stream is kept.
    #[serde(default, skip_serializing_if = "TenantId::is_main")]
    pub tenant: TenantId,
    /// The stream that the commit belongs to.
    pub stream: StreamName,
    /// The stream's version before this commit.
    pub from_version: u64,
    /// When the engine recorded the commit. It increases with every commit of a partition.
    pub recorded_at: Timestamp,
    /// The command that was given.
    pub command: CommandPart,
    /// Who asked; absent if the client did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The conversation, if its id is not the command's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
    /// The direct cause, if it is not the command itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<CausationId>,
    /// W3C `traceparent`, if the client sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Whether the command was accepted.
    pub outcome: Outcome,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<RecordedRejection>,
    /// The events in order; none for a refusal, or if what the command asked for already held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventPart>,
}

/// The command as it stands in its commit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandPart {
    /// The client's name for the intent.
    pub id: CommandId,
    /// The frozen name of its type.
    #[serde(rename = "type")]
    #[schemars(with = "String")]
    pub type_name: TypeName,
    /// The number of its data's shape, if the client named one; otherwise the shape that was
    /// current then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u16>,
    /// The business time that the client sent; absent if it sent none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Timestamp>,
    /// The stream version that the client saw; absent if it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
    /// The data as sent, in canonical form. For a large refused command:
    /// `{"$digest":{"bytes":…,"sha256":…}}`.
    #[schemars(with = "serde_json::Value")]
    pub data: Box<RawValue>,
}

/// Whether a command was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The command's events, possibly none, are facts.
    Accepted,
    /// It was refused, for the recorded reason.
    Rejected,
}

/// One event as it stands in its commit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventPart {
    /// The event's id (UUID v7).
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub id: Uuid,
    /// The frozen name of its type.
    #[serde(rename = "type")]
    #[schemars(with = "String")]
    pub type_name: TypeName,
    /// The number of its data's shape.
    pub schema: u16,
    /// When the event happened. Absent if this is the time that the client gave or, if it gave
    /// none, `recorded_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Timestamp>,
    /// Its data.
    #[schemars(with = "serde_json::Value")]
    pub data: Box<RawValue>,
}

/// Why the value of an accepted commit cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It is not the JSON of a commit.
    #[error("the value is not a commit: {0}")]
    Json(#[from] serde_json::Error),
    /// The key and the value name different streams.
    #[error("the key does not name the stream of the value")]
    Key,
    /// Outcome, rejection and events contradict each other.
    #[error("outcome, rejection and events contradict each other")]
    Outcome,
    /// The stream's version would be above [`VERSION_MAX`].
    #[error("the stream's version is above {VERSION_MAX}")]
    Version,
}

impl Commit {
    /// Reads the value of a record and compares it with the record's key.
    ///
    /// # Errors
    /// [`CommitError`]. For an accepted record this is damage.
    pub fn read(key: &[u8], value: &[u8]) -> Result<Self, CommitError> {
        // Check UTF-8 once for the whole value; a reader of bytes checks each string separately.
        let text = std::str::from_utf8(value).map_err(serde_json::Error::custom)?;
        let commit = match written::read(text) {
            Some(commit) => commit,
            None => serde_json::from_str(text)?,
        };
        if !commit.is_named_by(key) {
            return Err(CommitError::Key);
        }
        let refused = commit.outcome == Outcome::Rejected;
        if refused != commit.rejection.is_some() || (refused && !commit.events.is_empty()) {
            return Err(CommitError::Outcome);
        }
        let version = commit.from_version.checked_add(commit.events.len() as u64);
        if version.is_none_or(|version| version > VERSION_MAX) {
            return Err(CommitError::Version);
        }
        Ok(commit)
    }

    /// Whether `key` is [`Self::key`].
    fn is_named_by(&self, key: &[u8]) -> bool {
        let stream = key
            .strip_prefix(self.tenant.as_str().as_bytes())
            .and_then(|rest| rest.strip_prefix(b"/"));
        stream == Some(self.stream.as_str().as_bytes())
    }

    /// The bytes that are hashed, stored, sent and shown.
    ///
    /// # Errors
    /// None for values of this type; the serialiser's signature requires the `Result`.
    pub fn to_value(&self) -> Result<Bytes, serde_json::Error> {
        let mut bytes = Vec::with_capacity(1024);
        serde_json::to_writer(&mut bytes, self)?;
        Ok(bytes.into())
    }

    /// The record's key: `tenant/stream`.
    #[must_use]
    pub fn key(&self) -> Bytes {
        stream_key(&self.tenant, &self.stream)
    }

    /// The business time of one of its events.
    #[must_use]
    pub fn occurred_at(&self, event: &EventPart) -> Timestamp {
        event.occurred_at.unwrap_or_else(|| self.asked_at())
    }

    /// The command's own business time: the client's, otherwise the time of recording.
    #[must_use]
    pub fn asked_at(&self) -> Timestamp {
        self.command.occurred_at.unwrap_or(self.recorded_at)
    }

    /// The stream's version after this commit.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.from_version + self.events.len() as u64
    }

    /// The conversation that the commit belongs to.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        self.correlation_id
            .as_ref()
            .map_or(self.command.id.as_str(), CorrelationId::as_str)
    }

    /// The direct cause of the commit.
    #[must_use]
    pub fn causation_id(&self) -> &str {
        self.causation_id
            .as_ref()
            .map_or(self.command.id.as_str(), CausationId::as_str)
    }
}

/// The key of a stream's records, in the log and in local state: `tenant/stream`.
#[must_use]
pub fn stream_key(tenant: &TenantId, stream: &StreamName) -> Bytes {
    [tenant.as_str(), "/", stream.as_str()].concat().into()
}
