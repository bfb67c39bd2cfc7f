//! Orders in the form of the public Olist data: made ones, and what must become of any.
//!
//! Deliberately absent: rows of the real data, which stay where the user keeps them.

mod files;
mod generate;
mod random;
mod shapes;
mod spoil;

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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_and_another_seed_others() {
        for dirt in [Dirt::Real, Dirt::Unreadable] {
            let files = data_set(7, 50, dirt).files();
            assert_eq!(files, data_set(7, 50, dirt).files());
            assert_ne!(files, data_set(8, 50, dirt).files());
        }
    }

    #[test]
    fn the_committed_sample_is_what_the_generator_makes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/sample");
        for (name, content) in data_set(SAMPLE_SEED, SAMPLE_ORDERS, Dirt::Real).files() {
            let committed = std::fs::read(folder.join(name)).unwrap();
            assert!(
                committed == content,
                "{name} differs: cargo run -p tests --example generate_olist -- cli/sample"
            );
        }
    }

    #[test]
    fn the_sample_holds_every_fate_of_an_order() {
        let data = data_set(SAMPLE_SEED, SAMPLE_ORDERS, Dirt::Real);
        let fates: HashSet<_> = data
            .orders
            .iter()
            .map(|row| {
                (
                    &row[2],
                    row[4].is_empty(),
                    row[5].is_empty(),
                    row[6].is_empty(),
                )
            })
            .collect();
        let expected: HashSet<_> = shapes::SHAPES
            .iter()
            .map(|shape| {
                (
                    shape.status,
                    shape.is_approved,
                    shape.is_shipped,
                    shape.is_delivered,
                )
            })
            .collect();
        assert_eq!(fates.len(), expected.len());
    }
}
