//! The domain's rules on what memory holds, and their versions.
//!
//! Deliberately absent: decisions (`decide`).

use std::collections::BTreeMap;
use std::sync::Arc;

use event_log::commit::Commit;
use kernel::ShapeError;
use kernel::registry::{Aggregate, MessageError, Opaque, Registry};

/// The versions of a program's rules, by category.
pub(super) fn rules_of(registry: &Registry) -> BTreeMap<String, u32> {
    let versions = registry.iter();
    let version = |aggregate: &Arc<dyn Aggregate>| {
        (aggregate.category().to_owned(), aggregate.rules_version())
    };
    versions.map(version).collect()
}

/// The state before any event; absent if the rules fail over it.
pub(super) fn initial(aggregate: &dyn Aggregate) -> Option<Opaque> {
    let made = aggregate.initial();
    let category = aggregate.category();
    made.inspect_err(
        |error| tracing::error!(%error, category, "the state before any event could not be made"),
    )
    .ok()
}

/// Why a commit did not change its stream's state.
pub(super) enum Unfolded {
    /// This program is too old for an event.
    Newer(ShapeError),
    /// What the rules say against it.
    Failed(String),
}

impl From<MessageError> for Unfolded {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Shape(shape) if shape.is_newer() => Self::Newer(shape),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Changes a state by the events of a commit from the log. On failure, it may be half changed.
pub(super) fn evolve_all(
    aggregate: &dyn Aggregate,
    state: &mut Opaque,
    commit: &Commit,
) -> Result<(), Unfolded> {
    for event in &commit.events {
        let (name, data) = (&event.type_name, event.data.get());
        let occurred_at = commit.occurred_at(event);
        aggregate.evolve_recorded(state, name, event.schema, data, occurred_at)?;
    }
    Ok(())
}
