//! What a rule may know about the circumstances of a command.
//!
//! Deliberately absent: data from elsewhere. The API that takes a command looks such data up and
//! puts them into the command.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CommandId, TenantId, Timestamp};

/// The circumstances of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The business time of the command: the time that the client gave, otherwise the wall clock's.
    pub occurred_at: Timestamp,
    /// Whether the client gave the business time.
    pub is_time_given: bool,
    /// Who asks; absent if the client did not say.
    pub actor: Option<Actor>,
    /// For whom the stream is kept.
    pub tenant: TenantId,
    /// The client's name for this intent.
    pub command_id: CommandId,
}

impl Context {
    /// Whether the client itself dates this command `then`.
    ///
    /// A command id names one intent, and this command has another id than the one that led to the
    /// present state. So what the command asks for already holds only if the command says
    /// everything that the state says, including the time. A time that the clock filled in does not
    /// count as said by the client.
    #[must_use]
    pub fn is_dated(&self, then: Timestamp) -> bool {
        self.is_time_given && self.occurred_at == then
    }

    /// Whether the client itself dates this command before `then`.
    #[must_use]
    pub fn is_dated_before(&self, then: Timestamp) -> bool {
        self.is_time_given && self.occurred_at < then
    }
}

/// Who sent a command. The client says so: nothing is authenticated yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// The actor's name within its kind, never personal data; 1 to 255 characters.
    #[schemars(length(min = 1, max = 255))]
    pub id: String,
    /// The kind of actor.
    pub kind: ActorKind,
}

/// The kinds of actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A person.
    User,
    /// Another program.
    Service,
    /// A process manager of this engine.
    Process,
    /// An import of history.
    Import,
}

impl ActorKind {
    /// The frozen name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Process => "process",
            Self::Import => "import",
        }
    }
}
