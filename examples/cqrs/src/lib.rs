//! Aggregates that were written for the crate `cqrs-es`, on Annals.
//!
//! `locker` is written for version 0.5 and runs as it is; `meter` is written for version 0.4 and runs
//! through the adapter in `raised`. Neither knows of Annals. What each needs beside stands at the end
//! of its file. Deliberately absent: the stores, queries and upcasters of that crate.

pub mod locker;
pub mod meter;
pub mod raised;

use annals::cqrs::Adopted;
use annals::registry::Registry;

/// The program.
pub fn app() -> annals::App {
    let registry = Registry::new()
        .with::<Adopted<locker::Lockers>>()
        .with::<Adopted<meter::Meters>>();
    annals::app("cqrs")
        .about("Aggregates that were written for cqrs-es.")
        .registry(registry)
        .example("locker-1", "Rent", r#"{"by":"ana"}"#)
}
