//! B2, B3 and B4: commands over HTTP, one at a time or as lines of a batch. The node, the load and
//! the raw door are processes of their own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use event_log::record::{Headers, NewRecord, partition_of};
use kernel::TenantId;
use position::Partition;
use serde::Deserialize;
use tests::harness::logs::Kind;
use tokio::net::TcpListener;

use super::{Bench, Size, in_turn, one_pair};
use crate::apart::{self, Apart, Job};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::load::{open_loop, percentile_ms};
use crate::raw::RawProducer;
use crate::work::{self, RawSide, WriteSide, fresh_seed};

const PARTITIONS: u32 = 16;
/// A client that waits for one acknowledgement gains nothing if records are collected.
const LINGER_MS: u32 = 0;
/// How many raw appends are made one by one before the measurement.
const WARM_UP: usize = 64;
/// How many commands a node has answered before the measurement.
const COMMANDS_BEFORE: usize = 5_000;

/// A load of single commands; each connection waits for its answer.
async fn closed(door: &Apart, count: usize) -> f64 {
    let before = door.cost();
    let job = Job::Closed {
        address: door.address,
        connections: CONNECTIONS,
        count,
        seed: fresh_seed(),
    };
    let loaded = apart::load(job).await;
    if let (Some((before, _)), Some((after, threads))) = (before, door.cost()) {
        let each_us = (after - before) * 1e6 / count as f64;
        eprintln!("    {each_us:.0} µs of its processor time each, {threads} threads");
    }
    loaded.per_second
}

/// B2: the time of one command, at a steady rate.
pub struct Paced {
    size: Size,
    records: Arc<Vec<(Partition, NewRecord)>>,
    sides: Option<(Apart, RawSide)>,
}

const RATES: [usize; 2] = [1_000, 5_000];

impl Paced {
    pub fn new(size: Size) -> Self {
        Self {
            size,
            records: Arc::default(),
            sides: None,
        }
    }

    fn count(&self, rate: usize) -> usize {
        self.size.of(1, 10) * rate
    }

    fn sides(&self) -> &(Apart, RawSide) {
        self.sides.as_ref().expect("they were prepared")
    }

    async fn ours(&self, rate: usize) -> [f64; 2] {
        let job = Job::Paced {
            address: self.sides().0.address,
            rate,
            count: self.count(rate),
            seed: fresh_seed(),
        };
        let loaded = apart::load(job).await;
        [loaded.p50_ms, loaded.p99_ms]
    }

    async fn theirs(&self, rate: usize) -> [f64; 2] {
        let producer = Arc::clone(&self.sides().1.producer);
        let records = Arc::clone(&self.records);
        for (partition, record) in records.iter().take(WARM_UP) {
            producer.append(*partition, record).await;
        }
        let times = open_loop(rate, self.count(rate), move |number| {
            let (producer, records) = (Arc::clone(&producer), Arc::clone(&records));
            async move {
                let (partition, record) = &records[number % records.len()];
                producer.append(*partition, record).await;
            }
        });
        let mut times = times.await;
        [50, 99].map(|hundredths| percentile_ms(&mut times, hundredths))
    }
}

#[async_trait(?Send)]
impl Bench for Paced {
    fn subjects(&self) -> Vec<Subject> {
        let one = |rate: usize, part: &str, above_ms: f64| Subject {
            row: "B2".to_owned(),
            work: format!("one command over HTTP at {rate}/s, {part}"),
            against: "raw acknowledgement at the same rate".to_owned(),
            unit: Unit::Milliseconds,
            goal: Goal::AboveAtMost(above_ms),
        };
        RATES
            .into_iter()
            .flat_map(|rate| [one(rate, "p50", 0.3), one(rate, "p99", 2.0)])
            .collect()
    }

    async fn prepare(&mut self) {
        let ours = Apart::node(PARTITIONS).await;
        closed(&ours, COMMANDS_BEFORE).await;
        self.records = Arc::new(work::records_of(ours.log()).await);
        self.sides = Some((ours, RawSide::start(PARTITIONS, LINGER_MS).await));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for rate in RATES {
            let (ours, theirs) = in_turn(ours_first, self.ours(rate), self.theirs(rate)).await;
            let both = ours.into_iter().zip(theirs);
            pairs.extend(both.map(|(ours, theirs)| Pair { ours, theirs }));
        }
        pairs
    }

    async fn finish(&mut self) {
        self.sides = None;
    }
}

/// B3: single commands; each connection waits for its answer.
pub struct Single {
    commands: usize,
    /// Our door, and the raw door.
    sides: Option<(Apart, Apart)>,
}

const CONNECTIONS: usize = 64;

