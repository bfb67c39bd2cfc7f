//! B1: commands in this process, many in flight, against the same records through the client library.
//! B11: the same on logs of fewer and of more partitions.

use async_trait::async_trait;
use engine::ids::Partition;
use engine::record::NewRecord;

use super::{Bench, Size, one_pair};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::raw::RawProducer;
use crate::work::{self, WriteSide};
use tests::harness::kafka;
use tests::harness::logs::{Kind, NewLog};

const PARTITIONS: u32 = 16;
/// What the client library collects records for, in milliseconds: its own default, for throughput.
const LINGER_MS: u32 = 5;

/// Commands in this process.
pub struct InProcess {
    size: Size,
    commands: usize,
    records: Vec<(Partition, NewRecord)>,
}

impl InProcess {
    pub fn new(size: Size) -> Self {
        Self {
            size,
            commands: size.of(20_000, 200_000),
            records: Vec::new(),
        }
    }
}

#[async_trait(?Send)]
impl Bench for InProcess {
    fn subjects(&self) -> Vec<Subject> {
        vec![Subject {
            row: "B1".to_owned(),
            work: format!("{} commands in process, many in flight", self.commands),
            against: "idempotent producer of the same records".to_owned(),
            unit: Unit::PerSecond,
            goal: Goal::ShareAtLeast(0.6),
        }]
    }

    async fn prepare(&mut self) {
        let side = WriteSide::start(Kind::Kafka, PARTITIONS).await;
        side.commands_per_second(self.size.seed, self.commands)
            .await;
        self.records = work::records_of(&side.stop().await).await;
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let ours = work::commands_on_a_new_log(PARTITIONS, self.size.seed, self.commands);
        let theirs = async {
            let log = NewLog::make(Kind::Kafka, PARTITIONS).await;
            let topic = work::topic(&log);
            let producer = RawProducer::open(kafka::shared().bootstrap(), &topic, LINGER_MS);
            let records = &self.records;
            tokio::task::block_in_place(|| producer.append_all(records))
        };
        one_pair(ours_first, ours, theirs).await
    }
}

/// The same on a log of another number of partitions.
pub struct Partitions {
    size: Size,
    commands: usize,
    partitions: u32,
}

impl Partitions {
    pub fn new(size: Size, partitions: u32) -> Self {
        Self {
            size,
            commands: size.of(15_000, 100_000),
            partitions,
        }
    }

    async fn measure(&self, partitions: u32) -> f64 {
        work::commands_on_a_new_log(partitions, self.size.seed, self.commands).await
    }
}

#[async_trait(?Send)]
impl Bench for Partitions {
    fn subjects(&self) -> Vec<Subject> {
        vec![Subject {
            row: "B11".to_owned(),
            work: format!("commands in process, {} partitions", self.partitions),
            against: format!("{PARTITIONS} partitions"),
            unit: Unit::PerSecond,
            goal: Goal::ShareAtLeast(0.8),
        }]
    }

    async fn prepare(&mut self) {
        self.measure(self.partitions).await;
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let (ours, theirs) = (self.measure(self.partitions), self.measure(PARTITIONS));
        one_pair(ours_first, ours, theirs).await
    }
}
