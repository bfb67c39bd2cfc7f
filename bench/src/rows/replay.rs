//! B5: reading a log, verifying its chain, decoding and folding it, against a consumer that counts
//! bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::ids::Partition;
use engine::subscription::Subscription;
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::stack::shop;

use super::{Bench, Size, one_pair};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::raw::{count_all, per_second};
use crate::work::{self, WriteSide};

/// How long the next piece may take.
const WAIT: Duration = Duration::from_secs(60);

/// A whole log, read from its beginning.
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
            commands: size.of(50_000, 300_000),
            log: None,
        }
    }

    fn log(&self) -> &NewLog {
        self.log.as_ref().expect("it was prepared")
    }

    /// How many commits were folded in a second.
    async fn fold(&self) -> f64 {
        let log = &self.log().log;
        let registry = shop();
        let partitions = (0..self.partitions).map(|number| (Partition(number), None));
        let began = Instant::now();
        let mut subscription = Subscription::new(Arc::clone(log), partitions.collect());
        let mut states = HashMap::new();
        let mut commits = 0;
        while commits < self.commands {
            let batches = subscription.next(WAIT).await.expect("a log that is whole");
            assert!(!batches.is_empty(), "the log has more");
            for batch in batches {
                for placed in &batch.commits {
                    let commit = &placed.commit;
                    let aggregate = registry.get(commit.stream.category());
                    let aggregate = aggregate.expect("an aggregate of the shop");
                    let state = states
                        .entry(commit.key())
                        .or_insert_with(|| aggregate.initial());
                    for event in &commit.events {
                        let (name, data) = (&event.type_name, event.data.get());
                        aggregate
                            .evolve_recorded(state, name, event.schema, data, commit.occurred_at())
                            .expect("an event of the shop");
                    }
                    commits += 1;
                }
                subscription.made_durable(batch.partition, batch.after);
            }
        }
        per_second(commits, began.elapsed())
    }

    async fn count(&self) -> f64 {
        let log = self.log();
        let mut ends = Vec::new();
        for partition in (0..self.partitions).map(Partition) {
            let bounds = log.log.bounds(partition).await.expect("a log that answers");
            ends.push((partition, bounds.end.0));
        }
        let topic = work::topic(log);
        tokio::task::block_in_place(|| count_all(kafka::shared().bootstrap(), &topic, &ends))
    }
}

#[async_trait]
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
        self.fold().await;
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        one_pair(ours_first, self.fold(), self.count()).await
    }
}
