//! What made a row of a read model.
//!
//! Deliberately absent: the row itself (`query`).

use kernel::{Actor, Timestamp};
use position::PositionToken;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::query::{Query, Read};
use crate::wire::segment;
use crate::{Client, ClientError};

/// One page of the contributions that made a row, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Why {
    /// The read model.
    pub model: String,
    /// The key of the row, its columns joined by commas.
    pub key: String,
    /// The column that was asked for.
    pub column: Option<String>,
    /// What named the commits: `history` (the versions of the row) or `log` (a search).
    pub source: String,
    /// The contributions.
    pub contributions: Vec<Contribution>,
    /// Whether the row before the page, with what its commits contribute, is the row that is stored
    /// behind it; absent if that row is not kept.
    pub adds_up: Option<bool>,
    /// Where it is not.
    pub differences: Vec<WhyDifference>,
    /// Parked streams of the tenant, at most some: what they contribute is not in the rows.
    pub left_out: Vec<LeftOutStream>,
    /// Where the next page begins; absent after the last page.
    pub next: Option<String>,
    /// The position at which it was read.
    pub position: Option<PositionToken>,
}

/// What one event gave a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contribution {
    /// The commit's id.
    pub commit: Uuid,
    /// The stream.
    pub stream: String,
    /// The stream's version with the event.
    pub version: u64,
    /// The event's id; absent if the read model is made of commits as a whole.
    pub event: Option<Uuid>,
    /// The event's type.
    pub event_type: Option<String>,
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
    /// The partition of the log.
    pub partition: u32,
    /// The log's number of the record.
    pub offset: u64,
    /// The position of its commit.
    pub position: Option<PositionToken>,
    /// The table of the row: that of the read model, or one that its view joins.
    pub table: String,
    /// The key of the row in that table, its columns joined by commas.
    pub key: String,
    /// What it did to the row: `began`, `changed`, `replaced` or `removed`.
    pub effect: String,
    /// What it gave to columns.
    pub cells: Vec<ContributedCell>,
}

/// What was given to one column.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContributedCell {
    /// The column.
    pub column: String,
    /// How contributions become its value: `set`, `add`, `min`, `max` or `latest`.
    pub rule: String,
    /// What was given; null if the column was emptied.
    pub given: Box<RawValue>,
    /// What the column holds with it.
    pub value: Box<RawValue>,
}

/// A place where contributions do not add up to the stored row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhyDifference {
    /// The table.
    pub table: String,
    /// The column; absent if only one of the two rows is there.
    pub column: Option<String>,
    /// What is stored.
    pub stored: Box<RawValue>,
    /// What the contributions give.
    pub contributed: Box<RawValue>,
}

/// A parked stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftOutStream {
    /// The stream.
    pub stream: String,
    /// Its partition.
    pub partition: u32,
    /// The position of the commit that could not be taken up.
    pub position: u64,
}

impl Client {
    /// The contributions that made a row, or one column of it: those of at most `limit` commits, from
    /// `after` on, the `next` of the page before.
    ///
    /// # Errors
    /// [`ClientError`]; the code `row_not_found` if nothing ever contributed to the row.
    pub async fn why(
        &self,
        model: &str,
        key: &str,
        column: Option<&str>,
        after: Option<&str>,
        limit: u32,
        query: &Query,
    ) -> Result<Read<Why>, ClientError> {
        let mut path = format!("read/{}/{}/why?limit={limit}", segment(model), segment(key));
        for (name, value) in [("column", column), ("after", after)] {
            if let Some(value) = value {
                path = format!("{path}&{name}={}", segment(value));
            }
        }
        self.question(&path, query).await
    }
}
