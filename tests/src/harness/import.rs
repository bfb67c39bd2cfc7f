//! Counts how far the clients of an import are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client::{CommandLine, Observer, Outcome, Said};

/// Counts of lines, over all clients that share this.
#[derive(Debug, Default)]
pub struct ImportProgress {
    sent: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

impl ImportProgress {
    /// Counts a line that is handed to a client.
    pub fn note_sent(&self) {
        self.sent.fetch_add(1, Ordering::SeqCst);
    }

    /// Lines that have an outcome.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Lines that failed for good; `done` includes them.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    /// Lines that wait for their outcome.
    #[must_use]
    pub fn open(&self) -> u64 {
        let sent = self.sent.load(Ordering::SeqCst);
        sent.saturating_sub(self.done())
    }
}

/// An observer that counts outcomes.
#[derive(Debug)]
pub struct CountingOutcomes(pub Arc<ImportProgress>);

impl Observer for CountingOutcomes {
    fn done(&mut self, _: &CommandLine, said: Said) {
        if matches!(said.outcome, Outcome::Failed { .. }) {
            self.0.failed.fetch_add(1, Ordering::SeqCst);
        }
        self.0.done.fetch_add(1, Ordering::SeqCst);
    }

    fn waiting(&mut self, _: usize, _: &str, _: Duration) {}
}
