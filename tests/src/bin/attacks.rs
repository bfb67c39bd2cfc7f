//! `make attacks`: attacks nodes as hostile clients do, and prints a table of the effects.
//!
//! Ends with code 1 if a promise was broken. Deliberately absent: everything but arguments.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::attacks::measure::{Options, Table, help, measure};
use tests::attacks::{ATTACKS, Attack, find};
use tests::harness::postgres::Postgres;

/// Attacks nodes on this machine, one attack after the other, and reports the effects on other
/// clients.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these attacks
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// How long each attack lasts, in seconds
    #[arg(long, value_name = "N", default_value_t = 12)]
    seconds: u64,
    /// Do not measure what polite clients keep
    #[arg(long)]
    short: bool,
    /// The program under test (default: the one next to this program)
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// The work of a helper process of this program
    #[arg(hide = true)]
    help_with: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        if arguments.help_with.is_empty() {
            return go(arguments).await;
        }
        help(&arguments.help_with).await;
        ExitCode::SUCCESS
    })
}

async fn go(arguments: Arguments) -> ExitCode {
    let own = std::env::current_exe().expect("a running program has a path");
    let beside = own.with_file_name("annals-under-test");
    let options = Options {
        program: arguments.program.unwrap_or(beside),
        attacker: own,
        length: Duration::from_secs(arguments.seconds),
        with_shares: !arguments.short,
    };
    let mut chosen: Vec<&Attack> = ATTACKS.iter().collect();
    if !arguments.only.is_empty() {
        if let Some(name) = arguments.only.iter().find(|name| find(name).is_none()) {
            let names: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
            eprintln!("no attack is named {name}; there are: {}", names.join(", "));
            return ExitCode::FAILURE;
        }
        chosen.retain(|attack| arguments.only.iter().any(|name| name == attack.name));
    }
    let postgres = tokio::task::spawn_blocking(Postgres::start).await;
    let postgres = postgres.expect("a server of our own");
    let mut outcomes = Vec::new();
    for attack in chosen {
        eprintln!("{}: {}", attack.name, attack.what);
        outcomes.push(measure(attack, &postgres, &options).await);
    }
    print!("{}", Table(&outcomes));
    let broken: Vec<String> = outcomes.iter().flat_map(|o| o.violations()).collect();
    for violation in &broken {
        println!("BROKEN: {violation}");
    }
    match broken.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
