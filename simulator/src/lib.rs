//! The engine under a seed: its own state machines, run in a world whose every event comes from one
//! source of chance.
//!
//! Invariant: the same seed gives the same run, event by event. Deliberately absent: I/O, threads
//! and clocks.

pub mod sim;
