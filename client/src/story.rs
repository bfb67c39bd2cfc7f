//! The story of a conversation: the commits with one correlation id, as a tree.
//!
//! Deliberately absent: the data of events (`query`).

use kernel::{Actor, Timestamp};
use position::PositionToken;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::query::{Query, Read};
use crate::wire::segment;
use crate::{Client, ClientError};

/// A conversation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Story {
    /// The correlation id.
    pub correlation_id: String,
    /// The commits in the order of the tree: each before those that it caused.
    pub commits: Vec<StoryCommit>,
    /// How many streams they belong to.
    pub streams: u64,
    /// How many of them are refusals.
    pub refused: u64,
    /// When the first of them was recorded.
    pub began_at: Timestamp,
    /// When the last of them was recorded.
    pub ended_at: Timestamp,
    /// Whether these are all, with all of their causes.
    pub complete: bool,
    /// The position at which it was read.
    pub position: Option<PositionToken>,
}

/// What one command left, in its place in the tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoryCommit {
    /// The commit's id.
    pub commit: Uuid,
    /// How many commits stand above it.
    pub depth: u64,
    /// What caused it: `none`, `command`, `event`, `outside` or `circle`.
    pub cause: String,
    /// The commit below which it stands.
    pub parent: Option<Uuid>,
    /// The event of that commit that caused it, if an event did.
    pub parent_event: Option<Uuid>,
    /// How long after that commit it was recorded.
    pub after_ms: Option<i64>,
    /// The stream.
    pub stream: String,
    /// The id of the command.
    pub command_id: String,
    /// The type of the command.
    pub command: String,
    /// What the command names as its direct cause.
    pub causation_id: String,
    /// Who asked.
    pub actor: Option<Actor>,
    /// The trace of the request (W3C Trace Context).
    pub traceparent: Option<String>,
    /// Business time of the command.
    pub occurred_at: Timestamp,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What became of it: `accepted` or `refused`.
    pub outcome: String,
    /// The stable code of the rule that refused it.
    pub code: Option<String>,
    /// What that rule says, for people.
    pub detail: Option<String>,
    /// The stream's version behind the commit.
    pub version: u64,
    /// Its first events.
    pub events: Vec<StoryEvent>,
    /// How many events it has.
    pub event_count: u64,
    /// Its position in the log.
    pub position: Option<PositionToken>,
}

/// An event of a story.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoryEvent {
    /// Its id.
    pub id: Uuid,
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The stream's version after this event.
    pub version: u64,
    /// When it happened in the business.
    pub occurred_at: Timestamp,
}

impl Client {
    /// The conversation with a correlation id.
    ///
    /// # Errors
    /// [`ClientError`]; the code `story_not_found` if nothing has this correlation id.
    pub async fn story(
        &self,
        correlation_id: &str,
        query: &Query,
    ) -> Result<Read<Story>, ClientError> {
        self.question(&format!("stories/{}", segment(correlation_id)), query)
            .await
    }
}
