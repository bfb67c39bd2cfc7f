//! B9, B10 and B11: a log of ten million commits and five million streams, used according to a Zipf
//! distribution; only in the full run.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::EngineOptions;
use engine::command::Request;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};
use tests::harness::logs::{Kind, NewLog};

use super::{Bench, Size, replay};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::machine::resident_mb;
use crate::raw::per_second;
use crate::work::{self, WriteSide};

const PARTITIONS: u32 = 16;
/// The exponent of the Zipf distribution: how unevenly streams are used.
const EXPONENT: f64 = 1.0;
/// How long a start with a local store may take until the first command is answered, in
/// milliseconds.
const RESTART_MAX_MS: f64 = 2_000.0;
/// The approximate memory for one book's state, with its key and its entry, in bytes.
const BOOK_BYTES: usize = 700;
/// How many times the configured memory a process may use.
const MEMORY_TIMES: f64 = 1.25;

/// Books, and how many commands each has had.
struct Books {
    versions: Vec<u32>,
    random: StdRng,
    zipf: Zipf<f64>,
}

impl Books {
    fn new(count: usize, seed: u64) -> Self {
        Self {
            versions: vec![0; count],
            random: StdRng::seed_from_u64(seed),
            zipf: Zipf::new(count as f64, EXPONENT).expect("a distribution"),
        }
    }

    fn next_of(&mut self, book: usize) -> Request {
        let version = self.versions[book];
        self.versions[book] += 1;
        work::lend_or_return(&format!("book-{book}"), version as usize)
    }

    /// The first command of each book.
    fn each(&mut self) -> impl Iterator<Item = Request> {
        (0..self.versions.len()).map(|book| self.next_of(book))
    }

    /// `count` commands on books chosen by the distribution.
    fn used(&mut self, count: usize) -> impl Iterator<Item = Request> {
        (0..count).map(|_| {
            let rank = self.zipf.sample(&mut self.random) as usize;
            // Spread the ranks over the books: otherwise the most used ones would be the oldest.
            let book = rank.wrapping_mul(0x9E37_79B1) % self.versions.len();
            self.next_of(book)
        })
    }
}

/// A long log with many streams.
pub struct Large {
    streams: usize,
    commits: usize,
    /// How many commands are measured at a time.
    measured: usize,
    books: Books,
    log: Option<NewLog>,
}

impl Large {
    pub fn new(size: Size) -> Self {
        let streams = size.of(50_000, 5_000_000);
        Self {
            streams,
            commits: streams * 2,
            measured: size.of(10_000, 100_000),
            books: Books::new(streams, size.seed),
            log: None,
        }
    }

    /// Options with memory for one in `share_of` streams: a quarter of the memory is for states.
    fn options(&self, store: Option<PathBuf>, share_of: usize) -> EngineOptions {
        let memory = self.streams / share_of * BOOK_BYTES * 4;
        EngineOptions {
            memory_bytes: memory.max(engine::MEMORY_BYTES_MIN),
            ..EngineOptions::alone(store)
        }
    }

    /// Starts on the log; returns the write side and the time until the first command is answered.
    async fn restart(&mut self, options: EngineOptions) -> (WriteSide, Duration) {
        let log = self.log.take().expect("it was prepared");
        let began = Instant::now();
        let side = WriteSide::open(log, options).await;
        let command = self.books.used(1);
        side.answered_per_second(command).await;
        (side, began.elapsed())
    }

    /// Commits per second of a replay of the whole log.
    async fn replay(&self) -> f64 {
        let log = self.log.as_ref().expect("it was put back");
        replay::fold_all(log, PARTITIONS).await
    }

    async fn used_per_second(&mut self, side: &WriteSide) -> f64 {
        side.answered_per_second(self.books.used(self.measured))
            .await
    }

    async fn begun_per_second(&self, side: &WriteSide) -> f64 {
        side.commands_per_second(work::fresh_seed(), self.measured)
            .await
    }
}

