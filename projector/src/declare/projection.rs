//! The rule of a read model: accepted commits in, row changes out.
//!
//! Deliberately absent: I/O; the runtime decides how and where rows are written.

use crate::declare::entry::{Entry, ProjectError};
use crate::declare::history::History;
use crate::declare::own_sql::OwnSql;
use crate::declare::table::Table;
use crate::fold::changes::Changes;

/// A type of event of one aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Takes {
    /// The aggregate's category.
    pub category: &'static str,
    /// The frozen name of the event's type.
    pub event: &'static str,
}

/// What a projection does with a commit that it cannot take up: `project` fails or panics on it, or
/// Postgres refuses the row of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The commit's stream is parked, with everything behind it; other streams go on.
    Park,
    /// The projection stops in the commit's partition.
    Stop,
}

/// A pure rule from accepted commits to row changes. [`Rules`](crate::Rules) is a projection made
/// of one rule for each event.
pub trait Projection: Send + Sync + 'static {
    /// Its name. It is frozen: checkpoints are stored under it.
    fn name(&self) -> &'static str;

    /// The version of its rules and declarations, from 1. Any change to them needs a new version.
    fn version(&self) -> u32;

    /// The tables it writes. Tables with rows that many streams share come last, so that a
    /// transaction locks those rows for the shortest time.
    fn tables(&self) -> &'static [Table];

    /// The events that it takes up; empty if it looks only at commits as a whole.
    fn takes(&self) -> Vec<Takes> {
        Vec::new()
    }

    /// What happens at a commit that it cannot take up.
    fn on_error(&self) -> OnError {
        OnError::Park
    }

    /// How much of its tables' past is kept. A change takes effect with the next rebuild.
    fn history(&self) -> History {
        History::Full
    }

    /// Its own SQL, if it writes its rows with it instead of contributing to them
    /// ([`with_sql`](crate::with_sql)).
    fn own_sql(&self) -> Option<&dyn OwnSql> {
        None
    }

    /// Contributes to rows what one accepted commit (events or refusal) means for them.
    ///
    /// # Errors
    /// [`ProjectError`] if the data of an accepted event cannot be read. The commit's stream
    /// is then parked ([`OnError`]); nothing is skipped silently.
    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError>;

    /// Whether a commit contributes exactly what its events contribute one after the other. Then it
    /// can be told which event gave a row its values.
    fn is_by_event(&self) -> bool {
        false
    }

    /// Contributes what one event of an accepted commit means, by its index, if
    /// [`Self::is_by_event`].
    ///
    /// # Errors
    /// As [`Self::project`].
    fn project_event(
        &self,
        entry: &Entry<'_>,
        _index: usize,
        changes: &mut Changes,
    ) -> Result<(), ProjectError> {
        self.project(entry, changes)
    }
}
