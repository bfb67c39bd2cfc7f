//! Bringing history in: from files to commands.

pub mod olist;
pub mod report;
