//! The rule of a read model: accepted commits in, row changes out.
//!
//! Deliberately absent: I/O; how and where rows are written is the runtime's business.

use super::changes::Changes;
use super::entry::{Entry, ProjectError};
use super::table::{Model, Table};

/// A pure rule from accepted commits to row changes. Any domain can bring its own.
pub trait Projection: Send + Sync + 'static {
    /// Its name, frozen: checkpoints are kept under it.
    fn name(&self) -> &'static str;

    /// The number of its rule and declarations, from 1; whatever changes in either is a new version.
    fn version(&self) -> u32;

    /// The tables it writes. Those with rows that many streams share come last, so that a
    /// transaction holds such rows for the shortest time.
    fn tables(&self) -> &'static [Table];

    /// The views that show them.
    fn models(&self) -> &'static [Model];

    /// Contributes to rows what one accepted commit (events or refusal) means for them.
    ///
    /// # Errors
    /// [`ProjectError`] where the data of an accepted event cannot be read: the projection stops
    /// there, and nothing is skipped in silence.
    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError>;
}
