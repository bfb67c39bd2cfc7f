//! What all parts of the trial share: the log, the progress, and the present phase.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_log::log::EventLog;
use position::LogId;
use rand::RngExt as _;
use tokio::sync::watch;

/// How long a claimant waits after a lost claim before it claims again, in milliseconds.
const BACK_OFF_MS: std::ops::Range<u64> = 10..60;

/// The connections of this process to the brokers.
pub trait Connections: Send + Sync + 'static {
    /// Ends all connections, with whatever is in transit, and returns their number. The clients are
    /// not told; they notice by themselves.
    fn cut(&self) -> usize;
}

/// The phases of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// All lanes write, and faults are injected.
    Working,
    /// The operator restarts brokers; one lane goes on writing.
    Pausing,
    /// No lane begins anything new.
    Over,
}

pub(super) struct Trial {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) log_id: LogId,
    pub(super) node: String,
    connections: Option<Arc<dyn Connections>>,
    acknowledged: watch::Sender<u64>,
    phase: watch::Sender<Phase>,
    cuts: AtomicU64,
    connections_cut: AtomicU64,
}

impl Trial {
    pub(super) fn new(
        log: Arc<dyn EventLog>,
        log_id: LogId,
        node: &str,
        connections: Option<Arc<dyn Connections>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            log,
            log_id,
            node: node.to_owned(),
            connections,
            acknowledged: watch::Sender::new(0),
            phase: watch::Sender::new(Phase::Working),
            cuts: AtomicU64::new(0),
            connections_cut: AtomicU64::new(0),
        })
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase() == Phase::Over
    }

    /// Waits for this phase or a later one.
    pub(super) async fn until(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // `self` holds the sender, so the channel cannot close.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    pub(super) fn count_acknowledged(&self) {
        self.acknowledged.send_modify(|count| *count += 1);
    }

    pub(super) fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Waits until this many commits were acknowledged; `false` if the phase of faults ends first.
    pub(super) async fn until_acknowledged(&self, count: u64) -> bool {
        let mut acknowledged = self.acknowledged.subscribe();
        tokio::select! {
            reached = acknowledged.wait_for(|now| *now >= count) => reached.is_ok(),
            () = self.until(Phase::Pausing) => false,
        }
    }

    /// Cuts all connections, if the trial may cut any.
    pub(super) fn cut(&self) {
        let Some(connections) = &self.connections else {
            return;
        };
        let count = connections.cut();
        if count > 0 {
            self.cuts.fetch_add(1, Ordering::Relaxed);
            self.connections_cut
                .fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// How many times connections were cut, and how many connections in all.
    pub(super) fn cuts(&self) -> (u64, u64) {
        (
            self.cuts.load(Ordering::Relaxed),
            self.connections_cut.load(Ordering::Relaxed),
        )
    }

    pub(super) async fn back_off(&self) {
        let wait_ms = rand::rng().random_range(BACK_OFF_MS);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
}
