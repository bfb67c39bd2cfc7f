//! The write protocol under a model checker: the engine's real owner and real follower in a world
//! in which all possible events happen, in every order, within bounds.
//!
//! Invariant: no I/O, no clock, no randomness; the owner, the follower and the acceptance rule are
//! those of production. Deliberately absent: large worlds under a seed (the simulator), and Kafka.

pub mod check;
pub mod config;
pub mod invariant;
pub mod ledger;
pub mod log;
mod names;
pub mod node;
pub mod reading;
pub mod reference;
pub mod store;
pub mod world;

pub use check::Writing;
pub use config::{Config, Producer, Reads};
