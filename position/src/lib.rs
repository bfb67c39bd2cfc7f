//! How places in a log are named: numbers and identities, and tokens for a state of a log.
//!
//! Deliberately absent: I/O, and what stands at a place.

mod bookmark;
mod form;
mod ids;
mod token;

pub use bookmark::{Bookmark, BookmarkError, Mark, ShortHash};
pub use ids::{ChainHash, LogId, Offset, Partition, Position, RecordHash, Term, WriterId};
pub use token::{PositionToken, TokenError};
