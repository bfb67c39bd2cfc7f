//! B8: clients in this process that each wait for an answer before the next command, against
//! clients that do the same with the Kafka client library.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::EngineOptions;
use event_log::record::NewRecord;
use position::Partition;
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};

use super::{Bench, Size, in_turn};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::load::percentile_ms;
use crate::raw::{self, per_second};
use crate::work::{self, RawSide, WAIT, WriteSide, fresh_seed};

const PARTITIONS: u32 = 16;
/// A client that waits for one acknowledgement gains nothing if records are collected.
const LINGER_MS: u32 = 0;
/// How many commands each client sends before the measurement.
const WARM_UP: usize = 50;
const CLIENTS: [usize; 3] = [1, 8, 32];
/// The prefix of the names of hot streams.
const BOOK: &str = "book-";

/// Which streams the clients write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streams {
    /// Each command begins a stream of its own.
    Spread,
    /// Each client writes to one stream all the time.
    Hot,
}

/// A number of clients, and the streams that they write to.
#[derive(Clone, Copy, Debug)]
struct Case {
    clients: usize,
    streams: Streams,
}

/// Clients that each wait for their answer. Every command carries the expected version.
pub struct Closed {
    cases: Vec<Case>,
    /// Whether the broker flushes every record to disk.
    flushed: bool,
    /// For how long a case is measured.
    span: Duration,
    /// Records that our side left in its log, which the other side appends in turn: one of each
    /// order, and one of each book.
    spread: Vec<(Partition, NewRecord)>,
    hot: Vec<(Partition, NewRecord)>,
    sides: Option<(WriteSide, RawSide)>,
}

impl Closed {
    /// With streams of both kinds, on a broker with default settings.
    pub fn new(size: Size) -> Self {
        Self::of(size, &[Streams::Spread, Streams::Hot], &CLIENTS, false)
    }

    /// On a broker that flushes every record to disk.
    pub fn flushed(size: Size) -> Self {
        Self::of(size, &[Streams::Spread], &CLIENTS, true)
    }

    fn of(size: Size, streams: &[Streams], clients: &[usize], flushed: bool) -> Self {
        let cases = streams.iter().flat_map(|streams| {
            let case = |clients: &usize| Case {
                clients: *clients,
                streams: *streams,
            };
            clients.iter().map(case)
        });
        Self {
            cases: cases.collect(),
            flushed,
            span: Duration::from_millis(size.of(500, 3_000) as u64),
            spread: Vec::new(),
            hot: Vec::new(),
            sides: None,
        }
    }

    /// Measures clients of a new write side; each command begins a stream of its own.
    pub async fn measured(size: Size, clients: usize, flushed: bool) -> Measured {
        let closed = Self::of(size, &[Streams::Spread], &[clients], flushed);
        let side = closed.new_side().await;
        let measured = closed.ours(&side, closed.cases[0]).await;
        side.stop().await;
        measured
    }

    async fn new_log(&self) -> NewLog {
        let log = NewLog::make(Kind::Kafka, PARTITIONS).await;
        if self.flushed {
            let topic = work::topic(&log);
            raw::flush_every_record(kafka::shared().bootstrap(), &topic).await;
        }
        log
    }

    async fn new_side(&self) -> WriteSide {
        let log = self.new_log().await;
        let options = EngineOptions::alone(Some(log.store()));
        WriteSide::open(log, options).await
    }

    async fn ours(&self, side: &WriteSide, case: Case) -> Measured {
        let round = fresh_seed();
        let ask = async |client: usize, number: usize| {
            let request = match case.streams {
                Streams::Spread => {
                    let mut request = work::place(round, number * case.clients + client);
                    request.expected_version = Some(0);
                    request
                }
                Streams::Hot => work::lend_or_return(&format!("{BOOK}{round}-{client}"), number),
            };
            let command = side.engine.prepare(request).expect("a well-formed command");
            let answer = side.engine.submit(command, Instant::now() + WAIT).await;
            answer.expect("an accepted command");
        };
        self.measure(case.clients, ask).await
    }

