//! B17: commands while many slow clients follow the feed of all events, against the same without them.
//! The node, the load and the slow clients are processes of their own.
//!
//! Half of the clients begin at the first event and half at the end of the log. All are behind all the time:
//! each takes much less than what the load adds. A door as it ships would cut clients that take a few hundred
//! bytes a second; here the node is told to bear them, so that all are followed while commands are measured.
//! Deliberately absent: what the clients are told (the tests of the feed).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::tests::harness::postgres::Postgres;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use super::{Bench, Size, in_turn};
use crate::apart::{self, Apart, Job};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::work::{WAIT, fresh_seed};

const PARTITIONS: u32 = 16;
/// How many clients follow.
const FOLLOWERS: usize = 200;
/// What a client takes in a second, in bytes.
const SPEEDS: [usize; 2] = [300, 8 << 10];
/// How many times a second a client takes something.
const TAKES: u32 = 4;
/// What the node is told: to give up no client, however slow.
const PATIENCE: [(&str, &str); 2] = [
    ("ANNALS_STALL_TIMEOUT_MS", "3600000"),
    ("ANNALS_RATE_BYTES_MIN", "1"),
];
/// The room of a client for what it did not take yet: otherwise the system takes megabytes for it.
const ROOM_BYTES: u32 = 4 << 10;
/// How many connections give commands, and how many commands a second are paced for their times.
const CONNECTIONS: usize = 64;
const RATE: usize = 1_000;
/// The pause between two looks at how many clients are followed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Slow clients of the feed at this address.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Slow {
    address: SocketAddr,
    count: usize,
    bytes_a_second: usize,
}

impl Slow {
    /// Follows until this process is ended. Says `followed` when each has the beginning of its answer.
    pub async fn follow(self) {
        let (began, mut begun) = mpsc::channel(self.count);
        for number in 0..self.count {
            let began = began.clone();
            tokio::spawn(async move {
                let from = ["", "&from=now"][number % 2];
                let ended = self.take(from, began).await;
                panic!("a feed that is followed ended: {ended:?}");
            });
        }
        for _ in 0..self.count {
            begun.recv().await.expect("followers that go on");
        }
        println!("followed");
        std::future::pending().await
    }

    /// Takes a feed a little at a time.
    async fn take(self, from: &str, began: mpsc::Sender<()>) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(ROOM_BYTES)?;
        let mut stream = socket.connect(self.address).await?;
        let ask = format!("GET /v1/events?follow=true{from} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(ask.as_bytes()).await?;
        let mut piece = vec![0; self.bytes_a_second / TAKES as usize];
        let taken = stream.read(&mut piece).await?;
        let head = String::from_utf8_lossy(&piece[..taken]);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        began.send(()).await.expect("somebody who counts");
        while stream.read(&mut piece).await? > 0 {
            tokio::time::sleep(Duration::from_secs(1) / TAKES).await;
        }
        Ok(())
    }
}

/// Commands with and without slow clients beside.
pub struct Followed {
    history: usize,
    commands: usize,
    paced_for_seconds: usize,
    running: Option<Running>,
}

struct Running {
    // In the order of dropping: the node before its Postgres.
    node: Apart,
    _postgres: Postgres,
}

/// What one side shows.
struct Measured {
    per_second: f64,
    p99_ms: f64,
}

impl Followed {
    pub fn new(size: Size) -> Self {
        Self {
            history: size.of(20_000, 100_000),
            commands: size.of(10_000, 100_000),
            paced_for_seconds: size.of(3, 10),
            running: None,
        }
    }

    fn node(&self) -> &Apart {
        &self.running.as_ref().expect("it was prepared").node
    }

    async fn measure(&self) -> Measured {
        let address = self.node().address;
        let closed = apart::load(Job::Closed {
            address,
            connections: CONNECTIONS,
            count: self.commands,
            seed: fresh_seed(),
        });
        let closed = closed.await;
        let paced = apart::load(Job::Paced {
            address,
            rate: RATE,
            count: self.paced_for_seconds * RATE,
            seed: fresh_seed(),
        });
        Measured {
            per_second: closed.per_second,
            p99_ms: paced.await.p99_ms,
        }
    }

    /// The same with slow clients. Each is there before and after.
    async fn measure_followed(&self, bytes_a_second: usize) -> Measured {
        let address = self.node().address;
        let slow = Slow {
            address,
            count: FOLLOWERS,
            bytes_a_second,
        };
        let mut clients = apart::follow_slowly(slow).await;
        let measured = self.measure().await;
        assert_eq!(followers(address).await, FOLLOWERS, "all are followed");
        clients.kill().await.expect("a process of ours");
        // What is left of them must not reach the other side.
        let deadline = Instant::now() + WAIT;
        while followers(address).await > 0 {
            assert!(
                Instant::now() < deadline,
                "clients that are gone are followed"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        measured
    }
}

/// How many clients a node says that it follows.
async fn followers(address: SocketAddr) -> usize {
    let answer = reqwest::get(format!("http://{address}/metrics")).await;
    let metrics = answer.expect("an answer").text().await.expect("a text");
    let mut lines = metrics.lines();
    let count = lines.find_map(|line| line.strip_prefix("annals_feed_followers "));
    count
        .and_then(|count| count.trim().parse().ok())
        .expect("a number of followers")
}

#[async_trait(?Send)]
impl Bench for Followed {
    fn subjects(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for bytes in SPEEDS {
            let subject = |work: &str, unit, goal| Subject {
                row: "B17".to_owned(),
                work: format!("{work}, {FOLLOWERS} followers that take {bytes} bytes a second"),
                against: "the same without followers".to_owned(),
                unit,
                goal,
            };
            subjects.push(subject(
                &format!("commands over HTTP, {CONNECTIONS} connections"),
                Unit::PerSecond,
                Goal::ShareAtLeast(0.8),
            ));
            subjects.push(subject(
                &format!("a command at {RATE}/s, p99"),
                Unit::Milliseconds,
                Goal::Shown,
            ));
        }
        subjects
    }

    async fn prepare(&mut self) {
        let postgres = Postgres::start();
        let url = postgres.create_database().await;
        projector::migrate(&url).await.expect("a migrated database");
        let roles = "command-api,query-api";
        self.running = Some(Running {
            node: Apart::node_of(roles, &url, PARTITIONS, &PATIENCE).await,
            _postgres: postgres,
        });
        apart::generate(self.node(), fresh_seed(), self.history).await;
        self.measure().await;
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for bytes in SPEEDS {
            let measured = in_turn(ours_first, self.measure_followed(bytes), self.measure());
            let (ours, theirs) = measured.await;
            let pair = |ours, theirs| Pair { ours, theirs };
            pairs.push(pair(ours.per_second, theirs.per_second));
            pairs.push(pair(ours.p99_ms, theirs.p99_ms));
        }
        pairs
    }

    async fn finish(&mut self) {
        self.running = None;
    }
}
