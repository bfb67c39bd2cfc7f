//! B7: how long after its answer a command is visible in a read model, with all read models
//! running.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use position::{Partition, Position};
use projector::Projector;
use sqlx::{Connection, PgConnection};
use tests::harness::logs::Kind;
use tests::harness::postgres::Postgres;

use super::{Bench, Size};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::load::{open_loop, percentile_ms};
use crate::work::{self, WAIT, WriteSide, fresh_seed};

const PARTITIONS: u32 = 16;
const PROJECTOR_TASKS: usize = 2;
const RATE: usize = 1_000;
/// As many commands are seen before the measurement: until then, connections are opened and
/// statements are planned.
const WARM_UP: usize = RATE;
/// The pause between two looks at the read model.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// How far the read model has read; its rows correspond to exactly this place.
const PLACES: &str = "SELECT partition, position FROM annals.checkpoint \
                      WHERE projection = 'order_summary'";

/// Answered commands that are not yet visible, by partition, in order.
type Unseen = Arc<Mutex<BTreeMap<Partition, VecDeque<(Position, Instant)>>>>;

/// The time from the answer to the row.
pub struct Freshness {
    commands: usize,
    running: Option<Running>,
}

/// A write side, and a projector that follows it.
struct Running {
    _postgres: Postgres,
    url: String,
    side: WriteSide,
    projector: Projector,
}

impl Freshness {
    pub fn new(size: Size) -> Self {
        Self {
            commands: size.of(2, 20) * RATE,
            running: None,
        }
    }

    async fn measure(&self) -> Vec<Duration> {
        let Running { url, side, .. } = self.running.as_ref().expect("it was prepared");
        let unseen = Unseen::default();
        let count = WARM_UP + self.commands;
        let looking = tokio::spawn(look(url.clone(), Arc::clone(&unseen), count));
        let (engine, seed) = (side.engine.clone(), fresh_seed());
        let asking = open_loop(RATE, count, move |number| {
            let (engine, unseen) = (engine.clone(), Arc::clone(&unseen));
            async move {
                let command = engine.prepare(work::place(seed, number));
                let command = command.expect("a well-formed command");
                let answer = engine.submit(command, Instant::now() + WAIT).await;
                let answer = answer.expect("an accepted command");
                let mut unseen = unseen.lock().unwrap_or_else(PoisonError::into_inner);
                for (partition, position) in answer.position.positions {
                    let queue = unseen.entry(partition).or_default();
                    queue.push_back((position, Instant::now()));
                }
            }
        });
        asking.await;
        let mut seen = looking.await.expect("rows that are seen");
        seen.drain(..WARM_UP);
        seen
    }
}

/// Looks at the read model again and again, until `count` commands were seen; returns the time of
/// each.
async fn look(url: String, unseen: Unseen, count: usize) -> Vec<Duration> {
    let mut connection = PgConnection::connect(&url).await.expect("a database");
    let mut seen = Vec::with_capacity(count);
    let deadline = Instant::now() + WAIT;
    while seen.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} seen", seen.len());
        let places = sqlx::query_as(PLACES).fetch_all(&mut connection).await;
        let places: Vec<(i32, i64)> = places.expect("places");
        seen.extend(seen_now(&unseen, places));
        tokio::time::sleep(LOOK_EVERY).await;
    }
    seen
}

/// The times of the commands that are seen for the first time at these places.
fn seen_now(unseen: &Unseen, places: Vec<(i32, i64)>) -> Vec<Duration> {
    let now = Instant::now();
    let mut unseen = unseen.lock().unwrap_or_else(PoisonError::into_inner);
    let mut seen = Vec::new();
    for (partition, position) in places {
        let partition = Partition(partition.cast_unsigned());
        let reached = Position(position.cast_unsigned());
        let Some(queue) = unseen.get_mut(&partition) else {
            continue;
        };
        // Answers of one partition come nearly in order: a command behind a later one waits for the
        // next look.
        while let Some((position, answered)) = queue.front()
            && *position <= reached
        {
            seen.push(now.saturating_duration_since(*answered));
            queue.pop_front();
        }
    }
    seen
}

#[async_trait(?Send)]
impl Bench for Freshness {
    fn subjects(&self) -> Vec<Subject> {
        let subject = |part: &str, most_ms: f64| Subject {
            row: "B7".to_owned(),
            work: format!("answered to seen in a read model, {RATE}/s, {part}"),
            against: String::new(),
            unit: Unit::Milliseconds,
            goal: Goal::AtMost(most_ms),
        };
        vec![subject("p50", 10.0), subject("p99", 50.0)]
    }

    async fn prepare(&mut self) {
        let postgres = Postgres::start();
        let url = postgres.create_database().await;
        projector::migrate(&url).await.expect("a migrated database");
        let side = WriteSide::start(Kind::Kafka, PARTITIONS).await;
        let models = projector::with_general(projections::all());
        let projector = Projector::spawn(&side.log().log, &url, &models, PROJECTOR_TASKS);
        let projector = projector.expect("a projector");
        while projector.ready().is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.running = Some(Running {
            _postgres: postgres,
            url,
            side,
            projector,
        });
        self.measure().await;
    }

    async fn finish(&mut self) {
        if let Some(running) = self.running.take() {
            let stopped = running.projector.stop().await;
            stopped.expect("a projector that went on");
            running.side.stop().await;
        }
    }

    async fn round(&mut self, _ours_first: bool) -> Vec<Pair> {
        let mut times = self.measure().await;
        let pair = |hundredths| Pair {
            ours: percentile_ms(&mut times, hundredths),
            theirs: 0.0,
        };
        [50, 99].map(pair).into()
    }
}
