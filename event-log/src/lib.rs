//! The log as every reader knows it: records and their hashes, the rule that says which of them
//! count, commits, checkpoints, the log on Kafka and on SQLite, and subscriptions that follow it.
//!
//! Invariant: all readers use the same rule ([`chain`]) and the same verdict on values
//! ([`verdict`]). Deliberately absent: deciding what is written (`engine`), any domain, HTTP.

pub mod accepted;
pub mod bookmark;
pub mod chain;
pub mod checkpoint;
pub mod claim;
pub mod commit;
pub mod copy;
pub mod create;
pub mod damage;
pub mod directory;
pub mod keyed;
pub mod known_bad;
pub mod log;
pub mod membership;
pub mod reading;
pub mod record;
pub mod subscription;
pub mod verdict;
pub mod verify;
