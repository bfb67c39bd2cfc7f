//! Why a request failed: without an answer, or with an answer that is an error.
//!
//! Invariant: a refusal by a rule is distinct from every other error, and an error after which a
//! command may have been done is distinct from one after which it was not.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::batch::is_worth_another_try;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is not valid.
    #[error("{url} is not the address of a server")]
    Address {
        /// What was given.
        url: String,
        /// What the HTTP client says.
        source: reqwest::Error,
    },
    /// A value of the request cannot be a header. Nothing was sent.
    #[error("{name} cannot be sent: its value has a control character, such as a line break")]
    Header {
        /// The header.
        name: &'static str,
    },
    /// The server does not answer. A command may have been done: send it again under the same id.
    #[error("could not send a request to {url}")]
    Unreachable {
        /// The server's address.
        url: String,
        /// What the HTTP client says.
        source: reqwest::Error,
    },
    /// The server refused the request, or cannot answer it yet.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer does not come from a door.
    #[error("could not understand the answer of {url}")]
    NotADoor {
        /// The server's address.
        url: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Whether it makes sense to send the same again.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Problem(problem) => problem.is_repeatable(),
            Self::Address { .. } | Self::Header { .. } | Self::NotADoor { .. } => false,
        }
    }

    /// Whether there was no connection to the server.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if source.is_connect())
    }

    /// The server's problem, if it answered with one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }
}

/// A problem document of a door (RFC 9457).
#[derive(Clone, Debug, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// The stable code.
    #[serde(deserialize_with = "code")]
    pub code: Code,
    /// What happened this time, for people.
    #[serde(default)]
    pub detail: String,
    /// The place in the body that does not fit, as a JSON pointer (RFC 6901).
    pub pointer: Option<String>,
    /// The header that does not fit.
    pub header: Option<String>,
    /// The id under which the server's log has it.
    pub correlation_id: Option<String>,
    /// Everything else, such as the facts of a broken rule.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
    /// How long to wait before another try, if the server says so.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// The document as received.
    #[serde(skip)]
    pub text: String,
}

impl Problem {
    /// What is known from a status without a document, such as from a proxy.
    pub(crate) fn without_document(status: StatusCode) -> Self {
        Self {
            status: status.as_u16(),
            code: Code::Other(format!("http_{}", status.as_u16())),
            detail: format!("the answer was {status}, and it is not from a door"),
            pointer: None,
            header: None,
            correlation_id: None,
            facts: Map::new(),
            retry_after: None,
            text: String::new(),
        }
    }

    /// Whether the same may be sent again: it was not attempted, or its outcome is not known yet.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        is_worth_another_try(self.status)
    }

    /// Whether the business refused it: by a rule, or because the stream does not have the expected
    /// version.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.status, 412 | 422)
    }
}

fn code<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Code, D::Error> {
    Ok(Code::of(&String::deserialize(text)?))
}

