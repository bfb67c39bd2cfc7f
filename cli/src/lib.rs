//! The one binary `annals`: all roles and all tools.

pub mod client;
pub mod import;
