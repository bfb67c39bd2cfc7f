//! The read side: the projection runtime, the read models, and the door that shows them.
//!
//! Invariant: nothing here changes the log; whatever stands in Postgres can be made again from it.
//! Only `models` names the domain. Deliberately absent: commands.

pub mod door;
mod migrate;
pub mod models;
pub mod runtime;

pub use migrate::{MigrationStatus, migrate, migration_status};
pub use runtime::{
    Place, Projection, Projector, Reading, Rebuilt, RuntimeError, catch_up, list, rebuild,
};
