//! A library that lends books: a whole domain in one small crate, to learn from.
//!
//! Start with `book`: it says what may be asked of a book, what may have happened to it, why a
//! request is refused, and the rules that choose between the two. Nothing in it knows of a log, a
//! database or HTTP, and nothing in the engine knows of books.

pub mod book;

pub use book::Book;
