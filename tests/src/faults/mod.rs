//! Real faults: three brokers, three nodes and a Postgres, all of them processes; clients that write
//! down what they were told; faults of many kinds; and a judgement in the end.
//!
//! Invariant: a run says what it did (its seed, its faults) and judges only by the clients' history
//! and the log. Deliberately absent: the engine; nothing here links against a running one.

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
