//! The tasks that follow the log and keep the rows current, and what they report.
//!
//! Deliberately absent: SQL on rows (`store`).

pub(crate) mod conduct;
pub(crate) mod filling;
pub(crate) mod indexing;
pub(crate) mod lane;
pub(crate) mod measure;
pub(crate) mod next;
pub(crate) mod plan;
pub(crate) mod projector;
pub(crate) mod reached;
pub(crate) mod rebuild;
pub(crate) mod refused;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod retry;
pub(crate) mod sample;
pub(crate) mod sampler;
pub(crate) mod share;
pub(crate) mod status;
pub(crate) mod supervisor;
pub(crate) mod supposed;
pub(crate) mod troubles;
pub(crate) mod upgrade;
pub(crate) mod uptake;
pub(crate) mod verifying;
pub(crate) mod versions;
pub(crate) mod waiting;
pub(crate) mod why;
pub(crate) mod writing;
