//! Accounts with money in them: a whole domain, to begin with.
//!
//! `account` has the rules: commands, events, reasons for a refusal, and what decides. `balances` is
//! a read model made of the events. Nothing in either knows of a log, a database or HTTP.

pub mod account;
pub mod balances;

use std::sync::Arc;

use annals::registry::Registry;

pub use account::Account;

/// The program: its rules and its read models.
pub fn app() -> annals::App {
    annals::app(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("Accounts: opened, filled, emptied and closed.")
        .registry(Registry::new().with::<Account>())
        .projections(vec![Arc::new(balances::rules())])
}
