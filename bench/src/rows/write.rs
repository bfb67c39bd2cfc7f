//! B1: commands in this process, many in flight, against the same records through the Kafka client
//! library. B11: the same on logs with fewer and with more partitions.

use async_trait::async_trait;
use event_log::record::NewRecord;
use position::Partition;
use tests::harness::logs::Kind;

use super::{Bench, Size, in_turn, one_pair};
use crate::figure::{Goal, Pair, Subject, Unit};
use crate::work::{self, RawSide, WriteSide, fresh_seed};

const PARTITIONS: u32 = 16;
/// How long the client library collects records, in milliseconds: its default, for throughput.
const LINGER_MS: u32 = 5;

/// Commands in this process.
pub struct InProcess {
    commands: usize,
    records: Vec<(Partition, NewRecord)>,
    sides: Option<(WriteSide, RawSide)>,
}

impl InProcess {
    pub fn new(size: Size) -> Self {
        Self {
            commands: size.of(60_000, 300_000),
            records: Vec::new(),
            sides: None,
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
        side.commands_per_second(fresh_seed(), self.commands).await;
        self.records = work::records_of(side.log()).await;
        self.sides = Some((side, RawSide::start(PARTITIONS, LINGER_MS).await));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let (side, raw) = self.sides.as_ref().expect("they were prepared");
        let ours = side.commands_per_second(fresh_seed(), self.commands);
        let theirs = async {
            let records = &self.records;
            tokio::task::block_in_place(|| raw.producer.append_all(records))
        };
        one_pair(ours_first, ours, theirs).await
    }

    async fn finish(&mut self) {
        if let Some((side, _)) = self.sides.take() {
            side.stop().await;
        }
    }
}

/// The other numbers of partitions.
const OTHER_PARTITIONS: [u32; 3] = [1, 4, 64];

/// Commands in this process on logs with other numbers of partitions.
pub struct Partitions {
    commands: usize,
    /// The write side with the usual number, and those with the others.
    sides: Option<(WriteSide, Vec<WriteSide>)>,
}

impl Partitions {
    pub fn new(size: Size) -> Self {
        Self {
            commands: size.of(30_000, 100_000),
            sides: None,
        }
    }

    async fn on(&self, side: &WriteSide) -> f64 {
        side.commands_per_second(fresh_seed(), self.commands).await
    }
}

#[async_trait(?Send)]
impl Bench for Partitions {
    fn subjects(&self) -> Vec<Subject> {
        let one = |partitions: u32| Subject {
            row: "B11".to_owned(),
            work: format!("commands in process, {partitions} partitions"),
            against: format!("{PARTITIONS} partitions"),
            unit: Unit::PerSecond,
            goal: Goal::ShareAtLeast(0.8),
        };
        OTHER_PARTITIONS.map(one).into()
    }

    async fn prepare(&mut self) {
        let usual = WriteSide::start(Kind::Kafka, PARTITIONS).await;
        let mut others = Vec::new();
        for partitions in OTHER_PARTITIONS {
            others.push(WriteSide::start(Kind::Kafka, partitions).await);
        }
        for side in others.iter().chain([&usual]) {
            self.on(side).await;
        }
        self.sides = Some((usual, others));
    }

    async fn round(&mut self, ours_first: bool) -> Vec<Pair> {
        let (usual, others) = self.sides.as_ref().expect("they were prepared");
        let on_others = async {
            let mut rates = Vec::new();
            for other in others {
                rates.push(self.on(other).await);
            }
            rates
        };
        let on_usual = async { vec![self.on(usual).await] };
        let (ours, theirs) = in_turn(ours_first, on_others, on_usual).await;
        let pair = |ours| Pair {
            ours,
            theirs: theirs[0],
        };
        ours.into_iter().map(pair).collect()
    }

    async fn finish(&mut self) {
        let (usual, others) = self.sides.take().expect("they were prepared");
        for side in others.into_iter().chain([usual]) {
            side.stop().await;
        }
    }
}
