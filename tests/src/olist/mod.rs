//! Orders in the form of the public Olist data: made ones, and what must become of any.
//!
//! Deliberately absent: rows of the real data, which stay where the user keeps them.

mod files;
mod generate;
pub mod oracle;
mod random;
#[cfg(test)]
mod sample_tests;
mod shapes;
mod spoil;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

pub use files::{DataSet, FILE_NAMES};

/// How dirty a data set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dirt {
    /// As dirty as the public data: every row can be read.
    Real,
    /// And, in orders of their own, each kind of row that cannot be read or that business refuses
    /// though no real one is known.
    Unreadable,
}

/// Makes a data set: `orders` orders, and those that `dirt` adds.
#[must_use]
pub fn data_set(seed: u64, orders: usize, dirt: Dirt) -> DataSet {
    let mut generator = generate::real(seed, orders);
    if dirt == Dirt::Unreadable {
        spoil::spoil(&mut generator);
    }
    generator.finish()
}

/// Writes a data set as dirty as the public data into `folder`.
///
/// # Errors
/// What the system says.
pub fn generate(seed: u64, orders: usize, folder: &Path) -> io::Result<()> {
    data_set(seed, orders, Dirt::Real).write_to(folder)
}

/// The seed of the sample that the binary carries for `annals demo`.
pub const SAMPLE_SEED: u64 = 1_851;
/// How many orders the sample has.
pub const SAMPLE_ORDERS: usize = 60;
