//! The one binary `annals`: all roles and all tools, for any domain.
//!
//! A program names its deciders and read models and calls [`run`]; `main.rs` does so for the shop,
//! `examples/lending` for a lending library. Invariant: data goes to stdout, messages go to stderr,
//! and the exit code is one of a frozen table. Deliberately absent: any rule and any read model.

// `println!` and `eprintln!` panic if they cannot write; `talk!` and `output` do not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod args;
pub mod command;
pub mod exit;
mod logging;
pub mod node;
pub mod output;
mod private;
pub mod progress;
pub mod settings;
pub mod signals;
mod stderr;
#[cfg(all(feature = "steady-waits", target_os = "linux", target_env = "gnu"))]
pub mod waits;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, FromArgMatches as _};
use kernel::escape;
use kernel::registry::Registry;
use projector::Projection;

use args::Cli;
use exit::{Exit, Failure};
use settings::Settings;

/// Owners make and drop many small values on all threads, at which the system's allocator is slow.
/// A program built on this crate that wants another allocator turns the feature `mimalloc` off.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a program runs: its rules and its read models.
pub struct Domain {
    /// The deciders.
    pub registry: Registry,
    /// The read models: the domain's own, and those that suit every domain.
    pub projections: Vec<Arc<dyn Projection>>,
}

impl Domain {
    /// A domain with its rules and its own read models.
    #[must_use]
    pub fn new(registry: Registry, own: Vec<Arc<dyn Projection>>) -> Self {
        Self {
            registry,
            projections: projector::with_general(own),
        }
    }
}

/// Runs a program as its command line says.
///
/// The whole of `main`: reads the arguments of the process, and returns what `main` is to return.
#[must_use]
pub fn run(registry: Registry, projections: Vec<Arc<dyn Projection>>) -> ExitCode {
    let domain = Domain::new(registry, projections);
    logging::foresee(std::env::args());
    let parsed = command_line(&domain).try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        // Help and version are data, so they go to stdout.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            if logging::is_json() {
                logging::complain(format_args!("{}", error.to_string().trim_end()));
                return Exit::Usage.into();
            }
            error.exit()
        }
    };
    stderr::log_panics();
    let outcome = start(domain, cli);
    // If a signal has just stopped the embedded Postgres, a failure that follows is not reported.
    signals::yield_to_the_end();
    stderr::finish();
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                let message = escape::lines(&failure.message);
                match logging::is_json() {
                    true => logging::complain(format_args!("{message}")),
                    false => logging::complain(format_args!("annals: {message}")),
                }
            }
            failure.exit.into()
        }
    }
}

/// The command line of a program. The help shows `demo`, with a shop's sample data, only if the
/// program is the shop.
#[must_use]
pub fn command_line(domain: &Domain) -> clap::Command {
    let mut command = Cli::command();
    let help = format!("{}\n\n{}", args::EXAMPLES, Exit::help());
    command = command.after_help(help);
    if !command::takes_orders(&domain.registry) {
        command = command.mut_subcommand("demo", |demo| demo.hide(true));
    }
    command
}

/// How long the end waits for threads of libraries when nothing depends on them any more.
const CLIENTS_END_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

fn start(domain: Domain, cli: Cli) -> Result<Exit, Failure> {
    let settings = Settings::load(&cli.flags())?;
    if command::keeps_private(&cli.command) {
        private::by_default();
    }
    logging::start(&settings, cli.global.verbose, command::voice(&cli.command))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Failed, &error).while_trying("start the runtime"))?;
    let outcome = runtime.block_on(command::run(domain, settings, cli.command));
    // Everything that must be awaited has been awaited. What is left are Kafka's clients, which
    // shut themselves down. If the wall clock was set back meanwhile, a client may take as long as
    // it was set back by.
    runtime.shutdown_timeout(CLIENTS_END_WAIT);
    outcome
}
