//! B14: live projection beside a rebuild, against the same without one. The node, the load and the
//! rebuild are processes of their own, and the rows are looked at from outside.
//!
//! The rebuild is begun anew whenever it has switched, so that one is always under way. Deliberately
//! absent: how fast a rebuild is by itself (`projection`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use tests::harness::postgres::Postgres;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Bench, Size, in_turn};
use crate::apart::{self, Apart, Job};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::load::{Connection as Door, percentile_ms};
use crate::raw::per_second;
use crate::work::{self, WAIT, fresh_seed};

const PARTITIONS: u32 = 16;
/// The read model that is rebuilt.
const REBUILT: &str = "order_summary";
/// How many commands a second the load gives while single rows are watched.
const RATE: usize = 500;
/// How many commands a second are watched until their rows are there.
const WATCHED: usize = 50;
/// The pause between two looks at the rows.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How many commits the read model that is furthest behind has taken up.
const TAKEN_UP: &str = "SELECT coalesce(min(taken_up), 0)::bigint FROM \
    (SELECT sum(c.position) AS taken_up FROM annals.generation AS g \
     JOIN annals.checkpoint AS c USING (projection, generation) \
     WHERE g.state = 'live' GROUP BY g.projection) AS live";
/// Which of these orders have a row.
const THERE: &str = "SELECT order_id FROM read.order_summary WHERE order_id = ANY($1)";
/// Whether a rebuild has begun and not ended.
const BUILDING: &str = "SELECT EXISTS (SELECT FROM annals.generation WHERE state = 'building')";

/// Live projection with and without a rebuild beside.
pub struct Beside {
    history: usize,
    burst: usize,
    watched_for_seconds: usize,
    running: Option<Running>,
}

struct Running {
    // In the order of dropping: the node before its Postgres.
    node: Apart,
    url: String,
    _postgres: Postgres,
}

/// What one side shows.
struct Measured {
    /// Commits in the rows of every live read model, per second.
    per_second: f64,
    /// From the answer to the row.
    p99_ms: f64,
}

/// Rebuilds, one after the other, until they are ended.
struct Rebuilding {
    stop: watch::Sender<bool>,
    task: JoinHandle<u32>,
}

