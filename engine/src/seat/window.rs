//! How much may be under way to an owner in another node.
//!
//! Invariant: between [`WINDOW_MIN`] and [`WINDOW_MAX`]. Deliberately absent: what is sent (`router`).

/// How many commands may be unanswered on a link at most, at least, and at first.
pub(super) const WINDOW_MAX: usize = 1_024;
pub(super) const WINDOW_MIN: usize = 4;
pub(super) const WINDOW_FIRST: usize = 32;
/// An answer that takes longer than this says that more was sent than the owner can take, in
/// milliseconds.
pub(super) const ANSWER_SLOW_MS: u64 = 200;

/// How many commands may be unanswered on a link: as many as the owner answers soon. What it cannot
/// take is to wait here, where a client can be told so, and not where its turn is certain and late.
/// It grows as TCP's congestion window does (RFC 5681): by one with each quick answer until the first
/// slow one, then by one in each round; a slow answer halves it. It grows only while it is what holds
/// commands back (RFC 7661): what was never filled says nothing of what the owner can take.
pub(super) struct Window {
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

impl Default for Window {
    fn default() -> Self {
        Self {
            size: WINDOW_FIRST,
            holds_back: false,
            was_slow: false,
            quick: 0,
            settles_at_ms: 0,
        }
    }
}

impl Window {
    /// How many commands may be unanswered.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Notes whether commands wait for room in it.
    pub(super) fn holds_back(&mut self, holds_back: bool) {
        self.holds_back = holds_back;
    }

    /// Takes a quick or a slow answer into account.
    pub(super) fn answered(&mut self, sent_at_ms: u64, now_ms: u64) {
        let took_ms = now_ms.saturating_sub(sent_at_ms);
        if took_ms > ANSWER_SLOW_MS {
            if now_ms >= self.settles_at_ms {
                self.size = (self.size / 2).max(WINDOW_MIN);
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
