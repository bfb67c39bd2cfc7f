//! B15: read models as they were. What it costs to keep their past, and how fast it can be asked.
//!
//! The price of each policy is a ratio to the same read model without a past, made from the same log
//! in the same round. Questions go over HTTP to a node of its own, on a history of all kinds of
//! events; no question comes twice. Deliberately absent: whether the answers are right (`make past`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ::tests::harness::logs::{Kind, NewLog};
use ::tests::harness::postgres::Postgres;
use async_trait::async_trait;
use projector::{History, Projection};
use rand::seq::SliceRandom as _;
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use super::projection::connect;
use super::{Bench, Size};
use crate::apart::{self, Apart, Job};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::models::{customers, orders};
use crate::raw::per_second;
use crate::work::WriteSide;

const PARTITIONS: u32 = 4;

/// A read model whose past is kept, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Each event has a row of its own.
    Own,
    /// Many events share a row.
    Shared,
}

impl Shape {
    const ALL: [Self; 2] = [Self::Own, Self::Shared];

    fn projection(self, history: History) -> Arc<dyn Projection> {
        match self {
            Self::Own => Arc::new(orders(history)),
            Self::Shared => Arc::new(customers(history)),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Own => "a row an event",
            Self::Shared => "some 1,000 events a row",
        }
    }

    /// What is kept of its past, with the least share of the speed, and the most bytes of disk that an
    /// event may take more. A coarse history of rows with one version each is a full one.
    fn policies(self) -> &'static [(History, f64, f64)] {
        match self {
            Self::Own => &[(History::Full, 0.4, 450.0)],
            Self::Shared => &[
                (History::Full, 0.2, 250.0),
                (History::Second, 0.5, 25.0),
                (History::Minute, 0.5, 25.0),
                (History::Day, 0.5, 25.0),
            ],
        }
    }
}

/// What keeping the past costs.
pub struct Kept {
    size: Size,
    commands: usize,
    prepared: Option<(NewLog, Postgres)>,
}

impl Kept {
    pub fn new(size: Size) -> Self {
        Self {
            size,
            commands: size.of(100_000, 500_000),
            prepared: None,
        }
    }

    /// The speed of a live projection from the whole log, and what its tables then take for an event.
    async fn measure(&self, shape: Shape, history: History) -> (f64, f64) {
        let (log, postgres) = self.prepared.as_ref().expect("it was prepared");
        let url = postgres.create_database().await;
        projector::migrate(&url).await.expect("a migrated database");
        let projections = [shape.projection(history)];
        let began = Instant::now();
        let done = projector::catch_up(&log.log, &url, &projections, Box::new(|_| {}));
        done.await.expect("rows");
        let took = began.elapsed();
        let bytes: i64 = sqlx::query_scalar(
            "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class \
             WHERE relnamespace = 'projection'::regnamespace AND relkind = 'r'",
        )
        .fetch_one(&mut connect(&url).await)
        .await
        .expect("a size");
        (
            per_second(self.commands, took),
            bytes as f64 / self.commands as f64,
        )
    }
}

#[async_trait(?Send)]
impl Bench for Kept {
    fn subjects(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for shape in Shape::ALL {
            for (history, speed, disk) in shape.policies() {
                let subject = |what: &str, unit, goal| Subject {
                    row: "B15".to_owned(),
                    work: format!("{what}, {}, history {}", shape.words(), history.name()),
                    against: "history off".to_owned(),
                    unit,
                    goal,
                };
                subjects.push(subject(
                    "live projection",
                    Unit::PerSecond,
                    Goal::ShareAtLeast(*speed),
                ));
                let disk = Goal::AboveAtMost(*disk);
                subjects.push(subject("disk for an event", Unit::BytesAnEvent, disk));
            }
        }
        subjects
    }

    async fn prepare(&mut self) {
        let side = WriteSide::start(Kind::Kafka, PARTITIONS).await;
        side.commands_per_second(self.size.seed, self.commands)
            .await;
        self.prepared = Some((side.stop().await, Postgres::start()));
        self.measure(Shape::Own, History::Full).await;
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for shape in Shape::ALL {
            let mut without = None;
            if !ours_first {
                without = Some(self.measure(shape, History::Off).await);
            }
            let mut with = Vec::new();
            for (history, ..) in shape.policies() {
                with.push(self.measure(shape, *history).await);
            }
            let without = match without {
                Some(without) => without,
                None => self.measure(shape, History::Off).await,
            };
            for (speed, disk) in with {
                pairs.push(Pair {
                    ours: speed,
                    theirs: without.0,
                });
                pairs.push(Pair {
                    ours: disk,
                    theirs: without.1,
                });
            }
        }
        pairs
    }

    async fn finish(&mut self) {
        self.prepared = None;
    }
}

/// How many questions are asked at the same time.
const CONNECTIONS: usize = 4;
/// The rows of a page.
const PAGE: usize = 100;

/// A question about the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// A row by its key.
    Row,
    /// The first rows whose keys have a beginning, which most keys share, in the order of their keys.
    Page,
}

impl Question {
    const ALL: [Self; 2] = [Self::Row, Self::Page];

