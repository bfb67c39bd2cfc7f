//! `make faults`: real faults against real processes, and a table of the results.
//!
//! Ends with code 1 if a promise was broken. Deliberately absent: everything but arguments.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::faults::fault::{Fault, Lengths};
use tests::faults::moves::{MovesOptions, measure};
use tests::faults::orders::{OrdersOptions, import};
use tests::faults::overload::{self, OverloadOptions};
use tests::faults::run::{RECOVERY_MAX, RunOptions, Until, run};
use tests::faults::scene::{MachineWishes, Projectors, SceneOptions};
use tokio::signal::unix::{SignalKind, signal};

/// Breaks brokers, nodes and the network between them, under load, and checks every answer.
#[derive(Debug, Parser)]
struct Arguments {
    /// End after this many minutes
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    minutes: f64,
    /// End after this many commands
    #[arg(long, value_name = "N")]
    commands: Option<u64>,
    /// End after this many faults
    #[arg(long, value_name = "N")]
    injections: Option<u64>,
    /// Repeat the choices of another run
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only these faults
    #[arg(long, value_name = "KIND", num_args = 1..)]
    only: Vec<Fault>,
    /// All faults but these
    #[arg(long, value_name = "KIND", num_args = 1..)]
    without: Vec<Fault>,
    /// How many faults may happen at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    at_once: usize,
    /// Seconds of faults before the quiet end of each round
    #[arg(long, value_name = "N", default_value_t = 25)]
    round: u64,
    /// Sometimes break things for longer than the doubt about an append (30 s)
    #[arg(long)]
    thorough: bool,
    /// How many clients send commands at the same time
    #[arg(long, value_name = "N", default_value_t = 24)]
    clients: usize,
    /// At most this many commands per second
    #[arg(long, value_name = "N", default_value_t = 400)]
    rate: u32,
    /// Partitions of the log
    #[arg(long, value_name = "N", default_value_t = 12)]
    partitions: u32,
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// The session timeout of the nodes' group
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    session_timeout_ms: u64,
    /// Instead of faults: stop this many nodes in order and measure how long partitions are unowned
    #[arg(long, value_name = "N", default_value_t = 0)]
    planned: u64,
    /// Instead of faults: kill this many nodes and measure the same
    #[arg(long, value_name = "N", default_value_t = 0)]
    crashes: u64,
    /// Instead of faults: import the orders in this folder while nodes and brokers are killed
    #[arg(long, value_name = "FOLDER")]
    orders: Option<PathBuf>,
    /// How many kills, at random moments of the import; 0 for a quiet import
    #[arg(long, value_name = "N", default_value_t = 30)]
    kills: usize,
    /// Instead of faults: send this many times the rate that the nodes can take
    #[arg(long, value_name = "TIMES")]
    overload: Option<f64>,
    /// What the nodes log, as in RUST_LOG
    #[arg(long, value_name = "FILTER", default_value = "info")]
    node_log: String,
    /// Keep what the run wrote even if nothing was found
    #[arg(long)]
    keep: bool,
    /// The program under test (default: the one next to this program)
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// More arguments for every node
    #[arg(last = true)]
    node_arguments: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let mut stop = signal(SignalKind::terminate()).expect("signals can be waited for");
        // On drop, a run ends every process that it started and unmounts what it mounted.
        tokio::select! {
            code = go(arguments) => code,
            _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
            _ = stop.recv() => ExitCode::FAILURE,
        }
    })
}

async fn go(arguments: Arguments) -> ExitCode {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    println!("--seed {seed} repeats the choices of this run");
    let artefacts = std::env::temp_dir().join(format!("annals-faults-run-{seed}"));
    // Remove what an earlier run with this seed left there.
    let _ = std::fs::remove_dir_all(&artefacts);
    std::fs::create_dir_all(&artefacts).expect("a folder for what the run writes");
    let scene = |projectors| scene_options(&arguments, projectors, &artefacts);
    let (shown, is_clean) = if arguments.planned + arguments.crashes > 0 {
        let options = MovesOptions {
            scene: scene(Projectors::Nowhere),
            seed,
            planned: arguments.planned,
            crashes: arguments.crashes,
        };
        let moves = measure(options).await;
        (moves.to_string(), moves.violations.is_empty())
    } else if let Some(times) = arguments.overload {
        let options = OverloadOptions {
            scene: scene(Projectors::Nowhere),
            times,
            length: Duration::from_secs_f64(arguments.minutes * 60.0 / 4.0),
            clients: arguments.clients,
        };
        let overload = overload::measure(options).await;
        (overload.to_string(), overload.violations.is_empty())
    } else if let Some(folder) = &arguments.orders {
        let options = OrdersOptions {
            scene: scene(Projectors::Everywhere),
            seed,
            folder: folder.clone(),
            kills: arguments.kills,
        };
        let imported = import(options).await;
        (imported.to_string(), imported.violations.is_empty())
    } else {
        let outcome = run(run_options(&arguments, seed, &artefacts)).await;
        (outcome.to_string(), outcome.violations.is_empty())
    };
    println!("{shown}");
    if is_clean && !arguments.keep {
        // Files that stay behind only take room.
        let _ = std::fs::remove_dir_all(&artefacts);
        return ExitCode::SUCCESS;
    }
    let _ = std::fs::write(artefacts.join("table.txt"), shown);
    println!("what the run wrote is in {}", artefacts.display());
    match is_clean {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The scene for runs in which no part of the machine is made small.
fn scene_options(arguments: &Arguments, projectors: Projectors, artefacts: &Path) -> SceneOptions {
    SceneOptions {
        program: arguments.program.clone().unwrap_or_else(beside),
        artefacts: artefacts.to_owned(),
        nodes: arguments.nodes,
        partitions: arguments.partitions,
        session_timeout: Duration::from_millis(arguments.session_timeout_ms),
        projectors,
        machine: MachineWishes::default(),
        log_filter: arguments.node_log.clone(),
        arguments: arguments.node_arguments.clone(),
    }
}

fn run_options(arguments: &Arguments, seed: u64, artefacts: &Path) -> RunOptions {
    let chosen = match arguments.only.is_empty() {
        true => Fault::ALL.to_vec(),
        false => arguments.only.clone(),
    };
    let faults: Vec<Fault> = chosen
        .into_iter()
        .filter(|fault| !arguments.without.contains(fault))
        .collect();
    RunOptions {
        program: arguments.program.clone().unwrap_or_else(beside),
        artefacts: artefacts.to_owned(),
        seed,
        until: Until {
            time: Duration::from_secs_f64(arguments.minutes * 60.0),
            commands: arguments.commands,
            injections: arguments.injections,
        },
        faults,
        at_once: arguments.at_once,
        round: Duration::from_secs(arguments.round),
        lengths: match arguments.thorough {
            true => Lengths::THOROUGH,
            false => Lengths::BRIEF,
        },
        recovery_max: RECOVERY_MAX,
        clients: arguments.clients,
        commands_per_second_max: arguments.rate,
        partitions: arguments.partitions,
        nodes: arguments.nodes,
        session_timeout: Duration::from_millis(arguments.session_timeout_ms),
        log_filter: arguments.node_log.clone(),
        arguments: arguments.node_arguments.clone(),
    }
}

/// The path of the program that cargo built next to this one.
fn beside() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.with_file_name("annals-under-test")
}
