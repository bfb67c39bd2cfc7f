//! The one binary `annals`: all roles and all tools.

pub mod client;
pub mod embedded_postgres;
pub mod import;
