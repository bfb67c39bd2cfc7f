//! Hints about the owner that a seat received from elsewhere than the log.
//!
//! Invariant: a hint of another log is ignored. A hint whose term is newer than what this node has
//! read is compared with the log's end, and dropped if the log lacks that term; so no wrong hint is
//! believed for long. Deliberately absent: where hints come from (the directory, other
//! nodes).

use event_log::directory::Hint;
use event_log::known_bad::KnownBad;

use super::{Client, Peer, Seat};
use crate::owner::Now;

/// How long a successor that asked for the partition may take to claim it. After that, this node
/// reads in the log whether it has, in milliseconds.
const CLAIM_WITHIN_MS: u64 = 2_000;

/// A hint, and the state of its check against the log.
pub(super) struct Heard {
    pub(super) hint: Hint,
    /// When to check it, as a monotonic time in milliseconds.
    prove_at_ms: u64,
    /// The number of the read that must have reached the log's end.
    proof: Option<u64>,
}

impl<C: Client, P: Peer> Seat<C, P> {
    /// Where the owner is, if it is not this node. If hint and log name the same term, the log's
    /// word counts.
    #[must_use]
    pub fn target(&self) -> Option<&Hint> {
        let heard = self.hint.as_ref().map(|heard| &heard.hint);
        let elsewhere = [heard, self.owner.holder()]
            .into_iter()
            .flatten()
            .filter(|hint| Some(&hint.address) != self.identity.address.as_ref());
        elsewhere.max_by_key(|hint| hint.term)
    }

    /// Takes a hint about the owner. A term newer than what was read starts a read.
    pub fn learn(&mut self, hint: Hint, now: Now) {
        self.hear(hint, now.monotonic_ms);
        self.prove_hint(now);
    }

    /// Notes which node is about to claim.
    pub(super) fn expect(&mut self, successor: Hint, now: Now) {
        self.hear(successor, now.monotonic_ms + CLAIM_WITHIN_MS);
    }

    fn hear(&mut self, hint: Hint, prove_at_ms: u64) {
        let is_news = self.hint.as_ref().is_none_or(|heard| {
            heard.hint.term < hint.term || (heard.hint.term == hint.term && heard.hint != hint)
        });
        let is_of_this_log = hint.log == self.identity.log || self.believes_hints();
        if is_news && is_of_this_log && self.disproven.as_ref() != Some(&hint) {
            self.hint = Some(Heard {
                hint,
                prove_at_ms,
                proof: None,
            });
        }
    }

    fn believes_hints(&self) -> bool {
        let flaw = self.owner.chain().flaw;
        flaw.is(KnownBad::BelievesHints)
    }

    /// Lets the owner read on while a hint names a term that was not read yet.
    pub(super) fn prove_hint(&mut self, now: Now) {
        self.drop_disproven();
        let read = self.owner.chain().term;
        let Some(heard) = &mut self.hint else {
            return;
        };
        if heard.hint.term > read && now.monotonic_ms >= heard.prove_at_ms {
            let next_read = self.owner.reader.reads + 1;
            heard.proof.get_or_insert(next_read);
            self.owner.read_to_end();
        }
    }

    /// Drops a hint if its term is not in the log, once everything is read that was in the log when
    /// the hint came.
    pub(super) fn drop_disproven(&mut self) {
        let read = self.owner.chain().term;
        let end_was_read_by = self.owner.reader.end_was_read_by;
        let believes = self.believes_hints();
        let disproven = self.hint.take_if(|heard| {
            let was_read = heard.proof.is_some_and(|proof| end_was_read_by >= proof);
            heard.hint.term > read && was_read && !believes
        });
        let Some(Heard { hint, .. }) = disproven else {
            return;
        };
        tracing::warn!(
            partition = %self.partition(),
            term = %hint.term,
            read = %read,
            node = hint.node,
            "a hint names a term that the log does not have; it is dropped"
        );
        // The true owner announces itself again, so that the directory keeps that hint.
        self.said = None;
        self.disproven = Some(hint);
    }
}
