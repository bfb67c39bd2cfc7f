//! The commands of the binary, one file each: what they do between arguments and exit code.
//!
//! Deliberately absent: how they are typed (`args`).

mod accepted;
mod check;
mod config;
pub mod dev;
pub mod events;
pub mod export;
pub mod import;
mod import_report;
mod known;
pub mod life;
pub mod log;
mod manual;
mod migrate;
pub mod parked;
pub mod projections;
pub mod raw;
pub mod read;
pub mod replay;
mod request;
pub mod rules;
pub mod schema;
pub mod send;
mod serve;
pub mod story;
pub mod stream;
pub mod verify_cluster;
pub mod what_if;
pub mod why;

use crate::Domain;
use crate::args::Command;
use crate::exit::{Exit, Failure};
use crate::logging::Voice;
use crate::settings::Settings;

/// How much a command logs unless the user asks for more or less.
#[must_use]
pub fn voice(command: &Command) -> Voice {
    match command {
        Command::Serve(_) => Voice::Server,
        // The trial cuts its own connections, and the clients would log that.
        Command::VerifyCluster(_) => Voice::Faults,
        _ => Voice::Quiet,
    }
}

/// Whether the files that a command makes are private to its user. Schemas and manuals are for
/// everyone.
#[must_use]
pub fn keeps_private(command: &Command) -> bool {
    !matches!(command, Command::Schema(_) | Command::Man { .. })
}

/// Runs one command of the program whose command line is `line`.
///
/// # Errors
/// [`Failure`], with what to tell the person.
pub async fn run(
    domain: &Domain,
    settings: Settings,
    line: clap::Command,
    command: Command,
) -> Result<Exit, Failure> {
    match command {
        Command::Dev(_) => dev::run(domain, &settings).await,
        Command::Serve(_) => serve::run(domain, &settings).await,
        Command::Import(import) => import::run(&settings, import).await,
        Command::Send(args) => send::run(&settings, args).await,
        Command::Events(args) => events::events(&settings, &args).await,
        Command::Stream(args) => life::stream(&settings, &args).await,
        Command::State(args) => life::state(&settings, &args).await,
        Command::Diff(args) => life::diff(&settings, &args).await,
        Command::Story(args) => story::run(&settings, &args).await,
        Command::Read(args) => read::run(&settings, &args).await,
        Command::Why(args) => why::run(&settings, &args).await,
        Command::Replay(args) => replay::run(domain, &settings, &args).await,
        Command::Export(args) => export::run(domain, &settings, args).await,
        Command::WhatIf(args) => what_if::run(domain, &settings, &args).await,
        Command::Rules(command) => rules::run(domain, command).await,
        Command::Log(command) => log::run(&domain.registry, &settings, command).await,
        Command::Projections(command) => projections::run(domain, &settings, command).await,
        Command::Parked(command) => parked::run(domain, &settings, command).await,
        Command::Migrate => migrate::run(&settings).await,
        Command::Check(_) => check::run(domain, &settings).await,
        Command::VerifyCluster(args) => verify_cluster::run(&settings, &args).await,
        Command::Config(args) => config::run(&settings, &args),
        Command::Schema(args) => schema::run(domain, &settings, &args),
        Command::ExitCodes => manual::exit_codes(&settings),
        Command::Completions { shell } => manual::completions(line, shell),
        Command::Man { folder } => manual::pages(line, &folder),
    }
}
