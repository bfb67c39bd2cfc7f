//! The kinds of measurements, one per file, named by the rows of the goals.

mod beside;
mod closed;
mod embedded;
pub mod export;
mod freshness;
pub mod http;
mod large;
mod past;
mod peers;
mod projection;
pub mod query;
mod replay;
pub mod slow;
mod write;

use async_trait::async_trait;

use crate::figure::{Pair, Subject};

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Whether it is the short run.
    pub quick: bool,
    /// The seed of what is written.
    pub seed: u64,
}

impl Size {
    /// The number for the short run, or the number for the full run.
    #[must_use]
    pub fn of(self, quick: usize, full: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

/// One kind of measurement.
#[async_trait(?Send)]
pub trait Bench {
    /// What it measures, in the order of the pairs of each round.
    fn subjects(&self) -> Vec<Subject>;

    /// Prepares all rounds once. A measurement in here does not count: it only warms everything up.
    async fn prepare(&mut self);

    /// Measures both sides once; `ours_first` gives the order.
    async fn round(&mut self, ours_first: bool) -> Vec<Pair>;

    /// Stops what the rounds needed, so that it does not disturb the next bench.
    async fn finish(&mut self) {}
}

/// All benches of a run.
#[must_use]
pub fn all(size: Size) -> Vec<Box<dyn Bench>> {
    let mut all: Vec<Box<dyn Bench>> = vec![
        Box::new(write::InProcess::new(size)),
        Box::new(http::Paced::new(size)),
        Box::new(http::Single::new(size)),
        Box::new(http::Batch::new(size)),
        Box::new(replay::Replay::new(size, 1)),
        Box::new(replay::Replay::new(size, 8)),
        Box::new(projection::Rows::new(size)),
        Box::new(freshness::Freshness::new(size)),
        Box::new(closed::Closed::new(size)),
        Box::new(query::Queries::new(size)),
        Box::new(beside::Beside::new(size)),
        Box::new(past::Kept::new(size)),
        Box::new(past::Asked::new(size)),
        Box::new(export::Exported::new(size)),
        Box::new(slow::Followed::new(size)),
    ];
    for one_by_one in [false, true] {
        all.push(Box::new(embedded::Embedded::new(size, one_by_one)));
    }
    all.push(Box::new(write::Partitions::new(size)));
    if size.quick {
        return all;
    }
    all.push(Box::new(closed::Closed::flushed(size)));
    if peers::are_built() {
        for flushed in [false, true] {
            all.push(Box::new(peers::Peers::new(size, flushed)));
        }
        all.push(Box::new(peers::KafkaStreams::new(size)));
    } else {
        eprintln!("without the peers, which `make peers` builds");
    }
    all.push(Box::new(large::Large::new(size)));
    all
}

/// The one pair of a bench that measures one value on each side.
async fn one_pair(
    ours_first: bool,
    ours: impl Future<Output = f64>,
    theirs: impl Future<Output = f64>,
) -> Vec<Pair> {
    let (ours, theirs) = in_turn(ours_first, ours, theirs).await;
    vec![Pair { ours, theirs }]
}

/// Measures both sides, in the given order.
async fn in_turn<T>(
    ours_first: bool,
    ours: impl Future<Output = T>,
    theirs: impl Future<Output = T>,
) -> (T, T) {
    if ours_first {
        let first = ours.await;
        (first, theirs.await)
    } else {
        let first = theirs.await;
        (ours.await, first)
    }
}
