//! How many commands may be unanswered at the receiver: an owner in another node, or the log.
//!
//! Invariant: the size is between the caller's minimum and [`WINDOW_MAX`]. Deliberately absent:
//! what is sent (`router`, `service::yielding`).

/// How many commands may be unanswered at most, and at first.
pub(super) const WINDOW_MAX: usize = 1_024;
pub(super) const WINDOW_FIRST: usize = 32;

/// How many commands may be unanswered: as many as the receiver answers quickly. More commands must
/// wait here, where their clients can be turned away, and not in the receiver's queue, where they
/// would be decided late. The window grows as TCP's congestion window does (RFC 5681): by one with
/// each quick answer until the first slow answer, then by one per round; a slow answer halves it.
/// It grows only while it holds commands back (RFC 7661): a window that was never full says nothing
/// about what the receiver can take.
pub(crate) struct Window {
    min: usize,
    size: usize,
    /// Whether commands wait because the window is full.
    holds_back: bool,
    /// Whether there was ever a slow answer.
    was_slow: bool,
    /// Quick answers since the window last grew.
    quick: usize,
    /// Until when further slow answers are ignored, as a monotonic time in milliseconds.
    settles_at_ms: u64,
}

impl Window {
    pub(crate) fn with_min(min: usize) -> Self {
        Self {
            min,
            size: WINDOW_FIRST.max(min),
            holds_back: false,
            was_slow: false,
            quick: 0,
            settles_at_ms: 0,
        }
    }

    /// How many commands may be unanswered.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Notes whether commands wait because the window is full.
    pub(crate) fn holds_back(&mut self, holds_back: bool) {
        self.holds_back = holds_back;
    }

    /// Takes an answer into account. An answer that took more than `slow_ms` means that more was
    /// sent than the receiver can take.
    pub(crate) fn answered(&mut self, sent_at_ms: u64, now_ms: u64, slow_ms: u64) {
        let took_ms = now_ms.saturating_sub(sent_at_ms);
        if took_ms > slow_ms {
            if now_ms >= self.settles_at_ms {
                self.size = (self.size / 2).max(self.min);
                self.settles_at_ms = now_ms + took_ms;
                (self.was_slow, self.quick) = (true, 0);
            }
        } else if self.holds_back {
            self.quick += 1;
            if !self.was_slow || self.quick >= self.size {
                self.size = (self.size + 1).min(WINDOW_MAX);
                self.quick = 0;
            }
        }
    }
}
