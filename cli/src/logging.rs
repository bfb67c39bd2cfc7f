//! What the program says on stderr while it runs.
//!
//! Invariant: stdout carries data and nothing else. Deliberately absent: what a command reports to
//! the person who typed it; that is its own talk.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::exit::{Exit, Failure};
use crate::settings::{LogFormat, Settings};
use crate::stderr;

/// Our own crates, which say more than the libraries.
const OURS: [&str; 6] = [
    "cli",
    "engine",
    "projections",
    "command_api",
    "door",
    "kernel",
];

/// How much is said where nobody asks for more or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// Nothing: where what is logged is a part of what is played.
    Silent,
    /// What a human must know: for tools.
    Quiet,
    /// Only what is not meant to happen: for tools that make faults themselves.
    Faults,
    /// What happens in the life of the process: for servers.
    Server,
}

/// Starts logging; done once in a process.
///
/// # Errors
/// `Usage` where the filter cannot be understood.
pub fn start(settings: &Settings, verbose: u8, voice: Voice) -> Result<(), Failure> {
    let filter = settings.log_filter.clone();
    let filter = filter.unwrap_or_else(|| filter_of(verbose, voice));
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        let source = settings.source("log_filter");
        Failure::of(Exit::Usage, &error).while_trying(&format!("read the log filter ({source})"))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr::log())
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    // A second start in one process, as in tests, keeps the first.
    let _ = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

fn filter_of(verbose: u8, voice: Voice) -> String {
    let (libraries, ours) = match (verbose, voice) {
        (0, Voice::Silent) => return "off".to_owned(),
        (0, Voice::Quiet) => return "warn".to_owned(),
        (0, Voice::Faults) => return "error".to_owned(),
        (0, Voice::Server) | (1, _) => ("warn", "info"),
        (2, _) => ("info", "debug"),
        (_, _) => ("debug", "trace"),
    };
    let ours = OURS.map(|name| format!("{name}={ours}"));
    format!("{libraries},{}", ours.join(","))
}
