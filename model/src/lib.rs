//! The write protocol under a model checker: the real owner and the real follower of the engine, in
//! a world in which everything that may happen happens, in every order, within bounds.
//!
//! Invariant: no I/O, no clock, no chance; the owner, the follower and the rule are those of
//! production. Deliberately absent: large worlds under a seed (the simulator), and Kafka.

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
