//! The write side, for any domain: the owners that decide commands and write the log, a node's seat
//! for each partition, and the functions that the command door calls.
//!
//! Invariant: this crate names no aggregate, and writes to the log only under an owner's claim.
//! Deliberately absent: HTTP, and everything that readers of the log need as well (`event-log`).

#![allow(
    missing_docs,
    reason = "only crates of this workspace use these items: a comment that repeats a name is left out"
)]

pub mod clock;
pub mod command;
pub mod frozen;
pub mod owner;
pub mod peers;
pub mod seat;
mod service;
mod walk;

pub use service::{
    Batch, ClusterOptions, Engine, EngineOptions, MEMORY_BYTES, MEMORY_BYTES_MIN, Pending,
    Prepared, QUEUE_MAX, StartError,
};
pub use walk::{Part as WalkPart, Walk};