impl Single {
    pub fn new(size: Size) -> Self {
        Self {
            commands: size.of(6_000, 60_000),
            sides: None,
        }
    }
}

#[derive(Deserialize)]
struct RawMoney {
    #[serde(rename = "amount_minor")]
    _amount: i64,
    #[serde(rename = "currency")]
    _currency: String,
}

#[derive(Deserialize)]
struct RawItem {
    #[serde(rename = "line")]
    _line: u32,
    #[serde(rename = "product")]
    _product: String,
    #[serde(rename = "seller")]
    _seller: String,
    #[serde(rename = "price")]
    _price: RawMoney,
    #[serde(rename = "freight")]
    _freight: RawMoney,
}

#[derive(Deserialize)]
struct RawOrder {
    #[serde(rename = "customer")]
    _customer: String,
    #[serde(rename = "items")]
    _items: Vec<RawItem>,
    #[serde(rename = "estimated_delivery")]
    _estimated_delivery: String,
}

/// Parses the body, appends it unchanged, and answers once it is acknowledged.
async fn raw_order(
    State(raw): State<Arc<RawProducer>>,
    Path(stream): Path<String>,
    body: Bytes,
) -> StatusCode {
    if serde_json::from_slice::<RawOrder>(&body).is_err() {
        return StatusCode::BAD_REQUEST;
    }
    let partition = partition_of(&TenantId::default(), &stream, PARTITIONS);
    let key = Bytes::from(stream.into_bytes());
    let record = NewRecord {
        key: Some(key),
        value: Some(body),
        headers: Headers::default(),
    };
    raw.append(partition, &record).await;
    StatusCode::OK
}

/// Serves the raw route, and prints its address.
pub async fn serve_raw(bootstrap: &str, topic: &str) {
    let producer = RawProducer::open(bootstrap, topic, LINGER_MS);
    let router = Router::new()
        .route("/v1/streams/{stream}/PlaceOrder", post(raw_order))
        .with_state(Arc::new(producer));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    println!(
        "{}",
        serde_json::json!({"http": format!("http://{address}")})
    );
    let served = door::serve(listener, router, std::future::pending(), Duration::ZERO).await;
    served.expect("a serving door");
}

#[async_trait(?Send)]
impl Bench for Single {
    fn subjects(&self) -> Vec<Subject> {
        vec![Subject {
            row: "B3".to_owned(),
            work: format!("single commands over HTTP, {CONNECTIONS} connections"),
            against: "axum route that parses and appends".to_owned(),
            unit: Unit::PerSecond,
            goal: Goal::ShareAtLeast(0.7),
        }]
    }

    async fn prepare(&mut self) {
        let ours = Apart::node(PARTITIONS).await;
        let theirs = Apart::raw_door(PARTITIONS).await;
        closed(&ours, self.commands).await;
        closed(&theirs, self.commands).await;
        self.sides = Some((ours, theirs));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let (ours, theirs) = self.sides.as_ref().expect("they were prepared");
        let commands = self.commands;
        one_pair(ours_first, closed(ours, commands), closed(theirs, commands)).await
    }

    async fn finish(&mut self) {
        self.sides = None;
    }
}

/// B4: a batch of lines over HTTP.
pub struct Batch {
    commands: usize,
    /// Our door, and the engine in this process.
    sides: Option<(Apart, WriteSide)>,
}

impl Batch {
    pub fn new(size: Size) -> Self {
        Self {
            commands: size.of(20_000, 200_000),
            sides: None,
        }
    }

    async fn over_http(&self, door: &Apart) -> f64 {
        let job = Job::Batch {
            address: door.address,
            count: self.commands,
            seed: fresh_seed(),
        };
        apart::load(job).await.per_second
    }
}

#[async_trait(?Send)]
impl Bench for Batch {
    fn subjects(&self) -> Vec<Subject> {
        vec![Subject {
            row: "B4".to_owned(),
            work: format!("batch of {} lines over HTTP", self.commands),
            against: "the same commands in process".to_owned(),
            unit: Unit::PerSecond,
            goal: Goal::ShareAtLeast(0.6),
        }]
    }

    async fn prepare(&mut self) {
        let ours = Apart::node(PARTITIONS).await;
        let side = WriteSide::start(Kind::Kafka, PARTITIONS).await;
        self.over_http(&ours).await;
        side.commands_per_second(fresh_seed(), self.commands).await;
        self.sides = Some((ours, side));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let (ours, side) = self.sides.as_ref().expect("they were prepared");
        let in_process = side.commands_per_second(fresh_seed(), self.commands);
        one_pair(ours_first, self.over_http(ours), in_process).await
    }

    async fn finish(&mut self) {
        if let Some((ours, side)) = self.sides.take() {
            drop(ours);
            side.stop().await;
        }
    }
}
