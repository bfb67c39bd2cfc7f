//! The simulator is held against itself, and the engine against the simulator.

mod runs;