#[async_trait(?Send)]
impl Bench for Large {
    fn subjects(&self) -> Vec<Subject> {
        let (streams, commits) = (self.streams, self.commits);
        let options = self.options(None, 10);
        let memory_mb = (options.memory_bytes >> 20) as f64;
        let subject = |row: &str, work: String, against: &str, unit, goal| Subject {
            row: row.to_owned(),
            work,
            against: against.to_owned(),
            unit,
            goal,
        };
        vec![
            subject(
                "B9",
                format!("{streams} streams, Zipf, memory for a tenth"),
                "everything in memory, no local store",
                Unit::PerSecond,
                Goal::ShareAtLeast(0.5),
            ),
            subject(
                "B9",
                format!("the same, resident, {memory_mb:.0} MB configured"),
                "",
                Unit::Megabytes,
                Goal::AtMost(memory_mb * MEMORY_TIMES),
            ),
            subject(
                "B10",
                format!("restart on {commits} commits with a checkpoint of all, first answer"),
                "",
                Unit::Milliseconds,
                Goal::AtMost(RESTART_MAX_MS),
            ),
            subject(
                "B10",
                format!("restart on {commits} commits without a checkpoint"),
                "replay of the same log",
                Unit::PerSecond,
                Goal::ShareAtLeast(0.9),
            ),
            subject(
                "B11",
                format!("commands behind {commits} commits"),
                "the same on a young log",
                Unit::PerSecond,
                Goal::ShareAtLeast(0.95),
            ),
        ]
    }

    async fn prepare(&mut self) {
        let log = NewLog::make(Kind::Kafka, PARTITIONS).await;
        let options = self.options(Some(log.store()), 10);
        let side = WriteSide::open(log, options).await;
        side.answered_per_second(self.books.each()).await;
        let used = self.commits - self.streams;
        side.answered_per_second(self.books.used(used)).await;
        self.log = Some(side.stop().await);
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let store = self.log.as_ref().map(NewLog::store);
        let options = self.options(store, 10);
        let (side, restart) = self.restart(options).await;
        // Before the measurement, load the states that are used often into memory again.
        self.used_per_second(&side).await;
        let tenth = self.used_per_second(&side).await;
        let resident = resident_mb();
        let old = self.begun_per_second(&side).await;
        self.log = Some(side.stop().await);

        let log = NewLog::make(Kind::Kafka, PARTITIONS).await;
        let options = self.options(Some(log.store()), 10);
        let side = WriteSide::open(log, options).await;
        self.begun_per_second(&side).await;
        let young = self.begun_per_second(&side).await;
        side.stop().await;

        // The first side gets its memory from the system, the second reuses what was given back.
        let replayed_first = if ours_first {
            None
        } else {
            Some(self.replay().await)
        };
        let ends = work::ends_of(self.log.as_ref().expect("it was put back")).await;
        let records: u64 = ends.iter().map(|(_, end)| end).sum();
        let records = usize::try_from(records).expect("few enough");
        let options = self.options(None, 1);
        let (side, restart_alone) = self.restart(options).await;
        self.used_per_second(&side).await;
        let all = self.used_per_second(&side).await;
        self.log = Some(side.stop().await);
        let replayed = match replayed_first {
            Some(replayed) => replayed,
            None => self.replay().await,
        };
        // Save all commits written without the local store, so that the next restart need not read
        // them.
        let log = self.log.take().expect("it was put back");
        let options = self.options(Some(log.store()), 10);
        self.log = Some(WriteSide::open(log, options).await.stop().await);

        let pair = |ours, theirs| Pair { ours, theirs };
        vec![
            pair(tenth, all),
            pair(resident, 0.0),
            pair(restart.as_secs_f64() * 1_000.0, 0.0),
            pair(per_second(records, restart_alone), replayed),
            pair(old, young),
        ]
    }
}
