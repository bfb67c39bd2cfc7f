//! B8: clients in this process that each wait for their answer before they ask again, against clients
//! that do the same with the client library.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::command::Request;
use engine::engine::EngineOptions;
use engine::ids::Partition;
use engine::record::NewRecord;
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};

use super::{Bench, Size, in_turn};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::load::percentile_ms;
use crate::raw::{self, per_second};
use crate::work::{self, RawSide, WAIT, WriteSide, fresh_seed};

const PARTITIONS: u32 = 16;
/// Whoever waits for one acknowledgement does not want records collected.
const LINGER_MS: u32 = 0;
/// How many commands a client sends before anything counts.
const WARM_UP: usize = 50;

/// Which streams the clients write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// Each command begins a stream of its own.
    Spread,
    /// Each client writes to one stream, on and on.
    Hot,
}

/// Clients that each wait for their answer. Every command names the version it was made for.
pub struct Closed {
    clients: usize,
    streams: Streams,
    /// Whether the broker flushes every record.
    flushed: bool,
    /// Of one client, at most.
    commands: usize,
    /// How long is measured, at most.
    span: Duration,
    /// What the commands of our side left in a log, as the other side appends it where ours did: of
    /// every command in their order, or one of every client.
    records: Arc<Vec<(Partition, NewRecord)>>,
    sides: Option<(WriteSide, RawSide)>,
}

impl Closed {
    pub fn new(size: Size, clients: usize, streams: Streams) -> Self {
        // One waiting client is as slow as the broker's answer.
        let commands = size.of(2_000, 15_000).max(size.of(400, 3_000) * clients);
        Self {
            clients,
            streams,
            flushed: false,
            commands: commands / clients,
            span: Duration::from_millis(size.of(500, 3_000) as u64),
            records: Arc::default(),
            sides: None,
        }
    }

    /// The same on a broker that flushes every record, or one that does not.
    #[must_use]
    pub fn flushed(self, flushed: bool) -> Self {
        Self { flushed, ..self }
    }

    fn command(&self, round: u64, client: usize, number: usize) -> Request {
        match self.streams {
            Streams::Spread => {
                let place = client * (self.commands + WARM_UP) + number;
                let mut request = work::place(round, place);
                request.expected_version = Some(0);
                request
            }
            Streams::Hot => work::lend_or_return(&format!("book-{round}-{client}"), number),
        }
    }

    async fn new_log(&self) -> NewLog {
        let log = NewLog::make(Kind::Kafka, PARTITIONS).await;
        if self.flushed {
            let topic = work::topic(&log);
            raw::flush_every_record(kafka::shared().bootstrap(), &topic).await;
        }
        log
    }

    /// What the clients of a new write side see.
    pub async fn ours(&self) -> Measured {
        let side = self.new_side().await;
        let measured = self.ask(&side, self.span).await;
        side.stop().await;
        measured
    }

    async fn new_side(&self) -> WriteSide {
        let log = self.new_log().await;
        let options = EngineOptions::alone(Some(log.store()));
        WriteSide::open(log, options).await
    }

    async fn ask(&self, side: &WriteSide, span: Duration) -> Measured {
        let round = fresh_seed();
        let ask = async |client: usize, number: usize| {
            let command = side.engine.prepare(self.command(round, client, number));
            let command = command.expect("a well-formed command");
            let answer = side.engine.submit(command, Instant::now() + WAIT).await;
            answer.expect("an accepted command");
        };
        self.measure(span, ask).await
    }

    async fn theirs(&self, raw: &RawSide) -> Measured {
        let append = async |client: usize, number: usize| {
            let (partition, record) = match self.streams {
                Streams::Spread => {
                    let place = client * (self.commands + WARM_UP) + number;
                    &self.records[place]
                }
                Streams::Hot => &self.records[client],
            };
            raw.producer.append(*partition, record).await;
        };
        self.measure(self.span, append).await
    }

    /// Lets all clients ask at the same time, warm first, until they have asked everything or so much
    /// time is over.
    async fn measure(&self, span: Duration, ask: impl AsyncFn(usize, usize)) -> Measured {
        let clients = 0..self.clients;
        let warm_up = clients.clone().map(async |client| {
            for number in 0..WARM_UP {
                ask(client, number).await;
            }
        });
        futures::future::join_all(warm_up).await;
        let began = Instant::now();
        let asking = clients.map(async |client| {
            let mut times = Vec::with_capacity(self.commands);
            for number in WARM_UP..WARM_UP + self.commands {
                let asked = Instant::now();
                if asked - began >= span {
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

/// What the clients saw.
pub struct Measured {
    /// Answers in a second.
    pub rate: f64,
    /// How long each was waited for.
    pub times: Vec<Duration>,
}

#[async_trait(?Send)]
impl Bench for Closed {
    fn subjects(&self) -> Vec<Subject> {
        let streams = match self.streams {
            Streams::Spread => "a stream each time",
            Streams::Hot => "one stream each",
        };
        let clients = match self.clients {
            1 => "one waiting client".to_owned(),
            count => format!("{count} waiting clients"),
        };
        let durability = match self.flushed {
            true => ", each on disk",
            false => "",
        };
        let subject = |part: &str, unit, goal| Subject {
            row: "B8".to_owned(),
            work: format!("{clients} in process, {streams}{durability}{part}"),
            against: "the same clients, raw".to_owned(),
            unit,
            goal,
        };
        vec![
            subject("", Unit::PerSecond, Goal::ShareAtLeast(0.6)),
            subject(", p50", Unit::Milliseconds, Goal::Shown),
            subject(", p99", Unit::Milliseconds, Goal::Shown),
        ]
    }

    async fn prepare(&mut self) {
        let side = self.new_side().await;
        self.ask(&side, WAIT).await;
        // Of a stream the last: one that is neither the shortest nor the longest.
        let mut last = BTreeMap::new();
        for (partition, record) in work::records_of(side.log()).await {
            if let Some(key) = record.key.clone() {
                last.insert(key, (partition, record));
            }
        }
        // The names of streams that begin with each command are in the order of the commands.
        self.records = Arc::new(last.into_values().collect());
        let raw = RawSide::on(self.new_log().await, LINGER_MS);
        self.sides = Some((side, raw));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let (side, raw) = self.sides.as_ref().expect("they were prepared");
        let ours = self.ask(side, self.span);
        let (mut ours, mut theirs) = in_turn(ours_first, ours, self.theirs(raw)).await;
        let rate = Pair {
            ours: ours.rate,
            theirs: theirs.rate,
        };
        let time = |hundredths| Pair {
            ours: percentile_ms(&mut ours.times, hundredths),
            theirs: percentile_ms(&mut theirs.times, hundredths),
        };
        [rate].into_iter().chain([50, 99].map(time)).collect()
    }

    async fn finish(&mut self) {
        if let Some((side, _)) = self.sides.take() {
            side.stop().await;
        }
    }
}
