//! Contributions of commits, folded in memory into row changes.
//!
//! Deliberately absent: I/O.

pub(crate) mod batch;
pub(crate) mod cell;
pub(crate) mod changes;
pub(crate) mod contributions;
pub(crate) mod history;
pub(crate) mod ownership;
pub(crate) mod parked;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod stored;
