//! The program `annals` as people and scripts use it: its texts, its exit codes, its settings, and
//! how it starts, stops and survives kills.
//!
//! Deliberately absent: the answers of the doors, and imports of whole folders; other tests cover
//! them.

mod advised;
mod checked;
mod client;
mod clocks;
mod dumped;
mod fed;
mod folded;
mod generated;
mod imports;
mod limits;
mod misdeclared;
mod observed;
mod paused;
mod postgres;
pub(crate) mod program;
mod project;
mod replayed;
mod runs;
mod tools;
mod traced;
mod waits;
mod walked;
