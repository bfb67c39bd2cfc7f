//! The program `annals` as people and scripts meet it: its texts, its exit codes, its settings, and
//! how it starts, stops and survives.
//!
//! Deliberately absent: what the doors answer, and imports of whole folders; other tests ask that.

mod advised;
mod checked;
mod client;
mod clocks;
mod imports;
mod limits;
mod observed;
mod paused;
mod postgres;
mod program;
mod runs;
mod tools;
mod waits;
