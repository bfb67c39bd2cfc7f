//! The write side, whatever the domain: the owners that decide commands and write the log, a node's
//! seat in each partition, and what the command door calls.
//!
//! Invariant: names no aggregate, and writes only through an owner's claim. Deliberately absent: HTTP,
//! and whatever a reader of the log needs, too (`event-log`).

pub mod clock;
pub mod command;
pub mod frozen;
pub mod owner;
pub mod peers;
pub mod seat;
mod service;

pub use service::{
    Batch, ClusterOptions, Engine, EngineOptions, MEMORY_BYTES, MEMORY_BYTES_MIN, Pending,
    Prepared, QUEUE_MAX, StartError,
};
