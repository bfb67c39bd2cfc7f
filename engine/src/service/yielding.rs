//! Batches yield to single commands.
//!
//! The log takes records from one queue. If a batch had a thousand lines under way, every single
//! command would wait for all of them. Invariant: while single commands come, all batches together
//! have only so many lines under way that the answers take a few milliseconds longer than the
//! quickest answer, and the batches take turns; while no single commands come, nothing holds
//! batches back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::seat::Window;

/// For how long after a single command batches leave room for the next one, in milliseconds.
const SINGLES_WITHIN_MS: u64 = 100;
/// How many lines batches may always have under way.
const LINES_MIN: usize = 32;
/// An answer is slow if it takes longer than the quickest one by more than a quarter plus this, in
/// milliseconds.
const SLOWER_MS: u64 = 4;
/// For how long the quickest answer counts, in milliseconds; at most twice as long.
const QUICKEST_WITHIN_MS: u64 = 5_000;

/// The lines that batches have under way at this node.
pub(super) struct Yielding {
    started: Instant,
    /// When the last single command came, in milliseconds since the start; 0 before the first.
    single_at_ms: AtomicU64,
    lines: Mutex<Lines>,
    /// Held by the batch that waits for room.
    turn: tokio::sync::Mutex<()>,
    freed: Notify,
}

/// The lines under way. The caller passes the time, in milliseconds.
struct Lines {
    under_way: usize,
    window: Window,
    quickest: Quickest,
}

/// The quickest answer of the last seconds.
struct Quickest {
    /// The quickest answer of the present period, and of the period before.
    took_ms: u64,
    took_before_ms: u64,
    until_ms: u64,
}

impl Quickest {
    fn note(&mut self, took_ms: u64, now_ms: u64) -> u64 {
        if now_ms >= self.until_ms {
            self.took_before_ms = std::mem::replace(&mut self.took_ms, took_ms);
            self.until_ms = now_ms + QUICKEST_WITHIN_MS;
        }
        self.took_ms = self.took_ms.min(took_ms);
        self.took_ms.min(self.took_before_ms)
    }
}

impl Lines {
    fn new() -> Self {
        Self {
            under_way: 0,
            window: Window::with_min(LINES_MIN),
            quickest: Quickest {
                took_ms: u64::MAX,
                took_before_ms: u64::MAX,
                until_ms: 0,
            },
        }
    }

    /// Begins a line, if there is room for it.
    fn begin(&mut self, singles_come: bool) -> bool {
        let is_free = !singles_come || self.under_way < self.window.size();
        self.window.holds_back(!is_free);
        self.under_way += usize::from(is_free);
        is_free
    }

    /// Takes the time of an answer into account.
    fn answered(&mut self, began_ms: u64, now_ms: u64) {
        let quickest_ms = self.quickest.note(now_ms.saturating_sub(began_ms), now_ms);
        let slow_ms = quickest_ms + quickest_ms / 4 + SLOWER_MS;
        self.window.answered(began_ms, now_ms, slow_ms);
    }
}

impl Yielding {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            single_at_ms: AtomicU64::new(0),
            lines: Mutex::new(Lines::new()),
            turn: tokio::sync::Mutex::new(()),
            freed: Notify::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn single(&self) {
        self.single_at_ms
            .store(self.now_ms().max(1), Ordering::Relaxed);
    }

    fn singles_come(&self, now_ms: u64) -> bool {
        let single_at_ms = self.single_at_ms.load(Ordering::Relaxed);
        single_at_ms > 0 && now_ms.saturating_sub(single_at_ms) < SINGLES_WITHIN_MS
    }

    fn try_begin(self: &Arc<Self>) -> Option<UnderWay> {
        let now_ms = self.now_ms();
        let singles_come = self.singles_come(now_ms);
        let began = self.lines().begin(singles_come);
        began.then(|| UnderWay {
            yielding: Arc::clone(self),
            began_ms: now_ms,
        })
    }

    /// Waits until a batch may have another line under way.
    pub(super) async fn begin(self: &Arc<Self>) -> UnderWay {
        // While nothing is held back, batches need not take turns.
        if !self.singles_come(self.now_ms())
            && let Some(under_way) = self.try_begin()
        {
            return under_way;
        }
        let _turn = self.turn.lock().await;
        loop {
            // `notify_one` keeps a permit if room becomes free between the check and the wait.
            match self.try_begin() {
                Some(under_way) => return under_way,
                None => self.freed.notified().await,
            }
        }
    }
}

/// A batch's line that is under way.
pub(super) struct UnderWay {
    yielding: Arc<Yielding>,
    began_ms: u64,
}

impl UnderWay {
    /// Notes that the line has just been answered.
    pub(super) fn answered(self) {
        let now_ms = self.yielding.now_ms();
        self.yielding.lines().answered(self.began_ms, now_ms);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.yielding.lines().under_way -= 1;
        self.yielding.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a log that takes `per_ms` lines per millisecond, and a batch that sends as many as
    /// it may: how many lines are under way after a while.
    fn under_way(lines: &mut Lines, per_ms: usize, singles_come: bool) -> usize {
        let mut open = std::collections::VecDeque::new();
        for now_ms in 0..10_000 {
            while open.len() < 1_024 && lines.begin(singles_come) {
                open.push_back(now_ms);
            }
            for _ in 0..per_ms.min(open.len()) {
                let began_ms = open.pop_front().unwrap();
                lines.answered(began_ms, now_ms + 1);
                lines.under_way -= 1;
            }
        }
        open.len()
    }

    #[test]
    fn batches_have_little_under_way_while_single_commands_come_and_all_they_may_otherwise() {
        assert!(under_way(&mut Lines::new(), 16, false) > 1_000);
        let beside_singles = under_way(&mut Lines::new(), 16, true);
        // As many as the log takes within ten milliseconds.
        assert!(
            (LINES_MIN..=160).contains(&beside_singles),
            "{beside_singles}"
        );
        // A quick log is still fully used.
        let of_quick = under_way(&mut Lines::new(), 100, true);
        assert!((100..=1_000).contains(&of_quick), "{of_quick}");
    }

    #[tokio::test]
    async fn a_batch_that_waits_goes_on_once_a_line_is_answered_or_no_single_commands_come() {
        let yielding = Arc::new(Yielding::new());
        yielding.single();
        let mut open: Vec<UnderWay> = std::iter::from_fn(|| yielding.try_begin()).collect();
        assert_eq!(open.len(), LINES_MIN);
        let mut next = Box::pin(yielding.begin());
        assert!(futures::poll!(&mut next).is_pending());
        drop(open.pop());
        open.push(next.await);
        let mut next = Box::pin(yielding.begin());
        assert!(futures::poll!(&mut next).is_pending());
        yielding.single_at_ms.store(0, Ordering::Relaxed);
        // The lines under way are answered sooner or later.
        open.pop().unwrap().answered();
        next.await;
        assert!(yielding.try_begin().is_some());
        assert!(yielding.try_begin().is_some());
    }
}
