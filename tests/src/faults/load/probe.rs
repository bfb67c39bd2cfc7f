//! A client that sends commands to one partition without end, to see for how long nobody answers.
//!
//! Invariant: only final answers count as a sign of an owner. Deliberately absent: what happens to
//! the owner (`moves`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use position::Partition;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

use super::client::{Became, Client};
use super::streams::{Streams, Where};
use super::{Counted, Counts, LoadOptions, Pace, Shared};
use crate::faults::history::History;

/// The pause between an answer and the next command. Without it, a dozen probers would use up a
/// small machine and would measure the wait for a processor.
const PAUSE: Duration = Duration::from_millis(10);
/// Stands for: avoid no node.
const NOBODY: usize = usize::MAX;
/// The rate of a probe is not limited.
const UNLIMITED: u32 = u32::MAX;

/// One attempt of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When the answer arrived, or the attempt failed.
    pub at: Instant,
    /// The code or error if there was no final answer.
    pub instead: Option<String>,
}

/// Sends commands to one partition.
#[derive(Debug)]
pub struct Prober {
    /// The probed partition.
    pub partition: Partition,
    shared: Arc<Shared>,
    sightings: Arc<Mutex<Vec<Sighting>>>,
    avoided: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Starts to probe a partition of a log with `count` partitions.
    #[must_use]
    pub fn begin(
        partition: Partition,
        partition_count: u32,
        options: LoadOptions,
        history: Arc<History>,
    ) -> Self {
        let number = options.clients + partition.0 as usize;
        let seed = options.seed ^ (number as u64) << 40;
        let random = |part: u64| StdRng::seed_from_u64(seed ^ part);
        let shared = Arc::new(Shared {
            pace: Pace::of(UNLIMITED),
            streams: Streams::new(Where::In(partition, partition_count)),
            counts: Counts::default(),
            is_stopping: AtomicBool::new(false),
            history,
            options,
        });
        let sightings = Arc::<Mutex<Vec<Sighting>>>::default();
        let avoided = Arc::new(AtomicUsize::new(NOBODY));
        let task = tokio::spawn(probe(
            Client::new(number, Arc::clone(&shared), random(0)),
            Arc::clone(&shared),
            Arc::clone(&sightings),
            Arc::clone(&avoided),
            random(1),
        ));
        Self {
            partition,
            shared,
            sightings,
            avoided,
            task,
        }
    }

    /// From now on, sends to every node except this one.
    pub fn avoid(&self, node: Option<usize>) {
        self.avoided.store(node.unwrap_or(NOBODY), Ordering::SeqCst);
    }

    /// All attempts that ended after `moment`.
    #[must_use]
    pub fn since(&self, moment: Instant) -> Vec<Sighting> {
        let sightings = self.sightings.lock();
        let sightings = sightings.unwrap_or_else(PoisonError::into_inner);
        let first = sightings.partition_point(|sighting| sighting.at < moment);
        sightings[first..].to_vec()
    }

    /// Stops, and waits until the open command is answered.
    ///
    /// # Panics
    /// If the prober panicked.
    pub async fn stop(self) -> Counted {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        self.task.await.expect("a prober does not panic");
        self.shared.counts.now()
    }
}

async fn probe(
    mut client: Client,
    shared: Arc<Shared>,
    sightings: Arc<Mutex<Vec<Sighting>>>,
    avoided: Arc<AtomicUsize>,
    mut random: StdRng,
) {
    let nodes = shared.options.nodes.len();
    while !shared.is_stopping.load(Ordering::SeqCst) {
        let asked = shared.streams.ask(&mut random);
        shared.counts.invoked.fetch_add(1, Ordering::SeqCst);
        let mut is_open = true;
        while is_open {
            let avoided = avoided.load(Ordering::SeqCst);
            let node = match random.random_range(0..nodes) {
                node if node == avoided => (node + 1) % nodes,
                node => node,
            };
            let instead = match client.send_one(node, &asked).await {
                Became::Done => None,
                Became::Open(said) => Some(said),
            };
            is_open = instead.is_some();
            let at = Instant::now();
            sightings
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Sighting { at, instead });
            tokio::time::sleep(PAUSE).await;
        }
    }
}
