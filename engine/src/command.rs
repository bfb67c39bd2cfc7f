//! What goes into the engine, and the one answer that comes out.
//!
//! Invariant: the engine says *accepted* or *rejected* only when the log says so. Otherwise the
//! outcome is *unknown*, or the command was *turned away* without being attempted.

use std::time::Duration;

use event_log::damage::Damage;
use kernel::registry::{MessageError, RuleError};
use kernel::{
    Actor, CausationId, CommandId, CorrelationId, RecordedRejection, ShapeError, StreamName,
    TenantId, Timestamp, TypeName,
};
use position::PositionToken;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::frozen::Frozen;

/// A command as a door received it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tenant for whom the stream is kept.
    pub tenant: TenantId,
    pub stream: StreamName,
    pub command: TypeName,
    /// The schema version of the command's data; `None`: the current one.
    pub schema: Option<u16>,
    /// The client's name for this intent.
    pub id: CommandId,
    /// Business time, if the client gave one.
    pub occurred_at: Option<Timestamp>,
    /// The stream version that the client saw; 0: no events yet.
    pub expected_version: Option<u64>,
    /// The conversation, if it is not the one that this command starts.
    pub correlation_id: Option<CorrelationId>,
    /// The direct parent, if there is one.
    pub causation_id: Option<CausationId>,
    /// The person or system that sends the command.
    pub actor: Option<Actor>,
    /// W3C `traceparent`.
    pub trace: Option<String>,
    pub data: Box<RawValue>,
}

/// Why a request does not become a command. Not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No aggregate has the stream's category.
    #[error("no aggregate has the category {category:?}; there are: {known}")]
    UnknownCategory {
        /// The category asked for.
        category: String,
        /// The registered categories, separated by commas.
        known: String,
    },
    /// The aggregate has no such command, or the command's data has another shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The domain's code failed on the request: a bug.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl From<MessageError> for RequestError {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Shape(error) => Self::Shape(error),
            MessageError::Rule(error) => Self::Rule(error),
        }
    }
}

/// What the log says about a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The tenant for whom the stream is kept.
    pub tenant: TenantId,
    pub stream: StreamName,
    pub command_id: CommandId,
    /// The stream's version after the command.
    pub version: u64,
    /// The position of the command's commit in the log.
    pub position: PositionToken,
    /// Accepted with these events, or rejected.
    pub decision: Decision,
    /// Whether the log had this answer already, from an earlier request with the same id.
    pub repeated: bool,
}

/// What happened to a command that was sent earlier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// What the log says about it.
    Answered(Answer),
    /// The command is not in the part of the log that was read. It may be behind that part, and a
    /// copy that was sent earlier may still be appended.
    NotInLog {
        /// How far the log was read.
        up_to: PositionToken,
    },
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Decision {
    /// Accepted with these events; with none if the intent already held.
    Accepted(Vec<EventRef>),
    /// Refused, and the refusal is recorded.
    Rejected(RecordedRejection),
}

/// One event of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRef {
    pub id: Uuid,
    /// The frozen name of its type.
    #[serde(rename = "type")]
    pub type_name: TypeName,
    /// The stream's version with this event.
    pub version: u64,
}

/// What a client is told: the log's answer, or why there is none.
pub type Reply = Result<Answer, SubmitError>;

/// Why there is no answer from the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The id names another command of this stream. Not recorded.
    #[error("this command id was used for another command on the same stream")]
    IdReused,
    /// The command was handed to the log, or may have been, and the log has not answered in time.
    #[error("the outcome is unknown; send the command again with the same id to learn it")]
    Unknown,
    /// The command was not attempted.
    #[error("the command was not attempted: {reason}")]
    TurnedAway {
        reason: TurnedAway,
        /// After what time another attempt makes sense.
        retry_after: Duration,
    },
    /// The commit would be larger than a record may be. Not recorded.
    #[error("the commit would have {size} bytes and may have {max}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The command would make the stream's state larger than allowed. Not recorded.
    #[error("the stream's state would have {size} bytes and may have {max}")]
    StreamTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The rule panicked, or its decision cannot be applied: a bug in the domain. Not recorded.
    #[error("the rule failed")]
    Failed,
    /// The partition's log is damaged, and no commands are decided on it any more.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The stream is frozen, and no commands are decided on it any more. Not recorded.
    #[error(transparent)]
    Frozen(#[from] Frozen),
}

/// The error of a command that was not attempted.
#[must_use]
pub fn turned_away(reason: TurnedAway) -> SubmitError {
    SubmitError::TurnedAway {
        reason,
        retry_after: Duration::from_secs(1),
    }
}

/// Why a command was not attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// The queue of the partition is full.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The command's deadline passed while it waited.
    #[error("its deadline passed while it waited")]
    Late,
    /// The node does not own the partition, or not yet.
    #[error("this node is not ready to decide commands for the stream")]
    NotReady,
    /// The node is shutting down.
    #[error("this node is shutting down")]
    Stopping,
    /// An earlier command for the same stream in the same batch had no answer.
    #[error("an earlier command for this stream in the same batch had no answer")]
    AfterUnanswered,
}
