//! What the program says on stderr while it runs.
//!
//! Invariant: stdout carries data and nothing else. Deliberately absent: what a command reports to
//! the person who typed it; that is its own talk.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};

use kernel::escape;
use serde_json::Map;
use tracing_subscriber::EnvFilter;

use crate::exit::{Exit, Failure};
use crate::settings::{LogFormat, Settings};
use crate::stderr;

/// Our own crates, which say more than the libraries.
const OURS: [&str; 10] = [
    "cli",
    "cluster_trial",
    "command_api",
    "door",
    "embedded_postgres",
    "engine",
    "event_log",
    "kernel",
    "projector",
    "query_api",
];

mod json;

/// Whether everything on stderr is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether everything on stderr is to be JSON.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Writes a line of talk on stderr: as it is, or as a line of the log where that is JSON. A reader that
/// is gone is no reason to end.
pub(crate) fn inform(text: fmt::Arguments<'_>) {
    say("INFO", text);
}

/// The same for what ends the program.
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    say("ERROR", text);
}

fn say(level: &str, text: fmt::Arguments<'_>) {
    let line = if is_json() {
        json::line(level, "cli", &text.to_string(), Map::new())
    } else {
        escape::lines(&text.to_string()).into_owned()
    };
    stderr::say(format_args!("{line}"));
}

/// `eprintln!` for people, or a line of the log for programs.
macro_rules! talk {
    ($($text:tt)*) => {
        $crate::logging::inform(format_args!($($text)*))
    };
}
pub(crate) use talk;

/// Finds out from the command line and the environment whether JSON is asked for, before the settings
/// can be read: what is wrong with them is said in JSON, too.
pub(crate) fn foresee(mut arguments: impl Iterator<Item = String>) {
    let variable = std::env::var("ANNALS_LOG_FORMAT").ok();
    let mut flag = None;
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--log-format") {
            Some("") => flag = arguments.next(),
            Some(rest) => flag = rest.strip_prefix('=').map(str::to_owned).or(flag),
            None => {}
        }
    }
    IS_JSON.store(
        flag.or(variable).as_deref() == Some("json"),
        Ordering::Relaxed,
    );
}

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
    let is_json = settings.log_format == LogFormat::Json;
    IS_JSON.store(is_json, Ordering::Relaxed);
    // A second start in one process, as in tests, keeps the first.
    let _ = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .with_ansi(false)
            .event_format(json::JsonLines)
            .try_init(),
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
