//! What both HTTP doors share: problem documents, extractors that refuse with problems, header
//! parsing, correlation, entity tags and gzip, health and the first page, the server with its limits,
//! and the assembly of the OpenAPI document.
//!
//! A door builds a plain `Router`. The serving program merges all routers, passes the result
//! through [`finish()`] once, at the end, and hands it to [`serve()`].
//!
//! Invariant: after [`finish()`] every response with an error status is a problem document (RFC
//! 9457) unless a route marked it as a [`Page`] for people, and every response has a correlation id.
//! Deliberately absent: routes of either door, the engine, and any aggregate.

mod access;
pub mod code;
pub mod extract;
mod finish;
mod gzip;
pub mod header;
pub mod health;
pub mod memory;
pub mod openapi;
mod problem;
mod program;
pub mod root;
mod serve;
pub mod tag;

pub use code::Code;
pub use extract::{JsonText, NoQuery, Path, Query};
pub use finish::{Correlation, Origin, Page, finish};
pub use header::Deadline;
pub use memory::{Charge, Held, Owed};
pub use problem::{PROBLEM_MEDIA_TYPE, Problem};
pub use program::Program;
pub use serve::{Limits, RESERVE_CONNECTIONS, Server, TooSlow, serve};

/// The most bytes of a request body, and of one line of a batch.
pub const BODY_SIZE_MAX: usize = 262_144;
