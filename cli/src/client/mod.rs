//! The sending client of the batch door.

mod line;

pub use line::CommandLine;
