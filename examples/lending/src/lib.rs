//! A library that lends books: a whole domain in one small crate, to learn from.
//!
//! Start with `book`: it defines the commands and events of a book, the reasons for refusing a
//! command, and the rules that decide. Nothing in it knows of a log, a database or HTTP, and
//! nothing in the engine knows of books. `readers`, `loans` and `periods` are read models made from
//! the events, and `main` runs all of them with the same code that runs `annals`.

pub mod book;
pub mod loans;
pub mod periods;
pub mod readers;

use std::sync::Arc;

use annals::read_model::{Projection, with_sql};
use annals::registry::Registry;

pub use book::Book;
pub use loans::loans;
pub use periods::LoanPeriods;
pub use readers::readers;

/// The rules of the library.
#[must_use]
pub fn registry() -> Registry {
    Registry::new().with::<Book>()
}

/// The read models of the library. The program adds two that suit every domain: an index of
/// streams, which `annals events` and `annals state` use, and the refusals.
#[must_use]
pub fn projections() -> Vec<Arc<dyn Projection>> {
    vec![
        Arc::new(loans()),
        Arc::new(readers()),
        Arc::new(with_sql(LoanPeriods)),
    ]
}