    /// What has a moment to ask for: a version of a row, which exists from then on, or a commit.
    fn moments(self, model: &str) -> (String, &'static str) {
        match self {
            Self::Row => (format!("read_history.{model}"), "version_from"),
            Self::Page => ("read.stream_commits".to_owned(), "recorded_at"),
        }
    }

    /// The read models, with what stands in a path: a row's key, or the beginning of keys.
    fn models(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Row => &[
                ("order_summary", "order_id"),
                ("customer_orders", "customer_id"),
                ("seller_sales", "seller_id || ',' || currency"),
                ("daily_sales", "day || ',' || currency"),
            ],
            Self::Page => &[
                ("order_summary", "'order_id.prefix=' || left(order_id, 2)"),
                (
                    "customer_orders",
                    "'customer_id.prefix=' || left(customer_id, 2)",
                ),
            ],
        }
    }

    fn path(self, model: &str, key: &str, moment: &str) -> String {
        match self {
            Self::Row => format!("/v1/read/{model}/{key}?as_of={moment}"),
            Self::Page => format!("/v1/read/{model}?{key}&limit={PAGE}&as_of={moment}"),
        }
    }
}

/// How fast the past is shown.
pub struct Asked {
    size: Size,
    events: usize,
    prepared: Option<Prepared>,
}

struct Prepared {
    folder: TempDir,
    postgres: Postgres,
    url: String,
    door: Apart,
}

impl Asked {
    pub fn new(size: Size) -> Self {
        Self {
            size,
            events: size.of(100_000, 1_000_000),
            prepared: None,
        }
    }

    /// Questions about random rows, each as of a moment of its own.
    async fn paths(&self, question: Question) -> PathBuf {
        let Prepared { folder, url, .. } = self.prepared.as_ref().expect("it was prepared");
        let models = question.models();
        let each = self.size.of(1_000, 4_000) / models.len();
        let mut connection = connect(url).await;
        let mut some = async |columns: &str, of: &str| -> Vec<(String, String)> {
            let sql = format!(
                "SELECT {columns} FROM (SELECT * FROM {of} ORDER BY random() LIMIT {each}) AS picked"
            );
            let found = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut connection);
            found.await.expect("keys and moments")
        };
        let mut lines = Vec::new();
        for (model, key) in models {
            let (of, moment) = question.moments(model);
            let moment = format!(
                "to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
            );
            let pairs = match question {
                Question::Row => some(&format!("{key}, {moment}"), &of).await,
                Question::Page => {
                    let keys = some(&format!("{key}, ''"), &format!("read.{model}")).await;
                    let moments = some(&format!("'', {moment}"), &of).await;
                    let pairs = keys.into_iter().zip(moments);
                    pairs.map(|((key, _), (_, moment))| (key, moment)).collect()
                }
            };
            let pairs = pairs.iter();
            lines.extend(pairs.map(|(key, moment)| question.path(model, key, moment)));
        }
        lines.shuffle(&mut rand::rng());
        let file = folder.path().join("paths");
        std::fs::write(&file, lines.join("\n")).expect("a folder of ours can be written to");
        file
    }
}

#[async_trait(?Send)]
impl Bench for Asked {
    fn subjects(&self) -> Vec<Subject> {
        let of = |question, part: &str, most_ms| Subject {
            row: "B15".to_owned(),
            work: match question {
                Question::Row => format!("a row as of a moment of {} events, {part}", self.events),
                Question::Page => format!("a page of {PAGE} rows as of a moment, {part}"),
            },
            against: String::new(),
            unit: Unit::Milliseconds,
            goal: Goal::AtMost(most_ms),
        };
        vec![
            of(Question::Row, "p50", 5.0),
            of(Question::Row, "p99", 20.0),
            of(Question::Page, "p50", 50.0),
            of(Question::Page, "p99", 100.0),
        ]
    }

    async fn prepare(&mut self) {
        let postgres = Postgres::start();
        let url = postgres.create_database().await;
        projector::migrate(&url).await.expect("a migrated database");
        let node = Apart::node(PARTITIONS).await;
        apart::generate(&node, self.size.seed, self.events).await;
        let log = node.stop().await;
        let models = projector::with_general(projections::all());
        let done = projector::catch_up(&log.log, &url, &models, Box::new(|_| {}));
        done.await.expect("rows");
        let mut connection = connect(&url).await;
        let vacuumed = sqlx::raw_sql("VACUUM ANALYZE").execute(&mut connection);
        vacuumed.await.expect("tables in good order");
        self.prepared = Some(Prepared {
            folder: tempfile::tempdir().expect("a temporary folder"),
            door: Apart::query_node(&url, log).await,
            postgres,
            url,
        });
        self.round(true).await;
    }

    async fn round(&mut self, _ours_first: bool) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for question in Question::ALL {
            let file = self.paths(question).await;
            let door = &self.prepared.as_ref().expect("it was prepared").door;
            let loaded = apart::load(Job::Paths {
                address: door.address,
                connections: CONNECTIONS,
                file,
            });
            let loaded = loaded.await;
            pairs.extend([loaded.p50_ms, loaded.p99_ms].map(|ours| Pair { ours, theirs: 0.0 }));
        }
        pairs
    }

    async fn finish(&mut self) {
        if let Some(Prepared { door, postgres, .. }) = self.prepared.take() {
            drop(door);
            drop(postgres);
        }
    }
}
