//! Proving that the log is still the one that was folded.
//!
//! An owner takes its own records up from acknowledgements, unread, and an acknowledgement does not say
//! which leader gave it. Where leaders changed since the owner last saw a record, what lies between was
//! perhaps cut off and filled with others of the same number: it is read again and judged in a copy of
//! the chain, which must come to the same place.
//!
//! Invariant: a proof counts only for what was suspected before it was asked for. Deliberately absent:
//! what makes two places the same (`checkpoint`), and which record counts (`chain`).

use event_log::chain::{Chain, Stop};
use event_log::checkpoint::Checkpoint;
use event_log::damage::{Damage, DamageKind};
use event_log::known_bad::KnownBad;
use event_log::log::Chunk;
use event_log::record::Record;
use position::Offset;

use super::{Owner, Phase};
use crate::owner::{Action, LogAction, Now};

/// The proof of a place that is wanted.
#[derive(Clone, Debug, Default)]
pub(in crate::owner) struct Proof {
    /// The place; absent where none is wanted.
    pub(super) place: Option<Checkpoint>,
    /// Whether the log was asked what it holds, and has not answered yet.
    pub(super) is_asked: bool,
    /// Whether that answer may have been found before what is suspected now.
    pub(super) answer_is_old: bool,
}

/// What the log was asked to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::owner) enum Reading {
    Nothing,
    UnderWay,
    /// It is under way, and for something that is not wanted any more: it is thrown away.
    NotWanted,
}

impl Reading {
    fn throw_away(&mut self) {
        if *self == Self::UnderWay {
            *self = Self::NotWanted;
        }
    }
}

/// Reading again what was taken up without being read.
#[derive(Clone, Debug)]
pub(in crate::owner) struct Reread {
    /// Where it begins; absent before the first record.
    pub(super) from: Option<Checkpoint>,
    /// The chain behind what was read again.
    pub(super) chain: Chain,
    /// The next to be read.
    pub(super) next: Offset,
    /// The proven place that it must come to.
    pub(super) to: Checkpoint,
}

impl Reread {
    /// Takes one record; says whether the place was reached.
    fn judge(&mut self, record: &Record) -> Result<bool, Stop> {
        let partition = self.chain.partition;
        let failed = |offset, reason: &str| Damage {
            partition,
            offset,
            kind: DamageKind::ProofFailed(reason.to_owned()),
        };
        if let Some(from) = &self.from
            && record.offset <= from.offset
        {
            from.prove(partition, self.to.offset.next(), Some(record))?;
            self.next = from.offset.next();
            return Ok(false);
        }
        if record.offset != self.next {
            return Err(failed(self.next, "the record that was read here is gone").into());
        }
        self.next = record.offset.next();
        self.chain.judge(record)?;
        if record.offset < self.to.offset {
            return Ok(false);
        }
        let (chain, to) = (&self.chain, &self.to);
        let is_same = (chain.head, chain.position) == (to.head, to.position)
            && (chain.term, chain.writer, chain.log) == (to.term, to.writer, to.log);
        if is_same {
            return Ok(true);
        }
        let reason = "records that were acknowledged are gone, and others stand in their places";
        Err(failed(to.offset, reason).into())
    }
}

impl<T> Owner<T> {
    pub(super) fn prove(&mut self) {
        self.phase = Phase::Proving;
        // What waited for another proof is read again.
        self.stop_reading();
        self.ask_for_proof();
    }

    /// The last record that was folded, with everything that a reader knows there.
    fn place(&self) -> Option<Checkpoint> {
        match (&self.last, &self.resumed) {
            (Some(last), _) => Some(Checkpoint::new(&self.chain, last, self.last_recorded_at)),
            (None, resumed) => resumed.clone(),
        }
    }

    /// Asks for what the log holds at the present place; nothing to prove where nothing was folded.
    fn ask_for_proof(&mut self) {
        self.unproven = false;
        self.proof.place = self.place();
        if self.proof.is_asked {
            self.proof.answer_is_old = true;
        } else {
            self.ask();
        }
    }

    fn ask(&mut self) {
        let asked = self.proof.place.as_ref().map(|place| place.offset);
        self.proof.is_asked = asked.is_some();
        self.actions
            .extend(asked.map(|offset| Action::Log(LogAction::Prove { offset })));
    }

    /// Takes what the log holds at `offset`, as it was asked for, and its end.
    pub fn proven(&mut self, offset: Offset, end: Offset, found: Option<&Record>) {
        self.proof.is_asked = false;
        if std::mem::take(&mut self.proof.answer_is_old) {
            return self.ask();
        }
        let Some(place) = self.proof.place.take_if(|place| place.offset == offset) else {
            return;
        };
        if self.phase != Phase::Proving && self.held.is_none() {
            return;
        }
        match place.prove(self.chain.partition, end, found) {
            Ok(()) => {
                let leader_epoch = found.and_then(|record| record.leader_epoch);
                self.proven_under(Checkpoint {
                    leader_epoch,
                    ..place
                });
            }
            // What was lost is folded again without; what was changed is damage to every reader.
            Err(damage) if place.is_changed(found) => self.stop(damage.into()),
            Err(damage) => self.disproven(damage.into()),
        }
    }

