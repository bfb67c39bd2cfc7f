//! Log lines and messages on stderr while the program runs.
//!
//! Invariant: stdout carries data and nothing else. Deliberately absent: the texts that a command
//! reports to its user; they stand in the command.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};

use kernel::escape;
use serde_json::Map;
use tracing_subscriber::EnvFilter;

use crate::exit::{Exit, Failure};
use crate::settings::{LogFormat, Settings};
use crate::{program, stderr};

/// The project's own crates, which log more than the libraries.
const OURS: [&str; 12] = [
    "cluster_trial",
    "command_api",
    "console",
    "door",
    "embedded_postgres",
    "engine",
    "event_log",
    "host",
    "kernel",
    "projector",
    "query_api",
    "admin_api",
];

mod json;

/// Whether everything on stderr is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Writes a message to stderr: as plain text, or as a log line if the log is JSON. If nobody reads
/// stderr any more, the program goes on.
pub fn inform(text: fmt::Arguments<'_>) {
    say("INFO", text);
}

/// Like [`inform`], for the message of a failure that ends the program.
pub fn complain(text: fmt::Arguments<'_>) {
    say("ERROR", text);
}

fn say(level: &str, text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let text = program::own(&text);
    let line = if is_json() {
        json::line(level, "host", &text, Map::new())
    } else {
        escape::lines(&text).into_owned()
    };
    stderr::say(format_args!("{line}"));
}

/// Like `eprintln!`; writes a log line if the log is JSON.
#[macro_export]
macro_rules! talk {
    ($($text:tt)*) => {
        $crate::logging::inform(format_args!($($text)*))
    };
}
pub use crate::talk;

/// Finds out from the command line and the environment whether JSON is wanted, before the settings
/// are read: errors in the settings must be reported in JSON, too.
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

/// How much a command logs unless the user asks for more or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// Nothing: for the simulator, whose simulated nodes would write the log lines.
    Silent,
    /// What a human must know: for tools.
    Quiet,
    /// Errors only: for tools that cause faults themselves.
    Faults,
    /// Lifecycle messages, too: for servers.
    Server,
}

/// Starts logging; done once in a process.
///
/// # Errors
/// `Usage` if the filter cannot be parsed.
pub fn start(settings: &Settings, program: &str, verbose: u8, voice: Voice) -> Result<(), Failure> {
    let filter = settings.log_filter.clone();
    let filter = filter.unwrap_or_else(|| filter_of(program, verbose, voice));
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
    // A second start in one process, as in tests, keeps the first logger.
    let _ = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .with_ansi(false)
            .event_format(json::JsonLines)
            .try_init(),
    };
    Ok(())
}

/// The crate of the program itself logs as ours do.
fn filter_of(program: &str, verbose: u8, voice: Voice) -> String {
    let (libraries, ours) = match (verbose, voice) {
        (0, Voice::Silent) => return "off".to_owned(),
        (0, Voice::Quiet) => return "warn".to_owned(),
        (0, Voice::Faults) => return "error".to_owned(),
        (0, Voice::Server) | (1, _) => ("warn", "info"),
        (2, _) => ("info", "debug"),
        (_, _) => ("debug", "trace"),
    };
    let program = program.replace('-', "_");
    let names = OURS.into_iter().chain([program.as_str()]);
    let ours: Vec<String> = names.map(|name| format!("{name}={ours}")).collect();
    format!("{libraries},{}", ours.join(","))
}
