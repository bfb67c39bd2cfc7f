//! The engine, whatever the domain: the log and who counts in it, the owners that write it, the
//! subscriptions that follow it, its history and its audit.
//!
//! Invariant: names no aggregate. Deliberately absent: HTTP, and any read model.

pub mod audit;
pub mod chain;
pub mod checkpoint;
pub mod claim;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod commit;
pub mod create;
pub mod damage;
pub mod engine;
pub mod frozen;
pub mod keyed;
pub mod known_bad;
pub mod log;
pub mod owner;
pub mod record;
pub mod seat;
pub mod subscription;
pub mod verdict;
