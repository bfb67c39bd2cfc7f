//! Measures the program as it ships: `annals serve` and the load generator, each in a process of
//! its own; and the raw door for comparison, also in a process.
//!
//! Invariant: the node's process does none of the load's work, and the load's process does none of
//! the node's. Deliberately absent: what is requested (`load`), and what the results are compared
//! with (`rows`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::rows::query::QueryKind;
use crate::rows::slow::Slow;
use crate::rows::{export, http, query};
use crate::{load, machine, work};

/// The environment variable that makes this program a part of a measurement, and says which part.
const PART: &str = "ANNALS_BENCH_PART";
/// The secret by which nodes on one log recognize each other.
const SECRET: &str = "a secret of the bench alone";
/// How long a process may take until it accepts connections.
const START_WAIT: Duration = Duration::from_secs(120);
/// The pause between two looks at the memory of a process.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The work of a process of this program that is only a part of a measurement.
#[derive(Debug, Serialize, Deserialize)]
pub enum Part {
    /// Puts load on a door, and prints the result.
    Load(Job),
    /// Serves the plain routes for queries, and prints their address.
    PlainQueries {
        /// The address of Postgres.
        postgres: String,
    },
    /// Follows the feed of all events with slow clients, and says when they are all followed.
    Slow(Slow),
    /// Reads every commit that counts in the log at this address, and prints how many events there are.
    Read {
        /// The log.
        log: String,
    },
    /// Serves the route that parses and appends, and prints its address.
    RawDoor {
        /// The brokers.
        bootstrap: String,
        /// The topic to which it appends.
        topic: String,
    },
}

/// A load. Every command begins a stream of its own; `seed` is part of the streams' names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Connections that each wait for an answer before the next command.
    Closed {
        /// The door under load.
        address: SocketAddr,
        /// How many connections.
        connections: usize,
        /// How many commands in all.
        count: usize,
        /// A part of the streams' names.
        seed: u64,
    },
    /// A fixed number of commands per second, whether or not earlier ones are answered.
    Paced {
        /// The door under load.
        address: SocketAddr,
        /// How many commands per second.
        rate: usize,
        /// How many commands in all.
        count: usize,
        /// A part of the streams' names.
        seed: u64,
    },
    /// Connections that each wait for an answer before the next query.
    Queries {
        /// The door under load.
        address: SocketAddr,
        /// How many connections.
        connections: usize,
        /// How many queries in all.
        count: usize,
        /// Which of the rows come first.
        seed: u64,
        /// What is asked.
        kind: QueryKind,
    },
    /// Connections that each wait for an answer before the next of some queries, each asked once.
    Paths {
        /// The door under load.
        address: SocketAddr,
        /// How many connections.
        connections: usize,
        /// The file with the paths, one in each line.
        file: PathBuf,
    },
    /// One request of many lines.
    Batch {
        /// The door under load.
        address: SocketAddr,
        /// How many lines.
        count: usize,
        /// A part of the streams' names.
        seed: u64,
    },
}

/// The result of a load.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Loaded {
    /// Commands answered per second.
    pub per_second: f64,
    /// The median time of a command, in milliseconds; 0 if single commands were not timed.
    pub p50_ms: f64,
    /// The 99th percentile, in milliseconds; 0 if single commands were not timed.
    pub p99_ms: f64,
}

/// If this process was started as a part of a measurement, does that part; otherwise returns
/// `false`.
pub async fn did_its_part() -> bool {
    let Ok(part) = std::env::var(PART) else {
        return false;
    };
    match serde_json::from_str(&part).expect("a part of this program") {
        Part::Load(job) => {
            let loaded = load::run(job).await;
            println!("{}", serde_json::to_string(&loaded).expect("JSON"));
        }
        Part::Slow(slow) => slow.follow().await,
        Part::Read { log } => println!("{}", export::read(&log).await),
        Part::PlainQueries { postgres } => query::serve_plain(&postgres).await,
        Part::RawDoor { bootstrap, topic } => http::serve_raw(&bootstrap, &topic).await,
    }
    true
}

fn part(part: &Part) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(PART, serde_json::to_string(part).expect("JSON"));
    command
}

/// Runs a load in a process of its own.
pub async fn load(job: Job) -> Loaded {
    let mut command = part(&Part::Load(job));
    let output = command.stderr(Stdio::inherit()).kill_on_drop(true).output();
    let output = output.await.expect("a process that loads");
    assert!(output.status.success(), "the load broke off");
    serde_json::from_slice(&output.stdout).expect("what came of the load")
}

/// A door in a process of its own; the process ends on drop.
pub struct Apart {
    /// Where it listens.
    pub address: SocketAddr,
    process: Child,
    log: NewLog,
}

impl Apart {
    /// The program as it ships, which accepts commands on a new Kafka log.
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

    /// The program as it ships, which accepts commands on a new Kafka log and writes the read models
    /// at `postgres`.
    pub async fn whole_node(postgres: &str, partitions: u32) -> Self {
        Self::node_of("command-api,projector", postgres, partitions, &[]).await
    }

