//! Looking at a whole log: is it complete and unaltered, what is in it, and taking a copy.
//!
//! Invariant: applies the same rule as every reader, to every record, and reads every value.
//! Deliberately absent: mending anything.

mod copy;
mod verify;

pub use copy::{Copied, CopyError, copy};
pub use verify::{Known, Mismatch, PartitionReport, Report, Source, verify};
