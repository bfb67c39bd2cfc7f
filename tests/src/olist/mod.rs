//! Invented orders in the form of the public Olist data, and what an import of any such orders must
//! give.
//!
//! Deliberately absent: rows of the real data; they stay with the user.

mod files;
mod generate;
pub mod oracle;
#[cfg(test)]
mod sample_tests;
mod shapes;
mod spoil;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

pub use files::{DataSet, FILE_NAMES};

/// What dirt a data set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dirt {
    /// The dirt of the public data; every row can be read.
    Real,
    /// In addition, in orders of their own, every kind of row that cannot be read or that the
    /// business refuses, although the public data has no such row.
    Unreadable,
}

/// Makes a data set: `orders` orders, and further ones if `dirt` asks for them.
#[must_use]
pub fn data_set(seed: u64, orders: usize, dirt: Dirt) -> DataSet {
    let mut generator = generate::real(seed, orders);
    if dirt == Dirt::Unreadable {
        spoil::spoil(&mut generator);
    }
    generator.finish()
}

/// Writes a data set with the dirt of the public data into `folder`.
///
/// # Errors
/// Any error of the file system.
pub fn generate(seed: u64, orders: usize, folder: &Path) -> io::Result<()> {
    data_set(seed, orders, Dirt::Real).write_to(folder)
}

/// The seed of the sample that is built into the program for `annals demo`.
pub const SAMPLE_SEED: u64 = 1_851;
/// How many orders the sample has.
pub const SAMPLE_ORDERS: usize = 60;
