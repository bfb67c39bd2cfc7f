//! How much may be under way to whoever answers: an owner in another node, or the log.
//!
//! Invariant: between the least that its user gives and [`WINDOW_MAX`]. Deliberately absent: what is sent
//! (`router`, `service::yielding`).

/// How many commands may be unanswered at most, and at first.
pub(super) const WINDOW_MAX: usize = 1_024;
pub(super) const WINDOW_FIRST: usize = 32;

/// How many commands may be unanswered: as many as are answered soon. What cannot be taken is to wait
/// here, where a client can be told so, and not where its turn is certain and late.
/// It grows as TCP's congestion window does (RFC 5681): by one with each quick answer until the first
/// slow one, then by one in each round; a slow answer halves it. It grows only while it is what holds
/// commands back (RFC 7661): what was never filled says nothing of what the owner can take.
pub(crate) struct Window {
    min: usize,
    size: usize,
    /// Whether commands wait for room in it.
    holds_back: bool,
    /// Whether an answer was slow once.
    was_slow: bool,
    /// Quick answers since it last grew.
    quick: usize,
    /// Until when a slow answer says nothing new, as a monotonic time in milliseconds.
    settles_at_ms: u64,
}

impl Window {
    /// One that never is smaller than `min`.
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

    /// Notes whether commands wait for room in it.
    pub(crate) fn holds_back(&mut self, holds_back: bool) {
        self.holds_back = holds_back;
    }

    /// Takes an answer into account; one that took more than `slow_ms` says that more was sent than
    /// can be taken.
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
