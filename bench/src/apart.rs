//! What is measured as it ships: `annals serve` and whoever loads it, each a process of its own; and the
//! raw door beside it, a process as well.
//!
//! Invariant: nothing of the load is done by the node's process, and nothing of the node's by the load's.
//! Deliberately absent: what is asked (`load`), and what it is held against (`rows`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::load;
use crate::rows::http;
use crate::work;

/// Tells this program that it is a part of a measurement, and which.
const PART: &str = "ANNALS_BENCH_PART";
/// What nodes on one log prove to each other.
const SECRET: &str = "a secret of the bench alone";
/// How long a process may take until it listens.
const START_WAIT: Duration = Duration::from_secs(120);

/// What a process of this program does that measures nothing itself.
#[derive(Debug, Serialize, Deserialize)]
pub enum Part {
    /// Loads a door, and prints what came of it.
    Load(Job),
    /// Serves the route that parses and appends, and prints where.
    RawDoor {
        /// The brokers.
        bootstrap: String,
        /// The topic that it appends to.
        topic: String,
    },
}

/// A load. Every command begins a stream of its own, named by `seed`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Connections that each wait for their answer.
    Closed {
        /// Who is loaded.
        address: SocketAddr,
        /// How many connections.
        connections: usize,
        /// How many commands in all.
        count: usize,
        /// Names the streams.
        seed: u64,
    },
    /// So many commands a second, whether or not earlier ones are answered.
    Paced {
        /// Who is loaded.
        address: SocketAddr,
        /// How many a second.
        rate: usize,
        /// How many commands in all.
        count: usize,
        /// Names the streams.
        seed: u64,
    },
    /// One request of many lines.
    Batch {
        /// Who is loaded.
        address: SocketAddr,
        /// How many lines.
        count: usize,
        /// Names the streams.
        seed: u64,
    },
}

/// What came of a load.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Loaded {
    /// Commands answered in a second.
    pub per_second: f64,
    /// Times of single commands, where they were taken: the middle one, in milliseconds.
    pub p50_ms: f64,
    /// The 99th hundredth.
    pub p99_ms: f64,
}

/// Does its part where this process was started for one; `false` where it was not.
pub async fn did_its_part() -> bool {
    let Ok(part) = std::env::var(PART) else {
        return false;
    };
    match serde_json::from_str(&part).expect("a part of this program") {
        Part::Load(job) => {
            let loaded = load::run(job).await;
            println!("{}", serde_json::to_string(&loaded).expect("JSON"));
        }
        Part::RawDoor { bootstrap, topic } => http::serve_raw(&bootstrap, &topic).await,
    }
    true
}

fn part(part: &Part) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(PART, serde_json::to_string(part).expect("JSON"));
    command
}

/// Loads a door from a process of its own.
pub async fn load(job: Job) -> Loaded {
    let mut command = part(&Part::Load(job));
    let output = command.stderr(Stdio::inherit()).kill_on_drop(true).output();
    let output = output.await.expect("a process that loads");
    assert!(output.status.success(), "the load broke off");
    serde_json::from_slice(&output.stdout).expect("what came of the load")
}

/// A door in a process of its own, ended when it is dropped.
pub struct Apart {
    /// Where it listens.
    pub address: SocketAddr,
    process: Child,
    _log: NewLog,
}

impl Apart {
    /// The program as it ships, which takes commands on a new log of Kafka's.
    pub async fn node(partitions: u32) -> Self {
        let log = NewLog::make(Kind::Kafka, partitions).await;
        let mut command = Command::new(program());
        command
            .args(["serve", "--role", "command-api", "--listen", "127.0.0.1:0"])
            .args([
                "--output",
                "json",
                "--log",
                &log.address.to_string(),
                "--data",
            ])
            .arg(log.store())
            .env("ANNALS_CLUSTER_SECRET", SECRET);
        Self::start(command, log).await
    }

    /// The route that parses and appends.
    pub async fn raw_door(partitions: u32) -> Self {
        let log = NewLog::make(Kind::Kafka, partitions).await;
        let command = part(&Part::RawDoor {
            bootstrap: kafka::shared().bootstrap().to_owned(),
            topic: work::topic(&log),
        });
        Self::start(command, log).await
    }

    /// Starts a program that prints where it listens as its first line.
    async fn start(mut command: Command, log: NewLog) -> Self {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a process that serves");
        let output = process.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(output).lines();
        let line = tokio::time::timeout(START_WAIT, lines.next_line()).await;
        let line = line.expect("it starts in time").expect("a line of text");
        let ready: serde_json::Value =
            serde_json::from_str(&line.expect("it says where it listens")).expect("JSON");
        let url = ready["http"].as_str().expect("an address");
        let address = url.trim_start_matches("http://").parse();
        Self {
            address: address.expect("an address"),
            process,
            _log: log,
        }
    }

    /// Its log.
    pub fn log(&self) -> &NewLog {
        &self._log
    }

    /// The processor time that it has had, in seconds, and its threads; on Linux.
    pub fn cost(&self) -> Option<(f64, usize)> {
        let pid = self.process.id()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let threads = fields.get(17)?.parse().ok()?;
        // A hundred a second wherever Linux runs.
        Some(((field(14)? + field(15)?) / 100.0, threads))
    }
}

/// The program beside this one, which was built with it.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("this program");
    let program = own.with_file_name("annals");
    assert!(
        program.is_file(),
        "{} is not there: build it with: cargo build --release -p cli",
        program.display()
    );
    program
}