/// Declares the codes that doors have.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $name:literal),+ $(,)?) => {
        /// The stable code of a problem.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $code,)+
            /// The code of a rule, or one that this client does not know.
            Other(String),
        }

        impl Code {
            /// The names of all codes of doors.
            pub const NAMES: &[&str] = &[$($name),+];

            /// The code of a name.
            #[must_use]
            pub fn of(name: &str) -> Self {
                match name {
                    $($name => Self::$code,)+
                    other => Self::Other(other.to_owned()),
                }
            }

            /// Its name.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$code => $name,)+
                    Self::Other(name) => name,
                }
            }
        }
    };
}
codes! {
    /// The request is malformed (400).
    RequestInvalid = "request_invalid",
    /// The path is malformed (400).
    PathInvalid = "path_invalid",
    /// The query is malformed (400).
    QueryInvalid = "query_invalid",
    /// A header is malformed (400).
    HeaderInvalid = "header_invalid",
    /// The body is not JSON (400).
    JsonInvalid = "json_invalid",
    /// A field is missing, unknown or of the wrong shape (400).
    ShapeInvalid = "shape_invalid",
    /// The request comes from a foreign page (403).
    OriginForeign = "origin_foreign",
    /// No route has this path (404).
    NotFound = "not_found",
    /// The method is not allowed here (405).
    MethodNotAllowed = "method_not_allowed",
    /// The request came too slowly (408).
    RequestTimeout = "request_timeout",
    /// The body is too large (413).
    BodyTooLarge = "body_too_large",
    /// The media type is not supported (415).
    MediaTypeUnsupported = "media_type_unsupported",
    /// The request was meant for another host (421).
    HostUnknown = "host_unknown",
    /// Internal error (500).
    Internal = "internal",
    /// The server is not ready (503).
    NotReady = "not_ready",
    /// All connections are in use (503).
    ConnectionsExhausted = "connections_exhausted",
    /// There is no memory for the request or its answer (503).
    MemoryExhausted = "memory_exhausted",
    /// No aggregate has this category (404).
    CategoryUnknown = "category_unknown",
    /// The aggregate has no such command (404).
    CommandUnknown = "command_unknown",
    /// The command is not in the log so far (404).
    CommandNotInLog = "command_not_in_log",
    /// The preconditions contradict each other (412).
    PreconditionsContradict = "preconditions_contradict",
    /// The command's commit would be too large (413).
    CommitTooLarge = "commit_too_large",
    /// The batch has too many commands (413).
    BatchTooLong = "batch_too_long",
    /// The command id was used for another command (422).
    CommandIdReused = "command_id_reused",
    /// The outcome is unknown (503).
    OutcomeUnknown = "outcome_unknown",
    /// Too many commands are waiting (503).
    Overloaded = "overloaded",
    /// The deadline passed before the command's turn (503).
    DeadlinePassed = "deadline_passed",
    /// The stream's partition is not open here yet (503).
    NotOwner = "not_owner",
    /// The server is shutting down (503).
    Stopping = "stopping",
    /// An earlier command had no answer (503).
    AfterUnanswered = "after_unanswered",
    /// The log of the stream's partition is damaged (503).
    LogDamaged = "log_damaged",
    /// The stream's state is as large as it may be (413).
    StreamTooLarge = "stream_too_large",
    /// The stream is frozen (503).
    StreamFrozen = "stream_frozen",
    /// The program is too old for an event of the stream.
    UpgradeNeeded = "upgrade_needed",
    /// There is no such read model (404).
    ModelUnknown = "model_unknown",
    /// No row has this key (404).
    RowNotFound = "row_not_found",
    /// The cursor is unknown (404).
    CursorUnknown = "cursor_unknown",
    /// The cursor belongs to another query (422).
    CursorOfOtherQuery = "cursor_of_other_query",
    /// The read model was rebuilt, and the cursor is of its old rows (410).
    CursorExpired = "cursor_expired",
    /// No index serves the query (422).
    QueryUnindexed = "query_unindexed",
    /// The query took too long (503).
    QueryTooSlow = "query_too_slow",
    /// Rows as of a moment come in pages: a limit is needed (422).
    LimitNeeded = "limit_needed",
    /// Only the present rows of the read model are kept (409).
    HistoryOff = "history_off",
    /// The row belongs to a stream that the read model has parked (503).
    Parked = "parked",
    /// Too many exports are under way (503).
    ExportsExhausted = "exports_exhausted",
    /// A value is too long for a cursor (422).
    SortValueTooLong = "sort_value_too_long",
    /// The log is not the one that the cursor was made of (409).
    LogChanged = "log_changed",
    /// The node serves as many feeds as it may (503).
    FeedsExhausted = "feeds_exhausted",
    /// There is no such stream (404).
    StreamNotFound = "stream_not_found",
    /// The state of this stream is not known here (404).
    AggregateUnknown = "aggregate_unknown",
    /// Not a position token (400).
    PositionInvalid = "position_invalid",
    /// The position token is of another log (409).
    PositionOfOtherLog = "position_of_other_log",
    /// The read model has not reached the position yet (503).
    ReadModelBehind = "read_model_behind",
    /// The read models do not answer (503).
    ReadModelUnavailable = "read_model_unavailable",
    /// The rows are of another version of the read model, with other columns (503).
    ReadModelOfOtherVersion = "read_model_of_other_version",
    /// The log does not answer (503).
    LogUnavailable = "log_unavailable",
    /// The stream's records were changed or are gone (503).
    StreamDamaged = "stream_damaged",
    /// The stream's state is too large to be shown (422).
    StateTooLarge = "state_too_large",
    /// There is no such conversation (404).
    StoryNotFound = "story_not_found",
    /// The stream has no such version yet (404).
    VersionNotFound = "version_not_found",
    /// The moments that are asked for contradict each other (422).
    MomentUnclear = "moment_unclear",
    /// The stream is long, and not folded to the moment yet; ask again (503).
    FoldUnfinished = "fold_unfinished",
    /// Too many events lie between the two moments (422).
    RangeTooLong = "range_too_long",
    /// What made the row cannot be told: its read model writes rows with SQL of its own (409).
    WhyUnknown = "why_unknown",
    /// Too many commits would have to be looked at to tell what made the row (422).
    WhyTooLong = "why_too_long",
    /// By business time, the rules fail on what is left of the events (422).
    StateImpossible = "state_impossible",
    /// The stream has another version than the expected one (412).
    VersionConflict = "version_conflict",
}
