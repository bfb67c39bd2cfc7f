//! Proving that the log is still the one that was folded.
//!
//! An owner folds its own records from acknowledgements, without reading them, and an
//! acknowledgement does not say which leader gave it. If the leader changed since the owner last
//! saw a record, the log may have lost the records after it, and may hold as many others in their
//! places. These records are read again and judged in a copy of the chain, which must come to the
//! same place.
//!
//! Invariant: a proof counts only for suspicions that arose before it was requested. Deliberately
//! absent: what makes two places the same (`checkpoint`), and which record counts (`chain`).

use event_log::chain::{Chain, Stop};
use event_log::checkpoint::Checkpoint;
use event_log::damage::{Damage, DamageKind};
use event_log::known_bad::KnownBad;
use event_log::log::Chunk;
use event_log::record::Record;
use position::Offset;

use super::{Owner, Phase};
use crate::owner::{Action, LogAction, Now};

/// The proof that is wanted.
#[derive(Clone, Debug, Default)]
pub(in crate::owner) struct Proof {
    /// The place to prove; absent: no proof is wanted.
    pub(super) place: Option<Checkpoint>,
    /// Whether the log was asked what it holds, and has not answered yet.
    pub(super) is_asked: bool,
    /// Whether that answer may be older than what is suspected now.
    pub(super) answer_is_old: bool,
}

/// The state of the last read request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::owner) enum Reading {
    Nothing,
    UnderWay,
    /// A read is under way whose result is not wanted any more and will be dropped.
    NotWanted,
}

impl Reading {
    fn throw_away(&mut self) {
        if *self == Self::UnderWay {
            *self = Self::NotWanted;
        }
    }
}

/// The second reading of records that were folded without being read.
#[derive(Clone, Debug)]
pub(in crate::owner) struct Reread {
    /// Where it begins; absent: before the first record.
    pub(super) from: Option<Checkpoint>,
    /// The chain after the records that were read again.
    pub(super) chain: Chain,
    /// The next offset to be read.
    pub(super) next: Offset,
    /// The proven place that the chain must come to.
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
        // A chunk that waits for another proof is dropped and read again.
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

    /// Asks the log for its record at the present place; if nothing was folded, there is nothing to
    /// prove.
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

    /// Takes the answer to a [`LogAction::Prove`]: the log's end, and its record at `offset`.
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
            // If records were lost, the log is folded again without them. A changed record is
            // damage for every reader.
            Err(damage) if place.is_changed(found) => self.stop(damage.into()),
            Err(damage) => self.disproven(damage.into()),
        }
    }

    /// The log holds the last folded record. If its leader is not the leader of the last seen
    /// record, everything from the last seen record on is read again.
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

    /// Takes a chunk of the second reading; returns a chunk that was read for something else.
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
            // The log ends before a place that was proven, so this place must be proven again.
            self.ask_for_proof();
        } else {
            self.reread = Some(reread);
            self.read_on();
        }
        None
    }

    /// Goes on after a place up to which the log holds what was folded.
    fn proven_whole(&mut self, place: Checkpoint) {
        self.seen = Some(place);
        match self.held.take() {
            Some((chunk, now)) => self.take_up(chunk, now),
            None => self.follow(),
        }
    }

    /// Goes back to the first record: this log is not the one of the local checkpoint, or has lost
    /// records that were read. An owner that has claimed stops instead, because it gave answers
    /// about records that are gone.
    fn disproven(&mut self, stop: Stop) {
        if self.claimed.is_some() {
            return self.stop(stop);
        }
        tracing::warn!(%stop, "the local checkpoint is not of this log as it is now; folding again");
        self.start_over();
    }

    /// Notes the last folded record as seen, if everything before it was read or proven as well.
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

    /// Whether everything that was folded was read or proven, and nothing folded from an
    /// acknowledgement alone.
    pub(super) fn is_all_seen(&self) -> bool {
        let seen = self
            .seen
            .as_ref()
            .map_or(self.first_offset, |seen| seen.offset.next());
        seen == self.next_offset()
    }

    /// Keeps a chunk until a proof shows that it continues what was folded.
    pub(super) fn hold(&mut self, chunk: Chunk, now: Now) {
        self.held = Some((chunk, now));
        self.ask_for_proof();
    }

    /// Drops pending reads and proofs: they are for a place that the owner leaves.
    pub(super) fn stop_reading(&mut self) {
        self.proof.place = None;
        self.reread = None;
        self.held = None;
        self.reading.throw_away();
    }

    /// Whether the chunk may come from another log: something happened since the last proof, or a
    /// record has another leader than the last folded record. Leaders change without notice, and
    /// the new leader may have lost records.
    pub(super) fn may_be_another_log(&self, chunk: &Chunk) -> bool {
        let last = self.last.as_ref().map(|record| record.leader_epoch);
        let resumed = self.resumed.as_ref().map(|place| place.leader_epoch);
        let Some(known) = last.or(resumed) else {
            // Nothing was folded, so nothing can be continued wrongly.
            return false;
        };
        let is_known = |record: &Record| record.leader_epoch == known;
        let is_same = !self.unproven && chunk.records.iter().all(is_known);
        !is_same && !self.is(KnownBad::NeverProves)
    }

    /// Notes that a proof could not be made; it is requested again if it is still wanted.
    pub fn proof_failed(&mut self) {
        self.proof = Proof::default();
        self.unproven = true;
        if self.phase == Phase::Proving || self.held.is_some() {
            self.ask_for_proof();
        }
    }

    /// Notes that a read failed, and reads again.
    pub fn read_failed(&mut self) {
        self.reading = Reading::Nothing;
        self.unproven = true;
        self.read_on();
    }

    /// Notes that the log has no record at the offset to be read: the log is shorter than what was
    /// folded of it, or begins later. First a proof must show that it is still the same log.
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

    /// Requests the next read that is wanted, unless one is under way.
    pub(super) fn read_on(&mut self) {
        if let Some(reread) = &self.reread {
            let from = reread.next;
            self.ask_to_read(from);
        } else if self.goal.is_some() && self.phase != Phase::Proving {
            self.end_counts |= !self.is_reading();
            self.request_read();
        }
    }

    /// Whether a read is under way, or a chunk waits for its proof.
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
