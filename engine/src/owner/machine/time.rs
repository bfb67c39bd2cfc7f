//! An owner whose clock is wrong: it neither claims nor appends, and leaves the partition to other
//! nodes.
//!
//! Deliberately absent: how a wrong clock is detected (`clock`).

use event_log::known_bad::KnownBad;

use super::{Owner, Phase};
use crate::clock::{Change, Reference};
use crate::owner::Now;

impl<T> Owner<T> {
    /// Takes a newer reference for this node's clock.
    pub fn set_reference(&mut self, reference: Reference) {
        self.clock.set_reference(reference);
    }

    /// Checks the clock before an append; `true`: nothing may be appended. The owner still waits
    /// for what is in flight, and leaves waiting commands to other nodes.
    pub(in crate::owner) fn clock_is_off(&mut self, now: Now) -> bool {
        let most_ms = match self.is(KnownBad::AppendsByAnyClock) {
            true => i64::MAX,
            false => self.settings.clock_skew_max_ms,
        };
        let partition = self.reader.chain.partition;
        match self.clock.look(now, most_ms) {
            Change::None => {}
            Change::WentOff(off) => {
                tracing::warn!(%partition, "the partition is left to other nodes: {off}");
                if matches!(self.phase, Phase::Owning | Phase::Doubt) {
                    self.letting_go = true;
                }
            }
            Change::Agrees => {
                tracing::info!(%partition, "the clock agrees again");
                if matches!(self.phase, Phase::Standby { .. }) && self.may_claim() {
                    self.resume();
                }
            }
        }
        self.clock.off().is_some()
    }

    /// Warns once that the log's recorded times are ahead of this clock.
    pub(super) fn tell_if_log_is_ahead(&mut self, now: Now) {
        if let Some(last) = self.reader.last_recorded_at
            && self.clock.tells_ahead(last, now)
        {
            tracing::warn!(
                partition = %self.reader.chain.partition,
                last_recorded_at = %last,
                "the log's last recorded time is ahead of this clock: the clock of an earlier writer was \
                 wrong. Until this clock has reached it, each commit is recorded a microsecond after the \
                 one before"
            );
        }
    }
}
