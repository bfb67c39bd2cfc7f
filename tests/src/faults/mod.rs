//! Real faults against real processes: three brokers, three nodes and a Postgres. Clients write
//! down each answer, faults of many kinds are injected, and the run is judged at its end.
//!
//! Invariant: a run reports its seed and its faults, and is judged only by the clients' history and
//! the log. Deliberately absent: a running engine in this process.

pub mod fault;
pub mod history;
pub mod judge;
pub mod load;
pub mod moves;
pub mod orders;
pub mod overload;
pub mod rules;
pub mod run;
pub mod scene;
pub mod table;
pub mod unowned;
