//! Libraries that people use today to append events to Postgres, each under the same load: clients
//! that wait for their answer, and commands that each begin a stream of their own. One run measures
//! one peer.

mod cqrs_es_peer;
mod disintegrate_peer;
mod esrs_peer;
mod load;
mod order;
mod raw;

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use load::Load;

/// Measures one peer on an empty database.
#[derive(Parser)]
pub struct Arguments {
    /// What is measured
    #[arg(long, value_enum)]
    peer: Peer,
    /// Where Postgres is, with an empty database
    #[arg(long)]
    url: String,
    /// How many clients wait for answers at the same time
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Seconds before the measurement begins
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    warm_up: Duration,
    /// Seconds that are measured
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Duration,
    /// The value of `synchronous_commit` on every connection
    #[arg(long, value_enum)]
    synchronous_commit: Switch,
}

/// The peers.
#[derive(Clone, Copy, ValueEnum)]
enum Peer {
    /// A prepared INSERT
    Raw,
    /// cqrs-es with postgres-es
    CqrsEs,
    /// esrs
    Esrs,
    /// disintegrate with disintegrate-postgres
    Disintegrate,
}

/// A setting of Postgres that is on or off.
#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    /// It is on.
    On,
    /// It is off.
    Off,
}

/// The result of a run.
pub struct Outcome {
    /// The measured versions.
    version: String,
    /// The result of its load.
    load: Load,
    /// How many events are stored.
    stored: i64,
}

/// The printed line.
#[derive(Serialize)]
struct Line<'a> {
    peer: &'a str,
    version: String,
    commands: usize,
    seconds: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Arguments {
    /// The options for a connection.
    fn connection(&self) -> Result<PgConnectOptions> {
        let commit = match self.synchronous_commit {
            Switch::On => "on",
            Switch::Off => "off",
        };
        let options = PgConnectOptions::from_str(&self.url).context("a URL of Postgres")?;
        Ok(options.options([("synchronous_commit", commit)]))
    }

    /// A pool with a connection for each client, otherwise with sqlx's defaults.
    async fn pool(&self) -> Result<PgPool> {
        let pool = PgPoolOptions::new().max_connections(self.clients);
        Ok(pool.connect_with(self.connection()?).await?)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let outcome = match arguments.peer {
        Peer::Raw => raw::run(&arguments).await,
        Peer::CqrsEs => cqrs_es_peer::run(&arguments).await,
        Peer::Esrs => esrs_peer::run(&arguments).await,
        Peer::Disintegrate => disintegrate_peer::run(&arguments).await,
    };
    let mut outcome = outcome?;
    let answered = i64::try_from(outcome.load.answered)?;
    ensure!(
        outcome.stored == answered,
        "{} events are stored, but {answered} commands were answered",
        outcome.stored
    );
    ensure!(
        !outcome.load.times.is_empty(),
        "no command was answered in time"
    );
    let seconds = arguments.seconds.as_secs_f64();
    let commands = outcome.load.times.len();
    let peer = arguments.peer.to_possible_value();
    let peer = peer.expect("a peer with a name");
    let line = Line {
        peer: peer.get_name(),
        version: outcome.version,
        commands,
        seconds,
        per_second: rounded(commands as f64 / seconds, 10.0),
        p50_ms: rounded(load::percentile_ms(&mut outcome.load.times, 50), 1_000.0),
        p99_ms: rounded(load::percentile_ms(&mut outcome.load.times, 99), 1_000.0),
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

/// How many rows a table has.
async fn rows(pool: &PgPool, table: &str) -> Result<i64> {
    let query = format!("SELECT count(*) FROM {table}");
    Ok(sqlx::query_scalar(&query).fetch_one(pool).await?)
}

/// The version of a package in the lock file.
fn version_of(package: &str) -> String {
    let name = format!("name = \"{package}\"\nversion = \"");
    let (_, after) = include_str!("../Cargo.lock")
        .split_once(&name)
        .expect("a package that is locked");
    let (version, _) = after.split_once('"').expect("a version in quotes");
    version.to_owned()
}

/// Reads a number of seconds.
fn seconds(text: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

/// Rounds to a fraction of one.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
