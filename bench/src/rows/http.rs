//! B2, B3 and B4: commands over HTTP, one at a time or as lines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use engine::ids::Partition;
use engine::record::{Headers, NewRecord, partition_of};
use futures::StreamExt;
use kernel::TenantId;
use serde::Deserialize;
use serde_json::json;
use tests::harness::logs::Kind;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Bench, Size, in_turn, one_pair};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::load::{Connection, Pool, open_loop, percentile_ms};
use crate::raw::per_second;
use crate::work::{self, RawSide, WriteSide, fresh_seed};

const PARTITIONS: u32 = 16;
/// Whoever waits for one acknowledgement does not want records collected.
const LINGER_MS: u32 = 0;

/// A door in this process.
struct Door {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Door {
    async fn open(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let served =
                door::serve(listener, router, std::future::pending(), Duration::ZERO).await;
            served.expect("a serving door");
        });
        Self { address, task }
    }

    async fn of(side: &WriteSide) -> Self {
        let router = command_api::router(side.engine.clone(), Default::default());
        Self::open(door::finish(router)).await
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn path(seed: u64, number: usize) -> String {
    format!("/v1/streams/{}/PlaceOrder", work::stream(seed, number))
}

fn body(number: usize) -> Bytes {
    work::order(number).to_string().into()
}

/// How many are waited for one by one before anything counts: whoever is asked first opens connections.
const WARM_UP: usize = 64;

/// B2: the time of one command, at a steady rate.
pub struct Paced {
    size: Size,
    records: Arc<Vec<(Partition, NewRecord)>>,
    sides: Option<(OurSide, RawSide)>,
}

/// A write side and its door.
struct OurSide {
    side: WriteSide,
    door: Door,
}

impl OurSide {
    async fn start() -> Self {
        let side = WriteSide::start(Kind::Kafka, PARTITIONS).await;
        let door = Door::of(&side).await;
        Self { side, door }
    }
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

    fn sides(&self) -> &(OurSide, RawSide) {
        self.sides.as_ref().expect("they were prepared")
    }

    async fn ours(&self, rate: usize) -> Vec<Duration> {
        let door = &self.sides().0.door;
        let (pool, warm, seed) = (Pool::of(door.address), fresh_seed(), fresh_seed());
        for number in 0..WARM_UP {
            let id = format!("warm-{number}");
            pool.post(&path(warm, number), &id, body(number)).await;
        }
        let times = open_loop(rate, self.count(rate), move |number| {
            let pool = Arc::clone(&pool);
            async move {
                let id = format!("place-{number}");
                pool.post(&path(seed, number), &id, body(number)).await;
            }
        });
        times.await
    }

    async fn theirs(&self, rate: usize) -> Vec<Duration> {
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
        times.await
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
        let ours = OurSide::start().await;
        ours.side.commands_per_second(fresh_seed(), RATES[1]).await;
        self.records = Arc::new(work::records_of(ours.side.log()).await);
        self.sides = Some((ours, RawSide::start(PARTITIONS, LINGER_MS).await));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for rate in RATES {
            let (mut ours, mut theirs) =
                in_turn(ours_first, self.ours(rate), self.theirs(rate)).await;
            pairs.extend([50, 99].map(|hundredths| Pair {
                ours: percentile_ms(&mut ours, hundredths),
                theirs: percentile_ms(&mut theirs, hundredths),
            }));
        }
        pairs
    }

    async fn finish(&mut self) {
        if let Some((ours, _)) = self.sides.take() {
            ours.side.stop().await;
        }
    }
}

/// B3: single commands over connections that each wait for their answer.
pub struct Single {
    commands: usize,
    /// Ours, and the route that appends.
    sides: Option<(OurSide, Door)>,
}

const CONNECTIONS: usize = 64;

impl Single {
    pub fn new(size: Size) -> Self {
        Self {
            commands: size.of(6_000, 60_000),
            sides: None,
        }
    }

    /// Requests in a second at a door.
    async fn ask(&self, door: &Door) -> f64 {
        let seed = fresh_seed();
        let each = self.commands / CONNECTIONS;
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(door.address).await);
        }
        let began = Instant::now();
        let asking = connections
            .into_iter()
            .enumerate()
            .map(|(place, mut connection)| {
                tokio::spawn(async move {
                    for number in place * each..(place + 1) * each {
                        let id = format!("place-{number}");
                        connection
                            .post(&path(seed, number), &id, body(number))
                            .await;
                    }
                })
            });
        for asked in futures::future::join_all(asking).await {
            asked.expect("every request is answered");
        }
        per_second(each * CONNECTIONS, began.elapsed())
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

/// Parses the body, appends it as it is, and answers once it is acknowledged.
async fn raw_order(
    State(raw): State<Arc<RawSide>>,
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
    raw.producer.append(partition, &record).await;
    StatusCode::OK
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
        let ours = OurSide::start().await;
        let raw = RawSide::start(PARTITIONS, LINGER_MS).await;
        let router = Router::new()
            .route("/v1/streams/{stream}/PlaceOrder", post(raw_order))
            .with_state(Arc::new(raw));
        let theirs = Door::open(router).await;
        self.ask(&ours.door).await;
        self.ask(&theirs).await;
        self.sides = Some((ours, theirs));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let (ours, theirs) = self.sides.as_ref().expect("they were prepared");
        one_pair(ours_first, self.ask(&ours.door), self.ask(theirs)).await
    }

    async fn finish(&mut self) {
        if let Some((ours, _)) = self.sides.take() {
            ours.side.stop().await;
        }
    }
}

/// B4: a batch of lines over HTTP.
pub struct Batch {
    commands: usize,
    ours: Option<OurSide>,
}

/// Lines that go into one piece of the body.
const LINES_PER_PIECE: usize = 64;

impl Batch {
    pub fn new(size: Size) -> Self {
        Self {
            commands: size.of(20_000, 200_000),
            ours: None,
        }
    }

    async fn over_http(&self, door: &Door) -> f64 {
        let seed = fresh_seed();
        let line = |number| {
            let line = json!({
                "stream": work::stream(seed, number), "command": "PlaceOrder",
                "id": format!("place-{number}"), "data": work::order(number),
            });
            format!("{line}\n")
        };
        let lines: Vec<String> = (0..self.commands).map(line).collect();
        let pieces: Vec<String> = lines.chunks(LINES_PER_PIECE).map(<[_]>::concat).collect();
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let began = Instant::now();
        let response = client
            .post(format!("http://{}/v1/commands", door.address))
            .header("content-type", "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(futures::stream::iter(pieces)))
            .send()
            .await
            .expect("an answer");
        let mut answers = response.bytes_stream();
        let mut answered = 0;
        while let Some(piece) = answers.next().await {
            let piece = piece.expect("an unbroken answer");
            answered += piece.iter().filter(|byte| **byte == b'\n').count();
        }
        let took = began.elapsed();
        assert_eq!(answered, self.commands, "every line has an answer");
        per_second(self.commands, took)
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
        let ours = OurSide::start().await;
        self.over_http(&ours.door).await;
        self.ours = Some(ours);
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let OurSide { side, door } = self.ours.as_ref().expect("it was prepared");
        let in_process = side.commands_per_second(fresh_seed(), self.commands);
        one_pair(ours_first, self.over_http(door), in_process).await
    }

    async fn finish(&mut self) {
        if let Some(ours) = self.ours.take() {
            ours.side.stop().await;
        }
    }
}
