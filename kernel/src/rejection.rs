//! A refusal by the business.
//!
//! Deliberately absent: technical failures, which are errors, and bugs, which are assertions.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The reason for which a rule refuses a command. It is recorded in the log.
///
/// Its `Display` is the sentence that people read. Neither the sentence nor the facts hold personal
/// data.
pub trait Rejection: std::error::Error + Send + Sync + 'static {
    /// The stable code of the broken rule, frozen on the wire: `[a-z][a-z0-9_]*`.
    fn code(&self) -> &str;

    /// The facts that explain the refusal, as members of one JSON object.
    fn facts(&self) -> Map<String, Value>;
}

/// The reason of a refusal as it stands in the log: a [`Rejection`] without its type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedRejection {
    /// The stable code of the broken rule.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
    /// The facts that explain the refusal.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
}

/// The fields of a serialisable rejection as facts; empty if it does not serialise to an object.
///
/// Meant for enums with `#[serde(untagged)]`.
pub fn facts_of<T: Serialize>(rejection: &T) -> Map<String, Value> {
    match serde_json::to_value(rejection) {
        Ok(Value::Object(facts)) => facts,
        Ok(_) | Err(_) => Map::new(),
    }
}
