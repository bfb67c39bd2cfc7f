//! Which events are wanted.
//!
//! Invariant: the words are those of `annals events` and of the feed. Deliberately absent: times and
//! positions (`manifest`).

use event_log::commit::{Commit, EventPart};
use serde::{Deserialize, Serialize};

/// What can be asked of an event.
pub const FILTER_NAMES: [&str; 7] = [
    "category",
    "type",
    "stream",
    "tenant",
    "actor",
    "correlation",
    "command",
];

/// Which events are wanted. Of each list, one value must fit; an empty list fits every event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Categories of streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub category: Vec<String>,
    /// Types of events.
    #[serde(default, rename = "type", skip_serializing_if = "Vec::is_empty")]
    pub event_type: Vec<String>,
    /// Names of streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stream: Vec<String>,
    /// Tenants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenant: Vec<String>,
    /// Actors: an id, or `kind:id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actor: Vec<String>,
    /// Correlation ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlation: Vec<String>,
    /// Command ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

impl Filter {
    /// Reads conditions such as `category=order`. Conditions on the same name are alternatives.
    ///
    /// # Errors
    /// A message that names the condition that cannot be read.
    pub fn read(conditions: &[String]) -> Result<Self, String> {
        let mut filter = Self::default();
        for condition in conditions {
            let (name, value) = condition.split_once('=').unwrap_or((condition, ""));
            let list = match name {
                "category" => &mut filter.category,
                "type" => &mut filter.event_type,
                "stream" => &mut filter.stream,
                "tenant" => &mut filter.tenant,
                "actor" => &mut filter.actor,
                "correlation" => &mut filter.correlation,
                "command" => &mut filter.command,
                _ => {
                    let names = FILTER_NAMES.join(", ");
                    return Err(format!(
                        "{condition:?} is no condition: write NAME=VALUE, where NAME is one of \
                         {names}"
                    ));
                }
            };
            if value.is_empty() {
                return Err(format!("{condition:?} has no value: write {name}=VALUE"));
            }
            list.push(value.to_owned());
        }
        Ok(filter)
    }

    /// Whether events of a commit may be wanted.
    pub(crate) fn takes_commit(&self, commit: &Commit) -> bool {
        let fits = |list: &[String], value: &str| list.is_empty() || is_among(list, value);
        fits(&self.tenant, commit.tenant.as_str())
            && fits(&self.category, commit.stream.category())
            && fits(&self.stream, commit.stream.as_str())
            && fits(&self.correlation, commit.correlation_id())
            && fits(&self.command, commit.command.id.as_str())
            && (self.actor.is_empty() || self.takes_actor(commit))
    }

    fn takes_actor(&self, commit: &Commit) -> bool {
        commit.actor.as_ref().is_some_and(|actor| {
            let whole = format!("{}:{}", actor.kind.as_str(), actor.id);
            is_among(&self.actor, &actor.id) || is_among(&self.actor, &whole)
        })
    }

    /// Whether an event of a commit that may be wanted is wanted.
    pub(crate) fn takes_event(&self, event: &EventPart) -> bool {
        self.event_type.is_empty() || is_among(&self.event_type, event.type_name.as_str())
    }
}

fn is_among(list: &[String], value: &str) -> bool {
    list.iter().any(|one| one == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_wrong_ones_are_named() {
        let read = |text: &[&str]| {
            let conditions: Vec<String> = text.iter().map(|one| (*one).to_owned()).collect();
            Filter::read(&conditions)
        };
        let filter = read(&["type=A", "type=B=C", "tenant=t"]).unwrap();
        assert_eq!(filter.event_type, ["A", "B=C"]);
        assert_eq!(filter.tenant, ["t"]);
        let error = read(&["kind=x"]).unwrap_err();
        assert!(
            error.contains("\"kind=x\"") && error.contains("correlation"),
            "{error}"
        );
        assert!(read(&["type"]).unwrap_err().contains("type=VALUE"));
    }
}
