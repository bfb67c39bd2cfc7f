//! Given, then: tests of read models as sentences (feature `testing`).
//!
//! Deliberately absent: a log and, but for [`Tables`], Postgres.

mod tables;

pub use tables::Tables;
