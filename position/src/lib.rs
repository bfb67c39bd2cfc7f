//! What a place in a log is called: numbers and identities, and tokens that name a moment of it.
//!
//! Deliberately absent: I/O, and what stands at a place.

mod ids;
mod token;

pub use ids::{ChainHash, LogId, Offset, Partition, Position, RecordHash, Term, WriterId};
pub use token::{PositionToken, TokenError};
