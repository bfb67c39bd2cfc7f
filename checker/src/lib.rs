//! The checker: compares what clients were told with what the log holds, without the engine.
//!
//! Invariant: nothing here uses a crate of this workspace. The acceptance rule, the hashes and the
//! form of a commit are written from the text of the protocol, so that a mistake of the engine is
//! not repeated here. Deliberately absent: connections to a log or a server; both arrive as lines
//! of JSON.

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