    /// The program as it ships, with these roles and settings, on a new Kafka log and the Postgres at
    /// `postgres`.
    pub async fn node_of(
        roles: &str,
        postgres: &str,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Self {
        let log = NewLog::make(Kind::Kafka, partitions).await;
        let mut command = Command::new(program());
        command
            .args(["serve", "--role", roles, "--listen"])
            .args(["127.0.0.1:0", "--output", "json", "--postgres", postgres])
            .args(["--log", &log.address.to_string(), "--data"])
            .arg(log.store())
            .envs(settings.iter().copied())
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

    /// The program as it ships, which answers queries of the read models at `postgres`.
    pub async fn query_node(postgres: &str, log: NewLog) -> Self {
        let mut command = Command::new(program());
        command
            .args(["serve", "--role", "query-api", "--listen", "127.0.0.1:0"])
            .args(["--output", "json", "--postgres", postgres])
            .args(["--log", &log.address.to_string(), "--data"])
            .arg(log.store())
            .env("ANNALS_CLUSTER_SECRET", SECRET);
        Self::start(command, log).await
    }

    /// The plain routes for queries; they have no log of their own.
    pub async fn plain_queries(postgres: &str, log: NewLog) -> Self {
        let command = part(&Part::PlainQueries {
            postgres: postgres.to_owned(),
        });
        Self::start(command, log).await
    }

    /// Starts a program whose first line of output is the address on which it listens.
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
            log,
        }
    }

    pub fn log(&self) -> &NewLog {
        &self.log
    }

    /// Ends the process, and returns its log.
    pub async fn stop(mut self) -> NewLog {
        self.process.kill().await.expect("a process of ours");
        self.log
    }

    /// The processor time that it has used, in seconds, and its number of threads; only on Linux.
    pub fn cost(&self) -> Option<(f64, usize)> {
        let pid = self.process.id()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let threads = fields.get(17)?.parse().ok()?;
        // The unit is a hundredth of a second on every Linux.
        Some(((field(14)? + field(15)?) / 100.0, threads))
    }
}

/// Makes an invented history of the shop through a node.
pub async fn generate(node: &Apart, seed: u64, events: usize) {
    let mut command = Command::new(program());
    command
        .args(["generate", "--url", &format!("http://{}", node.address)])
        .args(["--seed", &seed.to_string(), "--events", &events.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let made = command.status().await.expect("a process that generates");
    assert!(made.success(), "the history was not made");
}

/// Starts to rebuild a read model as an operator does, in a process that ends on drop.
pub fn rebuild(model: &str, log: &str, postgres: &str) -> Child {
    let mut command = Command::new(program());
    command
        .args(["projections", "rebuild", model])
        .args(["--log", log, "--postgres", postgres])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command.spawn().expect("a process that rebuilds")
}

/// The events of a log, read in a process of its own that does nothing else; how many, and how long the
/// process took.
pub async fn read(log: &NewLog) -> (usize, Duration) {
    let mut command = part(&Part::Read {
        log: log.address.to_string(),
    });
    let began = Instant::now();
    let output = command.stderr(Stdio::inherit()).kill_on_drop(true).output();
    let output = output.await.expect("a process that reads");
    assert!(output.status.success(), "the reading broke off");
    let count = String::from_utf8_lossy(&output.stdout);
    (count.trim().parse().expect("a number"), began.elapsed())
}

/// Exports a log's events as Parquet into `folder`, as an analyst does. Returns how long the process took,
/// and the most memory that it had, in megabytes; only on Linux.
pub async fn export(log: &NewLog, folder: &Path) -> (Duration, f64) {
    let mut command = Command::new(program());
    command
        .args(["export", "events", "--format", "parquet", "--out"])
        .arg(folder)
        .args(["--log", &log.address.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let began = Instant::now();
    let mut process = command.spawn().expect("a process that exports");
    let pid = process.id().expect("it was not waited for");
    let mut most = 0.0;
    let exported = loop {
        if let Some(peak) = machine::peak_mb(pid) {
            most = peak;
        }
        if let Ok(ended) = tokio::time::timeout(LOOK_EVERY, process.wait()).await {
            break ended.expect("a child of ours can be waited for");
        }
    };
    assert!(exported.success(), "the export failed: {exported}");
    (began.elapsed(), most)
}

/// Slow clients of a feed, in a process that ends on drop.
pub async fn follow_slowly(slow: Slow) -> Child {
    let mut command = part(&Part::Slow(slow));
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let mut process = command.spawn().expect("a process that follows");
    let output = process.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(output).lines();
    let line = tokio::time::timeout(START_WAIT, lines.next_line()).await;
    let line = line.expect("all are followed in time").expect("text");
    assert!(line.is_some(), "the followers broke off");
    process
}

/// The `annals` program in this program's folder, which is built together with it.
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
