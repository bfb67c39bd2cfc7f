//! B8: the engine's waiting clients beside what is in use today, which keeps events in Postgres;
//! and B8b: beside Kafka Streams, on the engine's own broker. Only in the full run, and only if the
//! peers were built (`make peers`).
//!
//! Invariant: equal durability. If Postgres answers before the event is on disk, the broker does so
//! too; if not, the broker flushes every record.

use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use embedded_postgres::Durability;
use serde::Deserialize;
use tests::harness::kafka;
use tests::harness::postgres::Postgres;
use tokio::process::Command;

use super::closed::Closed;
use super::{Bench, Size};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::load::percentile_ms;

/// How many waiting clients there are.
const CLIENTS: [usize; 3] = [1, 8, 32];
/// The number of clients to which the goals apply.
const CLIENTS_OF_GOALS: usize = 32;
/// The goal: this many times the throughput of each peer, also of the best one.
const TIMES: f64 = 5.0;
/// How long a peer warms up, and how long it is measured, in seconds.
const WARM_UP_SECONDS: &str = "1";
const SECONDS: &str = "3";

/// A peer on Postgres.
#[derive(Clone, Copy, Debug)]
struct Peer {
    name: &'static str,
    /// Its program, from `bench/peers`.
    program: &'static [&'static str],
}

const RUST: &str = "rust/target/release/peers";
const PEERS: [Peer; 6] = [
    Peer {
        name: "Postgres, raw appends",
        program: &[RUST, "--peer", "raw"],
    },
    Peer {
        name: "cqrs-es with postgres-es",
        program: &[RUST, "--peer", "cqrs-es"],
    },
    Peer {
        name: "esrs",
        program: &[RUST, "--peer", "esrs"],
    },
    Peer {
        name: "disintegrate",
        program: &[RUST, "--peer", "disintegrate"],
    },
    Peer {
        name: "Emmett",
        program: &["node", "node/emmett.mjs"],
    },
    Peer {
        name: "message-db",
        program: &["node", "node/message-db.mjs"],
    },
];

