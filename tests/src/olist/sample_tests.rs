//! The generator makes what it promises, and it made the committed sample.

use std::collections::HashSet;

use std::path::Path;

use super::{Dirt, SAMPLE_ORDERS, SAMPLE_SEED, data_set, shapes};

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../olist/sample");
    for (name, content) in data_set(SAMPLE_SEED, SAMPLE_ORDERS, Dirt::Real).files() {
        let committed = std::fs::read(folder.join(name)).unwrap();
        assert!(
            committed == content,
            "{name} differs: cargo run -p tests --example generate_olist -- olist/sample"
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
