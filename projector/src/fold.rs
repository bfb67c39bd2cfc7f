//! Contributions of commits, folded in memory into row changes.
//!
//! Deliberately absent: I/O.

pub(crate) mod batch;
pub(crate) mod changes;
pub(crate) mod parked;
