//! B5: reading a log, verifying its chain, decoding and folding it, against a consumer that counts
//! bytes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use event_log::keyed::Keyed;
use event_log::log::EventLog;
use event_log::subscription::Subscription;
use kernel::registry::Opaque;
use lending::Book;
use position::Partition;
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::stack::shop;

use super::{Bench, Size, one_pair};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::machine::processors;
use crate::raw::{count_all, per_second};
use crate::work::{self, WriteSide};

/// How long the next batch may take.
const WAIT: Duration = Duration::from_secs(60);

/// B5: a whole log, read from its beginning.
pub struct Replay {
    size: Size,
    partitions: u32,
    commands: usize,
    log: Option<NewLog>,
}

impl Replay {
    pub fn new(size: Size, partitions: u32) -> Self {
        Self {
            size,
            partitions,
            commands: size.of(100_000, 500_000),
            log: None,
        }
    }

    fn log(&self) -> &NewLog {
        self.log.as_ref().expect("it was prepared")
    }

    async fn count(&self) -> f64 {
        let log = self.log();
        let ends = work::ends_of(log).await;
        let topic = work::topic(log);
        tokio::task::block_in_place(|| count_all(kafka::shared().bootstrap(), &topic, &ends))
    }
}

/// How many commits of a log were folded per second, measured from the first commit. The partitions
/// are divided among at most as many tasks as there are processors, as a projector does it.
pub async fn fold_all(log: &NewLog, partitions: u32) -> f64 {
    let tasks = (partitions as usize).min(processors());
    let began = Arc::new(OnceLock::new());
    let folding = (0..tasks).map(|task| {
        let partitions = (0..partitions).map(Partition);
        let share: Vec<Partition> = partitions.skip(task).step_by(tasks).collect();
        tokio::spawn(fold(Arc::clone(&log.log), share, Arc::clone(&began)))
    });
    let folded = futures::future::join_all(folding).await;
    let took = began.get().expect("commits came").elapsed();
    let folded = folded.into_iter();
    let commits = folded
        .map(|folded| folded.expect("a log that can be folded").commits)
        .sum();
    per_second(commits, took)
}

/// The result of a fold: the number of commits, and the states.
struct Folded {
    commits: usize,
    _states: Keyed<Opaque, Box<[u8]>>,
}

/// Folds some partitions up to their present ends, and notes when the first commit came.
async fn fold(
    log: Arc<dyn EventLog>,
    partitions: Vec<Partition>,
    began: Arc<OnceLock<Instant>>,
) -> Folded {
    let registry = shop().with::<Book>();
    let mut missing = HashMap::new();
    for partition in &partitions {
        let bounds = log.bounds(*partition).await.expect("a log that answers");
        if bounds.end > bounds.first {
            missing.insert(*partition, bounds.end);
        }
    }
    let from = missing.keys().map(|partition| (*partition, None)).collect();
    let mut subscription = Subscription::new(log, from);
    let mut states: Keyed<Opaque, Box<[u8]>> = Keyed::default();
    let mut commits = 0;
    while !missing.is_empty() {
        let batches = subscription.next(WAIT).await.expect("a log that is whole");
        assert!(!batches.is_empty(), "the log has more");
        began.get_or_init(Instant::now);
        for batch in batches {
            commits += batch.commits.len();
            for placed in &batch.commits {
                let commit = &placed.commit;
                let aggregate = registry.get(commit.stream.category());
                let aggregate = aggregate.expect("an aggregate of the shop");
                let key = placed.record.key.as_deref().unwrap_or_default();
                // Copy the key: the record's own bytes share a piece of memory with other records.
                let state = states
                    .entry(key.into())
                    .or_insert_with(|| aggregate.initial().expect("a state of the shop"));
                for event in &commit.events {
                    let (name, data) = (&event.type_name, event.data.get());
                    aggregate
                        .evolve_recorded(state, name, event.schema, data, commit.occurred_at(event))
                        .expect("an event of the shop");
                }
            }
            if Some(batch.after.offset.next()) == missing.get(&batch.partition).copied() {
                missing.remove(&batch.partition);
            }
        }
    }
    Folded {
        commits,
        _states: states,
    }
}

#[async_trait(?Send)]
impl Bench for Replay {
    fn subjects(&self) -> Vec<Subject> {
        let several = self.partitions > 1;
        vec![Subject {
            row: "B5".to_owned(),
            work: format!(
                "replay of {} commits on {} partition{}",
                self.commands,
                self.partitions,
                if several { "s" } else { "" }
            ),
            against: "consumer that counts bytes".to_owned(),
            unit: Unit::PerSecond,
            goal: Goal::ShareAtLeast(if several { 0.6 } else { 0.4 }),
        }]
    }

    async fn prepare(&mut self) {
        let side = WriteSide::start(Kind::Kafka, self.partitions).await;
        side.commands_per_second(self.size.seed, self.commands)
            .await;
        self.log = Some(side.stop().await);
        fold_all(self.log(), self.partitions).await;
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        one_pair(
            ours_first,
            fold_all(self.log(), self.partitions),
            self.count(),
        )
        .await
    }
}
