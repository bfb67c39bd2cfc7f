//! A library that lends books: a whole domain in one small crate, to learn from.
//!
//! Start with `book`: it says what may be asked of a book, what may have happened to it, why a
//! request is refused, and the rules that choose between the two. Nothing in it knows of a log, a
//! database or HTTP, and nothing in the engine knows of books. `readers` is a read model made from
//! what happened, and `main` runs both with the same code that runs `annals`.

pub mod book;
pub mod readers;

use std::sync::Arc;

use kernel::registry::Registry;
use projector::Projection;

pub use book::Book;
pub use readers::readers;

/// The rules of the library.
#[must_use]
pub fn registry() -> Registry {
    Registry::new().with::<Book>()
}

/// What is shown of what happened. The program adds the read models that suit every domain: an index of
/// streams, which `annals events` and `annals state` read with, and the refusals.
#[must_use]
pub fn projections() -> Vec<Arc<dyn Projection>> {
    vec![Arc::new(readers())]
}
