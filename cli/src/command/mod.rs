//! The commands of the binary, one file each: what they do between arguments and exit code.
//!
//! Deliberately absent: how they are typed (`args`).

mod accepted;
mod check;
pub mod check_history;
mod config;
mod demo;
mod dev;
mod import;
mod import_report;
mod known;
pub mod log;
mod manual;
mod migrate;
pub mod projections;
mod raw;
mod request;
pub mod schema;
pub mod send;
mod serve;
pub mod simulate;
pub mod stream;
pub mod verify_cluster;

use kernel::registry::Registry;

use crate::Domain;
use crate::args::Command;
use crate::exit::{Exit, Failure};
use crate::logging::Voice;
use crate::settings::Settings;

/// Whether the domain is the shop, for which the sample data and the Olist import are made.
#[must_use]
pub fn takes_orders(registry: &Registry) -> bool {
    let categories = ["customer", "order", "payment"];
    categories
        .iter()
        .all(|category| registry.get(category).is_some())
}

/// The failure of a command that needs the shop.
pub(crate) fn no_shop() -> Failure {
    let message = "this program runs another domain, which has no aggregate for orders";
    Failure::new(Exit::Usage, message)
}

/// How much a command logs unless the user asks for more or less.
#[must_use]
pub fn voice(command: &Command) -> Voice {
    match command {
        Command::Serve(_) => Voice::Server,
        // The trial cuts its own connections, and the clients would log that.
        Command::VerifyCluster(_) => Voice::Faults,
        Command::Simulate(_) => Voice::Silent,
        _ => Voice::Quiet,
    }
}

/// Whether the files that a command makes are private to its user. Schemas and manuals are for
/// everyone.
#[must_use]
pub fn keeps_private(command: &Command) -> bool {
    !matches!(command, Command::Schema(_) | Command::Man { .. })
}

/// Runs one command.
///
/// # Errors
/// [`Failure`], with what to tell the person.
pub async fn run(domain: Domain, settings: Settings, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Dev(_) => dev::run(&domain, &settings).await,
        Command::Demo(args) => demo::run(&domain, settings, args.once).await,
        Command::Serve(_) => serve::run(&domain, &settings).await,
        Command::Import(import) => import::run(&domain, &settings, import).await,
        Command::Send(args) => send::run(&settings, args).await,
        Command::Events(args) => stream::events(&settings, &args).await,
        Command::State(args) => stream::state(&settings, &args).await,
        Command::Log(command) => log::run(&domain.registry, &settings, command).await,
        Command::Projections(command) => projections::run(&domain, &settings, command).await,
        Command::Migrate => migrate::run(&settings).await,
        Command::Check(_) => check::run(&domain, &settings).await,
        Command::VerifyCluster(args) => verify_cluster::run(&settings, &args).await,
        Command::CheckHistory(args) => check_history::run(&settings, &args).await,
        Command::Simulate(args) => simulate::run(&settings, &args),
        Command::Config(args) => config::run(&settings, &args),
        Command::Schema(args) => schema::run(&domain, &args),
        Command::ExitCodes => manual::exit_codes(&settings),
        Command::Completions { shell } => manual::completions(&domain, shell),
        Command::Man { folder } => manual::pages(&domain, &folder),
    }
}
