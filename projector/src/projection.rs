//! The rule of a read model: accepted commits in, row changes out.
//!
//! Deliberately absent: I/O; how and where rows are written is the runtime's business.

use super::changes::Changes;
use super::entry::{Entry, ProjectError};
use super::table::Table;

/// A type of event of one aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Takes {
    /// The aggregate's category.
    pub category: &'static str,
    /// The frozen name of the event's type.
    pub event: &'static str,
}

/// A pure rule from accepted commits to row changes; [`Rules`](super::Rules) is one made of a rule for
/// each event.
pub trait Projection: Send + Sync + 'static {
    /// Its name, frozen: checkpoints are kept under it.
    fn name(&self) -> &'static str;

    /// The number of its rule and declarations, from 1; whatever changes in either is a new version.
    fn version(&self) -> u32;

    /// The tables it writes. Those with rows that many streams share come last, so that a
    /// transaction holds such rows for the shortest time.
    fn tables(&self) -> &'static [Table];

    /// The events that it takes up; none where it looks at commits alone.
    fn takes(&self) -> Vec<Takes> {
        Vec::new()
    }

    /// Contributes to rows what one accepted commit (events or refusal) means for them.
    ///
    /// # Errors
    /// [`ProjectError`] where the data of an accepted event cannot be read: the projection stops
    /// there, and nothing is skipped in silence.
    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError>;
}