/// The output of a peer's program.
#[derive(Debug, Deserialize)]
struct Printed {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn folder() -> PathBuf {
    PathBuf::from("bench/peers")
}

/// Runs a peer's program until it ends.
async fn run(program: &[&str], arguments: &[&str]) -> Printed {
    let path = match program[0] {
        "node" | "java" => PathBuf::from(program[0]),
        built => folder().join(built).canonicalize().expect("a built peer"),
    };
    let output = Command::new(path)
        .args(&program[1..])
        .args(arguments)
        .current_dir(folder())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .expect("a program that starts");
    assert!(output.status.success(), "{program:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

/// Whether everything that `make peers` builds is there.
#[must_use]
pub fn are_built() -> bool {
    [RUST, "node/node_modules", STREAMS]
        .iter()
        .all(|built| folder().join(built).exists())
}

/// Our waiting clients beside those of every peer.
pub struct Peers {
    size: Size,
    /// Whether an answer means that the event is on disk.
    flushed: bool,
    postgres: Option<Postgres>,
}

impl Peers {
    pub fn new(size: Size, flushed: bool) -> Self {
        Self {
            size,
            flushed,
            postgres: None,
        }
    }
}

#[async_trait(?Send)]
impl Bench for Peers {
    fn subjects(&self) -> Vec<Subject> {
        let durability = match self.flushed {
            true => "each on disk before its answer",
            false => "default durability",
        };
        let mut subjects = Vec::new();
        for clients in CLIENTS {
            for peer in PEERS {
                let has_goal = clients == CLIENTS_OF_GOALS && !self.flushed;
                let goal = |goal| if has_goal { goal } else { Goal::Shown };
                let subject = |part: &str, unit, goal| Subject {
                    row: "B8".to_owned(),
                    work: format!("{clients} waiting, {durability}{part}"),
                    against: peer.name.to_owned(),
                    unit,
                    goal,
                };
                subjects.extend([
                    subject("", Unit::PerSecond, goal(Goal::ShareAtLeast(TIMES))),
                    subject(", p50", Unit::Milliseconds, Goal::Shown),
                    subject(", p99", Unit::Milliseconds, goal(Goal::AboveAtMost(0.0))),
                ]);
            }
        }
        subjects
    }

    async fn prepare(&mut self) {
        // Each connection sets by itself whether its commits wait for the disk.
        self.postgres = Some(Postgres::start_with(Durability::Full));
    }

    async fn round(&mut self, _ours_first: bool) -> Vec<Pair> {
        let postgres = self.postgres.as_ref().expect("it was prepared");
        let mut pairs = Vec::new();
        for clients in CLIENTS {
            let mut ours = Closed::measured(self.size, clients, self.flushed).await;
            let (p50, p99) = (
                percentile_ms(&mut ours.times, 50),
                percentile_ms(&mut ours.times, 99),
            );
            for peer in PEERS {
                let url = postgres.create_database().await;
                let (clients, commit) =
                    (clients.to_string(), if self.flushed { "on" } else { "off" });
                let arguments = [
                    ["--url", &url],
                    ["--clients", &clients],
                    ["--warm-up", WARM_UP_SECONDS],
                    ["--seconds", SECONDS],
                    ["--synchronous-commit", commit],
                ];
                let theirs = run(peer.program, arguments.as_flattened()).await;
                let pair = |ours, theirs| Pair { ours, theirs };
                pairs.extend([
                    pair(ours.rate, theirs.per_second),
                    pair(p50, theirs.p50_ms),
                    pair(p99, theirs.p99_ms),
                ]);
            }
        }
        pairs
    }
}

const STREAMS: &str = "kafka-streams/target/kafka-streams-peer.jar";
const PARTITIONS: &str = "16";
/// How often Kafka Streams commits, in milliseconds.
const COMMIT_INTERVALS_MS: [&str; 2] = ["100", "10"];
const IN_FLIGHT: usize = 1_000;
/// How long Kafka Streams warms up, and how long it is measured, in seconds.
const STREAMS_SECONDS: &str = "5";

/// One command at a time, and a thousand in flight, beside Kafka Streams.
pub struct KafkaStreams {
    size: Size,
}

impl KafkaStreams {
    pub fn new(size: Size) -> Self {
        Self { size }
    }
}

#[async_trait(?Send)]
impl Bench for KafkaStreams {
    fn subjects(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for interval in COMMIT_INTERVALS_MS {
            let subject = |work: String, unit, goal| Subject {
                row: "B8b".to_owned(),
                work,
                against: format!("Kafka Streams, exactly once, commits each {interval} ms"),
                unit,
                goal,
            };
            let one = match interval {
                "100" => Goal::ShareAtMost(0.01),
                _ => Goal::Shown,
            };
            subjects.extend([
                subject("one at a time, p50".to_owned(), Unit::Milliseconds, one),
                subject(
                    format!("{IN_FLIGHT} in flight"),
                    Unit::PerSecond,
                    Goal::ShareAtLeast(2.0),
                ),
            ]);
        }
        subjects
    }

    async fn prepare(&mut self) {}

    async fn round(&mut self, _ours_first: bool) -> Vec<Pair> {
        let mut one = Closed::measured(self.size, 1, false).await;
        let p50 = percentile_ms(&mut one.times, 50);
        let many = Closed::measured(self.size, IN_FLIGHT, false).await.rate;
        let mut pairs = Vec::new();
        for interval in COMMIT_INTERVALS_MS {
            let streams = async |in_flight: &str| {
                let arguments = [
                    ["--bootstrap", kafka::shared().bootstrap()],
                    ["--partitions", PARTITIONS],
                    ["--commit-interval-ms", interval],
                    ["--in-flight", in_flight],
                    ["--warm-up", STREAMS_SECONDS],
                    ["--seconds", STREAMS_SECONDS],
                ];
                run(&["java", "-jar", STREAMS], arguments.as_flattened()).await
            };
            let pair = |ours, theirs| Pair { ours, theirs };
            pairs.push(pair(p50, streams("1").await.p50_ms));
            let in_flight = IN_FLIGHT.to_string();
            pairs.push(pair(many, streams(&in_flight).await.per_second));
        }
        pairs
    }
}
