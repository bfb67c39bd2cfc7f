//! The program `annals`: the host with the shop, the shop's own commands, and the tools of those who
//! develop Annals.
//!
//! The one place that names the shop's rules and read models. Invariant: no other program links
//! this crate, so nobody else's program has the shop or these commands. Deliberately absent: what
//! every program can do (`host`).

// `println!` and `eprintln!` panic if they cannot write; `talk!` and `output` do not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod check_history;
mod demo;
mod generate;
mod import_olist;
mod new;
mod simulate;

use domain::{Customer, Order, Payment};
use host::App;
use kernel::registry::Registry;

const ABOUT: &str = "An event-sourced engine: it takes commands, keeps chained events and fills \
                     read models. Begin with: annals demo";

/// The program.
pub fn app() -> App {
    let registry = Registry::new()
        .with::<Customer>()
        .with::<Order>()
        .with::<Payment>();
    host::app("annals")
        .about(ABOUT)
        .registry(registry)
        .projections(projections::all())
        .example("order-1", "ApproveOrder", "{}")
        .command::<demo::Demo>()
        .command::<new::New>()
        .command::<import_olist::Olist>()
        .command::<generate::Generate>()
        .command::<check_history::CheckHistory>()
        .command::<simulate::Simulate>()
}