    async fn theirs(&self, raw: &RawSide, case: Case) -> Measured {
        let append = async |client: usize, number: usize| {
            let (partition, record) = match case.streams {
                Streams::Spread => {
                    let place = number * case.clients + client;
                    &self.spread[place % self.spread.len()]
                }
                Streams::Hot => &self.hot[client],
            };
            raw.producer.append(*partition, record).await;
        };
        self.measure(case.clients, append).await
    }

    /// Lets all clients ask at the same time, first as a warm-up, then until the time is over.
    async fn measure(&self, clients: usize, ask: impl AsyncFn(usize, usize)) -> Measured {
        let warm_up = (0..clients).map(async |client| {
            for number in 0..WARM_UP {
                ask(client, number).await;
            }
        });
        futures::future::join_all(warm_up).await;
        let began = Instant::now();
        let asking = (0..clients).map(async |client| {
            let mut times = Vec::new();
            for number in WARM_UP.. {
                let asked = Instant::now();
                if asked - began >= self.span {
                    break;
                }
                ask(client, number).await;
                times.push(asked.elapsed());
            }
            times
        });
        let times: Vec<Duration> = futures::future::join_all(asking).await.concat();
        Measured {
            rate: per_second(times.len(), began.elapsed()),
            times,
        }
    }
}

/// The measurement of some clients.
pub struct Measured {
    /// Answers per second.
    pub rate: f64,
    /// The waiting time for each answer.
    pub times: Vec<Duration>,
}

#[async_trait(?Send)]
impl Bench for Closed {
    fn subjects(&self) -> Vec<Subject> {
        let of_case = |case: &Case| {
            let streams = match case.streams {
                Streams::Spread => "a stream each time",
                Streams::Hot => "one stream each",
            };
            let clients = match case.clients {
                1 => "one waiting client".to_owned(),
                count => format!("{count} waiting clients"),
            };
            let durability = match self.flushed {
                true => ", each on disk",
                false => "",
            };
            let subject = move |part: &str, unit, goal| Subject {
                row: "B8".to_owned(),
                work: format!("{clients} in process, {streams}{durability}{part}"),
                against: "the same clients, raw".to_owned(),
                unit,
                goal,
            };
            [
                subject("", Unit::PerSecond, Goal::ShareAtLeast(0.6)),
                subject(", p50", Unit::Milliseconds, Goal::Shown),
                subject(", p99", Unit::Milliseconds, Goal::Shown),
            ]
        };
        self.cases.iter().flat_map(of_case).collect()
    }

    async fn prepare(&mut self) {
        let side = self.new_side().await;
        for case in &self.cases {
            self.ours(&side, *case).await;
        }
        // The last record of each stream: neither the shortest nor the longest.
        let mut last = BTreeMap::new();
        for (partition, record) in work::records_of(side.log()).await {
            if let Some(key) = record.key.clone() {
                last.insert(key, (partition, record));
            }
        }
        for (key, record) in last {
            let is_book = String::from_utf8_lossy(&key).contains(BOOK);
            let records = if is_book {
                &mut self.hot
            } else {
                &mut self.spread
            };
            records.push(record);
        }
        let raw = RawSide::on(self.new_log().await, LINGER_MS);
        self.sides = Some((side, raw));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let (side, raw) = self.sides.as_ref().expect("they were prepared");
        let mut pairs = Vec::new();
        for case in &self.cases {
            let (ours, theirs) = (self.ours(side, *case), self.theirs(raw, *case));
            let (mut ours, mut theirs) = in_turn(ours_first, ours, theirs).await;
            pairs.push(Pair {
                ours: ours.rate,
                theirs: theirs.rate,
            });
            pairs.extend([50, 99].map(|hundredths| Pair {
                ours: percentile_ms(&mut ours.times, hundredths),
                theirs: percentile_ms(&mut theirs.times, hundredths),
            }));
        }
        pairs
    }

    async fn finish(&mut self) {
        if let Some((side, _)) = self.sides.take() {
            side.stop().await;
        }
    }
}
