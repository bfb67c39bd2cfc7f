//! The checker: holds what clients were told against what the log says, apart from the engine.
//!
//! Invariant: nothing here uses a crate of ours. The acceptance rule, the hashes and the form of a
//! commit are written from the protocol's text, so that a mistake of the engine is not repeated
//! here. Deliberately absent: talking to a log or a server; both come as lines of JSON.

mod book;
mod canonical;
pub mod check;
mod compare;
pub mod dump;
mod fold;
pub mod history;
mod lines;
mod order;
pub mod report;
pub mod rule;
pub mod rules;
mod value;

pub use check::{Checker, Loss, Options, Scope};
pub use lines::InputError;
pub use report::{Kind, Report, Violation};
