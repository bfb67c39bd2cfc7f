//! B16: an export of all events as Parquet, against a bare accepted read of the same log.
//!
//! Each side is a process of its own, timed from its start to its end. The bare read is what an export
//! does before it makes rows: partition after partition, held against the chain. Deliberately absent:
//! whether the files are right (`annals export verify`, and the tests of exports).

use std::sync::Arc;

use ::tests::harness::logs::NewLog;
use async_trait::async_trait;
use event_log::accepted::Accepted;
use event_log::log::LogAddress;
use position::Partition;

use super::{Bench, Size, in_turn};
use crate::apart::{self, Apart};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::raw::per_second;

const PARTITIONS: u32 = 4;
/// The most memory of an export, in megabytes.
const MEMORY_MAX_MB: f64 = 512.0;

/// Reads every commit that counts, and does nothing with it. Returns how many events there are.
pub async fn read(log: &str) -> usize {
    let address: LogAddress = log.parse().expect("the address of a log");
    let log = event_log::log::open(&address).await.expect("a log");
    let mut events = 0;
    for partition in (0..log.partition_count()).map(Partition) {
        let end = log.bounds(partition).await.expect("bounds").end;
        let reader = Accepted::open(Arc::clone(&log), partition, None, end).await;
        let mut reader = reader.expect("a reader from the beginning");
        while let Some(batch) = reader.next().await.expect("a log without damage") {
            let commits = batch.commits.iter();
            events += commits
                .map(|placed| placed.commit.events.len())
                .sum::<usize>();
        }
    }
    events
}

/// An export beside a bare read.
pub struct Exported {
    size: Size,
    events: usize,
    log: Option<NewLog>,
}

impl Exported {
    pub fn new(size: Size) -> Self {
        Self {
            size,
            events: size.of(100_000, 1_000_000),
            log: None,
        }
    }
}

#[async_trait(?Send)]
impl Bench for Exported {
    fn subjects(&self) -> Vec<Subject> {
        let subject = |work: String, against: &str, unit, goal| Subject {
            row: "B16".to_owned(),
            work,
            against: against.to_owned(),
            unit,
            goal,
        };
        vec![
            subject(
                format!("export of {} events as Parquet", self.events),
                "accepted read of the same log",
                Unit::PerSecond,
                Goal::ShareAtLeast(0.5),
            ),
            subject(
                "the same, the most memory".to_owned(),
                "",
                Unit::Megabytes,
                Goal::AtMost(MEMORY_MAX_MB),
            ),
        ]
    }

    async fn prepare(&mut self) {
        let node = Apart::node(PARTITIONS).await;
        apart::generate(&node, self.size.seed, self.events).await;
        self.log = Some(node.stop().await);
        self.round(true).await;
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let log = self.log.as_ref().expect("it was prepared");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let export = async {
            let exported = apart::export(log, &folder.path().join("events")).await;
            (None, exported)
        };
        let read = async {
            let (events, took) = apart::read(log).await;
            (Some(events), (took, 0.0))
        };
        let ((_, (exporting, memory)), (events, (reading, _))) =
            in_turn(ours_first, export, read).await;
        let events = events.expect("the read counts them");
        assert!(events >= self.events, "the log has {events} events");
        vec![
            Pair {
                ours: per_second(events, exporting),
                theirs: per_second(events, reading),
            },
            Pair {
                ours: memory,
                theirs: 0.0,
            },
        ]
    }

    async fn finish(&mut self) {
        self.log = None;
    }
}