    /// The log holds the last record; what was not read before it is, where another leader wrote it
    /// than the one of what was.
    fn proven_under(&mut self, place: Checkpoint) {
        let seen = self.seen.as_ref().and_then(|seen| seen.leader_epoch);
        if seen == place.leader_epoch || self.is(KnownBad::TrustsAcrossLeaders) {
            return self.proven_whole(place);
        }
        let from = self.seen.clone();
        let chain = match &from {
            Some(seen) => seen.chain(self.chain.partition),
            None => Chain::genesis(self.chain.partition),
        };
        self.reread = Some(Reread {
            chain: Chain {
                acknowledged: self.chain.acknowledged.clone(),
                reads: self.chain.reads,
                flaw: self.chain.flaw,
                ..chain
            },
            next: from.as_ref().map_or(self.first_offset, |seen| seen.offset),
            from,
            to: place,
        });
        self.reading.throw_away();
        self.read_on();
    }

    /// Takes what was read again; gives back what was read for something else.
    pub(super) fn read_again(&mut self, chunk: Chunk) -> Option<Chunk> {
        let Some(mut reread) = self.reread.take() else {
            return Some(chunk);
        };
        for record in &chunk.records {
            match reread.judge(record) {
                Ok(false) => {}
                Ok(true) => {
                    self.proven_whole(reread.to);
                    return None;
                }
                Err(stop) => {
                    self.disproven(stop);
                    return None;
                }
            }
        }
        if chunk.at_end {
            // It ends before a place that was proven: whether it still stands must be seen.
            self.ask_for_proof();
        } else {
            self.reread = Some(reread);
            self.read_on();
        }
        None
    }

    /// Goes on behind a place up to which the log holds what was folded.
    fn proven_whole(&mut self, place: Checkpoint) {
        self.seen = Some(place);
        match self.held.take() {
            Some((chunk, now)) => self.take_up(chunk, now),
            None => self.follow(),
        }
    }

    /// Goes back to the first record: the log is another one than the local checkpoint's, or has lost what
    /// was read of it. An owner stops, since it answered for what is gone.
    fn disproven(&mut self, stop: Stop) {
        if self.claimed.is_some() {
            return self.stop(stop);
        }
        tracing::warn!(%stop, "the local checkpoint is not of this log as it is now; folding again");
        self.start_over();
    }

    /// Notes what was read last where all before it was read or proven as well.
    pub(super) fn note_seen(&mut self, was_seen: bool) {
        if was_seen
            && self
                .last
                .as_ref()
                .is_some_and(|last| last.leader_epoch.is_some())
        {
            self.seen = self.place();
        }
    }

    /// Whether all that was folded was read, and nothing taken up from an acknowledgement alone.
    pub(super) fn is_all_seen(&self) -> bool {
        let seen = self
            .seen
            .as_ref()
            .map_or(self.first_offset, |seen| seen.offset.next());
        seen == self.next_offset()
    }

    /// Holds what was read until it is proven that it continues what was folded.
    pub(super) fn hold(&mut self, chunk: Chunk, now: Now) {
        self.held = Some((chunk, now));
        self.ask_for_proof();
    }

    /// What was read, or is to be proven, is of a place that is left.
    pub(super) fn stop_reading(&mut self) {
        self.proof.place = None;
        self.reread = None;
        self.held = None;
        self.reading.throw_away();
    }

    /// Whether something was reported since the last proof, or the leader is another one than that
    /// of the last folded record: leaders change without a word, and may have lost records.
    pub(super) fn may_be_another_log(&self, chunk: &Chunk) -> bool {
        let last = self.last.as_ref().map(|record| record.leader_epoch);
        let resumed = self.resumed.as_ref().map(|place| place.leader_epoch);
        let Some(known) = last.or(resumed) else {
            // Nothing was folded, so that nothing can be continued wrongly.
            return false;
        };
        let is_known = |record: &Record| record.leader_epoch == known;
        let is_same = !self.unproven && chunk.records.iter().all(is_known);
        !is_same && !self.is(KnownBad::NeverProves)
    }

    /// Notes that a proof failed; the same is tried again.
    pub fn proof_failed(&mut self) {
        self.proof = Proof::default();
        self.unproven = true;
        if self.phase == Phase::Proving || self.held.is_some() {
            self.ask_for_proof();
        }
    }

    /// Notes that a read failed; the same is tried again.
    pub fn read_failed(&mut self) {
        self.reading = Reading::Nothing;
        self.unproven = true;
        self.read_on();
    }

    /// Notes that the log has nothing where reading was to go on: it is shorter than what was folded of it,
    /// or begins later. Whether it is still the same is proven before anything else.
    pub fn offset_gone(&mut self, now: Now) {
        let is_wanted = self.reading == Reading::UnderWay;
        let is_simple = self.reread.is_none() && self.held.is_none();
        if !is_wanted || !is_simple || self.place().is_none() || self.is(KnownBad::NeverProves) {
            return self.read_failed();
        }
        self.reading = Reading::Nothing;
        let nothing = Chunk {
            partition: self.chain.partition,
            records: Vec::new(),
            next: self.next_offset(),
            at_end: false,
        };
        self.hold(nothing, now);
    }

    /// Asks for what is wanted now, unless something is still under way.
    pub(super) fn read_on(&mut self) {
        if let Some(reread) = &self.reread {
            let from = reread.next;
            self.ask_to_read(from);
        } else if self.goal.is_some() && self.phase != Phase::Proving {
            self.end_counts |= !self.is_reading();
            self.request_read();
        }
    }

    /// Whether something is being read, or was and waits for its proof.
    pub(super) fn is_reading(&self) -> bool {
        self.reading != Reading::Nothing || self.held.is_some()
    }

    pub(super) fn request_read(&mut self) {
        if !self.is_reading() {
            let from = self.next_offset();
            self.ask_to_read(from);
        }
    }

    fn ask_to_read(&mut self, from: Offset) {
        if self.reading == Reading::Nothing {
            self.reading = Reading::UnderWay;
            self.reads += 1;
            self.actions.push(Action::Log(LogAction::Read { from }));
        }
    }
}