impl Rebuilding {
    /// Begins, and waits until the new tables are being filled.
    async fn begin(running: &Running) -> Self {
        let (stop, stopped) = watch::channel(false);
        let log = running.node.log().address.to_string();
        let url = running.url.clone();
        let task = tokio::spawn(async move {
            let mut rebuilt = 0;
            // The last one is waited for: what is left of it must not reach the other side.
            while !*stopped.borrow() {
                let ended = apart::rebuild(REBUILT, &log, &url).wait().await;
                let ended = ended.expect("a child of ours can be waited for");
                assert!(ended.success(), "the rebuild failed: {ended}");
                rebuilt += 1;
            }
            rebuilt
        });
        let mut connection = connect(&running.url).await;
        let deadline = Instant::now() + WAIT;
        while !is_building(&mut connection).await {
            assert!(Instant::now() < deadline, "no rebuild begins");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Self { stop, task }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        let rebuilt = self.task.await.expect("rebuilds that go on");
        eprintln!("    {rebuilt} rebuilds beside");
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("a database")
}

async fn is_building(connection: &mut PgConnection) -> bool {
    let building = sqlx::query_scalar(BUILDING).fetch_one(connection).await;
    building.expect("the state of the generations")
}

async fn taken_up(connection: &mut PgConnection) -> i64 {
    let taken_up = sqlx::query_scalar(TAKEN_UP).fetch_one(connection).await;
    taken_up.expect("places")
}

impl Running {
    /// Gives so many commands in one batch, and waits until each is in the rows of every read model.
    async fn burst(&self, count: usize) -> f64 {
        let mut connection = connect(&self.url).await;
        let before = taken_up(&mut connection).await;
        let began = Instant::now();
        let loading = tokio::spawn(apart::load(Job::Batch {
            address: self.node.address,
            count,
            seed: fresh_seed(),
        }));
        let all = before + i64::try_from(count).expect("a number of commands");
        while taken_up(&mut connection).await < all {
            assert!(began.elapsed() < WAIT, "rows are missing");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let took = began.elapsed();
        loading.await.expect("a load that ends");
        per_second(count, took)
    }

    /// From the answer of single commands to their rows, while others are given.
    async fn watched(&self, seconds: usize) -> f64 {
        let address = self.node.address;
        let loading = tokio::spawn(apart::load(Job::Paced {
            address,
            rate: RATE,
            count: seconds * RATE,
            seed: fresh_seed(),
        }));
        let (answered, waiting) = mpsc::unbounded_channel();
        let looking = tokio::spawn(look(self.url.clone(), waiting));
        let (mut door, seed) = (Door::open(address).await, fresh_seed());
        let body: bytes::Bytes = work::order(0).to_string().into();
        let began = Instant::now();
        for number in 0..seconds * WATCHED {
            let due = began
                + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX)
                    / u32::try_from(WATCHED).unwrap_or(1);
            tokio::time::sleep_until(due.into()).await;
            let stream = work::stream(seed, number);
            let path = format!("/v1/streams/{stream}/PlaceOrder");
            door.post(&path, &format!("place-{number}"), body.clone())
                .await;
            let order = stream.trim_start_matches("order-").to_owned();
            let _ = answered.send((order, Instant::now()));
        }
        drop(answered);
        let mut times = looking.await.expect("rows that are seen");
        loading.await.expect("a load that ends");
        percentile_ms(&mut times, 99)
    }

    async fn measure(&self, bench: &Beside) -> Measured {
        Measured {
            per_second: self.burst(bench.burst).await,
            p99_ms: self.watched(bench.watched_for_seconds).await,
        }
    }

    async fn measure_beside(&self, bench: &Beside) -> Measured {
        let rebuilding = Rebuilding::begin(self).await;
        let measured = self.measure(bench).await;
        rebuilding.end().await;
        measured
    }
}

/// Looks at the rows again and again until all orders that come have one; returns the time of each.
async fn look(
    url: String,
    mut orders: mpsc::UnboundedReceiver<(String, Instant)>,
) -> Vec<Duration> {
    let mut connection = connect(&url).await;
    let mut unseen: HashMap<String, Instant> = HashMap::new();
    let mut times = Vec::new();
    let deadline = Instant::now() + WAIT;
    loop {
        if unseen.is_empty() {
            match orders.recv().await {
                Some((order, answered)) => unseen.insert(order, answered),
                None => return times,
            };
        }
        while let Ok((order, answered)) = orders.try_recv() {
            unseen.insert(order, answered);
        }
        assert!(
            Instant::now() < deadline,
            "{} rows are missing",
            unseen.len()
        );
        let asked: Vec<&String> = unseen.keys().collect();
        let there = sqlx::query_scalar(THERE)
            .bind(asked)
            .fetch_all(&mut connection);
        let there: Vec<String> = there.await.expect("rows");
        let now = Instant::now();
        for order in there {
            let answered = unseen.remove(&order);
            times.extend(answered.map(|answered| now.saturating_duration_since(answered)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Beside {
    pub fn new(size: Size) -> Self {
        Self {
            history: size.of(50_000, 300_000),
            burst: size.of(10_000, 50_000),
            watched_for_seconds: size.of(3, 10),
            running: None,
        }
    }
}

#[async_trait(?Send)]
impl Bench for Beside {
    fn subjects(&self) -> Vec<Subject> {
        let subject = |work: String, unit, goal| Subject {
            row: "B14".to_owned(),
            work,
            against: "the same without a rebuild".to_owned(),
            unit,
            goal,
        };
        vec![
            subject(
                format!(
                    "{} commands in a batch to the rows of all read models, beside a rebuild",
                    self.burst
                ),
                Unit::PerSecond,
                // The live rows and the rebuild share the processors and Postgres.
                Goal::ShareAtLeast(0.5),
            ),
            subject(
                format!(
                    "answered to a row at {}/s, beside a rebuild, p99",
                    RATE + WATCHED
                ),
                Unit::Milliseconds,
                Goal::Shown,
            ),
        ]
    }

    async fn prepare(&mut self) {
        let postgres = Postgres::start();
        let url = postgres.create_database().await;
        projector::migrate(&url).await.expect("a migrated database");
        let running = Running {
            node: Apart::whole_node(&url, PARTITIONS).await,
            url,
            _postgres: postgres,
        };
        // The history that is rebuilt, and a warm-up.
        running.burst(self.history).await;
        running.watched(1).await;
        self.running = Some(running);
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let running = self.running.as_ref().expect("it was prepared");
        let measured = in_turn(
            ours_first,
            running.measure_beside(self),
            running.measure(self),
        );
        let (ours, theirs) = measured.await;
        let pair = |ours, theirs| Pair { ours, theirs };
        vec![
            pair(ours.per_second, theirs.per_second),
            pair(ours.p99_ms, theirs.p99_ms),
        ]
    }

    async fn finish(&mut self) {
        self.running = None;
    }
}
