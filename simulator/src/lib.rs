//! The engine in a simulation with a seed: its own state machines run in a world in which every
//! event comes from one source of randomness.
//!
//! Invariant: the same seed gives the same run, event by event. Deliberately absent: I/O, threads
//! and clocks.

pub mod sim;
