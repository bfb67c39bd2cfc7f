//! `annals` for the shop: the one place that names its deciders and its read models.

use std::process::ExitCode;

use domain::{Customer, Order, Payment};
use kernel::registry::Registry;

fn main() -> ExitCode {
    let registry = Registry::new()
        .with::<Customer>()
        .with::<Order>()
        .with::<Payment>();
    cli::run(registry, projections::all())
}
