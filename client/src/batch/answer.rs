//! One line of the door's answer, as far as the client must understand it.
//!
//! Deliberately absent: which line it answers.

use std::time::Duration;

use position::PositionToken;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The door's answer to a line that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What became of it.
    pub outcome: Outcome,
    /// The position of its commit in the log, if it made one.
    pub position: Option<PositionToken>,
    /// Whether this id was answered before, and this is that answer.
    pub repeated: bool,
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was accepted and left events.
    Accepted,
    /// It was accepted and there was nothing left to do.
    NothingToDo,
    /// It was refused: by a rule, or because it is not a valid command.
    Refused {
        /// The stable code.
        code: String,
    },
    /// The server failed.
    Failed {
        /// The stable code.
        code: String,
    },
}

/// A line of the answer.
pub(super) enum Answer {
    /// The line is done.
    Done(Said),
    /// The line was not attempted, or its outcome is not known yet.
    TurnedAway {
        code: String,
        after: Option<Duration>,
    },
}

#[derive(Deserialize)]
struct Line {
    status: u16,
    code: Option<String>,
    events: Option<Vec<IgnoredAny>>,
    position: Option<String>,
    retry_after_ms: Option<u64>,
    #[serde(default)]
    repeated: bool,
}

/// Whether a status says that the same may be sent again.
pub(crate) fn is_worth_another_try(status: u16) -> bool {
    matches!(status, 408 | 429 | 502 | 503 | 504)
}

impl Answer {
    /// Reads a line.
    ///
    /// # Errors
    /// If the line is not a JSON object with a status.
    pub(super) fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        let line: Line = serde_json::from_slice(line)?;
        let code = line.code.unwrap_or_else(|| format!("http_{}", line.status));
        let outcome = match line.status {
            200..300 if line.events.is_some_and(|events| !events.is_empty()) => Outcome::Accepted,
            200..300 => Outcome::NothingToDo,
            status if is_worth_another_try(status) => {
                return Ok(Self::TurnedAway {
                    code,
                    after: line.retry_after_ms.map(Duration::from_millis),
                });
            }
            500.. => Outcome::Failed { code },
            _ => Outcome::Refused { code },
        };
        Ok(Self::Done(Said {
            outcome,
            position: line.position.and_then(|text| text.parse().ok()),
            repeated: line.repeated,
        }))
    }
}
