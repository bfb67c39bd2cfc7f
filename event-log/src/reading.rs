//! Reading one partition of a log that may lose records: what was folded, what is to be read next,
//! and which proof must come first.
//!
//! A writer folds its own records from acknowledgements, without reading them, and an
//! acknowledgement does not say which leader gave it. If the leader changed since the last record
//! that was seen, the log may have lost the records after it, and may hold as many others in their
//! places. These records are read again and judged in a copy of the chain, which must come to the
//! same place.
//!
//! Invariants: a chunk that may be of another log is folded only after a proof. A proof counts only
//! for suspicions that arose before it was requested. At most one read and one proof are under way.
//! Deliberately absent: I/O, which record counts (`chain`), what makes two places the same
//! (`checkpoint`), what a value says, and what becomes of a reader whose log has lost records.

use std::hash::{Hash, Hasher};

use kernel::Timestamp;
use position::Offset;

use crate::chain::{Chain, Stop};
use crate::checkpoint::Checkpoint;
use crate::damage::{Damage, DamageKind};
use crate::known_bad::KnownBad;
use crate::log::Chunk;
use crate::record::{Record, record_hash};

/// What a [`Reader`] needs next. `M` is the moment of a read.
#[must_use]
pub enum Step<M> {
    /// Nothing, or nothing before the log has answered.
    Wait,
    /// Read the log from this offset on, and report with [`Reader::read`].
    Read(Offset),
    /// Look at the log's end and the record at this offset, and report with [`Reader::proven`].
    Prove(Offset),
    /// Fold the records that are not folded yet, then call [`Reader::folded`].
    Fold(Chunk, M),
    /// The log still holds everything that was folded, as [`Reader::prove`] was to find out.
    Proven,
    /// The log is another one, or has lost records that were folded: leave this place.
    Disproven(Stop),
    /// The last folded record was changed in the log, which is damage for every reader.
    Changed(Stop),
}

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    /// Up to the log's end, as it is after the goal was set.
    End,
    /// Up to this offset, or to the log's end.
    Behind(Offset),
}

/// A request to the log; there is at most one of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Request {
    Idle,
    UnderWay,
    /// Under way since before the last change of what is wanted: its answer will be dropped.
    Outdated,
}

impl Request {
    fn outdate(&mut self) {
        if *self == Self::UnderWay {
            *self = Self::Outdated;
        }
    }

    /// Takes the answer; says whether it is to be dropped.
    fn ends_outdated(&mut self) -> bool {
        std::mem::replace(self, Self::Idle) == Self::Outdated
    }
}

/// The second reading of records that were folded without being read.
#[derive(Clone, Hash)]
struct Reread {
    /// The chain after the records that were read again.
    chain: Chain,
    next: Offset,
    /// The proven place that the chain must come to.
    to: Checkpoint,
}

impl Reread {
    /// Takes one record, behind the last place that was seen or at it; says whether the place to
    /// come to was reached.
    fn judge(&mut self, seen: Option<&Checkpoint>, record: &Record) -> Result<bool, Stop> {
        let partition = self.chain.partition;
        let failed = |offset, reason: &str| Damage {
            partition,
            offset,
            kind: DamageKind::ProofFailed(reason.to_owned()),
        };
        if let Some(seen) = seen
            && record.offset <= seen.offset
        {
            seen.prove(partition, self.to.offset.next(), Some(record))?;
            self.next = seen.offset.next();
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

/// The state of reading one partition. `M` is what the caller notes with a chunk and gets back with
/// it: the moment at which it was read.
#[derive(Clone)]
pub struct Reader<M> {
    /// The chain as folded so far.
    pub chain: Chain,
    /// The last record that was folded, read or acknowledged; absent: none since `go_to`.
    pub last: Option<Record>,
    /// The latest time at which a commit of the partition was recorded.
    pub last_recorded_at: Option<Timestamp>,
    /// The first offset that the log keeps.
    pub first_offset: Offset,
    /// How many reads were requested, without those for a proof.
    pub reads: u64,
    /// Which of them was the last that came to the log's end. Everything that the log held when
    /// this read was requested is folded.
    pub end_was_read_by: u64,
    /// How far to read; absent: what is read is folded, and nothing more is requested.
    pub goal: Option<Goal>,
    /// The last place up to which the log is known, by reading or by a proof, to hold what was
    /// folded; with its leader.
    pub seen: Option<Checkpoint>,
    /// Whether something happened since the last proof that may mean another log: the next chunk
    /// waits for a proof.
    pub is_suspicious: bool,
    /// The checkpoint from which the reader goes on; used until a record after it is folded.
    resumed: Option<Checkpoint>,
    /// The place to prove; absent: no proof is wanted.
    to_prove: Option<Checkpoint>,
    proof: Request,
    reread: Option<Reread>,
    /// A chunk that was read and waits for a proof that it continues what was folded.
    held: Option<(Chunk, M)>,
    read: Request,
    /// Whether the read under way was requested after the goal was set. Only then does the end of
    /// the log that it reports count.
    end_counts: bool,
}

impl<M> Reader<M> {
    /// A reader that has read nothing. It judges as `chain` does.
    #[must_use]
    pub fn new(chain: Chain) -> Self {
        Self {
            chain,
            last: None,
            last_recorded_at: None,
            first_offset: Offset(0),
            goal: None,
            resumed: None,
            seen: None,
            is_suspicious: false,
            to_prove: None,
            proof: Request::Idle,
            reread: None,
            held: None,
            read: Request::Idle,
            end_counts: false,
            reads: 0,
            end_was_read_by: 0,
        }
    }

    /// Goes to a checkpoint, or before the first record. `seen` is the place at or before it up to
    /// which the log was seen to hold what was folded.
    pub fn go_to(&mut self, place: Option<Checkpoint>, seen: Option<Checkpoint>) {
        self.stop();
        self.chain = self.chain_at(place.as_ref());
        self.last = None;
        self.last_recorded_at = place.as_ref().and_then(|place| place.last_recorded_at);
        self.resumed = place;
        self.seen = seen;
    }

    /// Reads no further, and drops pending reads and proofs.
    pub fn stop(&mut self) {
        self.goal = None;
        self.to_prove = None;
        self.reread = None;
        self.held = None;
        self.read.outdate();
    }

    /// The chain at a place, or before the first record, which judges as this reader's does.
    fn chain_at(&self, place: Option<&Checkpoint>) -> Chain {
        let partition = self.chain.partition;
        let chain = place.map(|place| place.chain(partition));
        Chain {
            acknowledged: self.chain.acknowledged.clone(),
            reads: self.chain.reads,
            flaw: self.chain.flaw,
            ..chain.unwrap_or_else(|| Chain::genesis(partition))
        }
    }

    /// The last record that was folded, with everything that a reader knows there.
    #[must_use]
    pub fn place(&self) -> Option<Checkpoint> {
        match &self.last {
            Some(last) => Some(Checkpoint::new(&self.chain, last, self.last_recorded_at)),
            None => self.resumed.clone(),
        }
    }

    /// The offset and the leader of the last record that was folded.
    fn last_folded(&self) -> Option<(Offset, Option<i32>)> {
        let last = self.last.as_ref();
        let resumed = self.resumed.as_ref();
        last.map(|last| (last.offset, last.leader_epoch))
            .or(resumed.map(|place| (place.offset, place.leader_epoch)))
    }

    /// The offset after the last record that was folded.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        let last = self.last_folded();
        last.map_or(self.first_offset, |(offset, _)| offset.next())
    }

    /// Whether a read is under way, or a proof comes first.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.read != Request::Idle || self.awaits_proof()
    }

    /// Whether a proof is wanted and has not been made.
    #[must_use]
    pub fn awaits_proof(&self) -> bool {
        self.to_prove.is_some() || self.reread.is_some()
    }

    /// Whether everything that was folded was read or proven, and nothing folded from an
    /// acknowledgement alone.
    #[must_use]
    pub fn is_all_seen(&self) -> bool {
        let seen = self.seen.as_ref();
        seen.map_or(self.first_offset, |seen| seen.offset.next()) == self.next_offset()
    }

    /// Whether there is anything to prove: if nothing was folded, nothing can be continued wrongly.
    fn can_prove(&self) -> bool {
        self.last_folded().is_some() && !self.chain.flaw.is(KnownBad::NeverProves)
    }

    /// Proves that the log still holds what was folded, before anything else is read.
    pub fn prove(&mut self) -> Step<M> {
        if !self.can_prove() {
            return Step::Proven;
        }
        // A chunk that waits for another proof is dropped and read again.
        self.stop();
        self.ask_for_proof()
    }

    /// Reads on, up to `goal`.
    pub fn read_to(&mut self, goal: Goal) -> Step<M> {
        self.goal = Some(goal);
        self.end_counts = false;
        self.read_on()
    }

    /// Reads a chunk, unless a read is under way.
    pub fn read_once(&mut self) -> Step<M> {
        if self.is_busy() {
            return Step::Wait;
        }
        self.reads += 1;
        self.end_counts = true;
        self.ask_to_read(self.next_offset())
    }

    /// Requests the next read that is wanted, unless one is under way.
    fn read_on(&mut self) -> Step<M> {
        if let Some(reread) = &self.reread {
            return self.ask_to_read(reread.next);
        }
        match self.goal {
            Some(_) => self.read_once(),
            None => Step::Wait,
        }
    }

    fn ask_to_read(&mut self, from: Offset) -> Step<M> {
        if self.read != Request::Idle {
            return Step::Wait;
        }
        self.read = Request::UnderWay;
        Step::Read(from)
    }

    /// Takes a chunk of the log. If it may belong to another log, it waits for a proof.
    pub fn read(&mut self, chunk: Chunk, moment: M) -> Step<M> {
        if self.read.ends_outdated() {
            return self.read_on();
        }
        if let Some(reread) = self.reread.take() {
            return self.read_again(reread, &chunk);
        }
        match self.may_be_another_log(&chunk) {
            true => self.hold(chunk, moment),
            false => Step::Fold(chunk, moment),
        }
    }

    /// Whether the chunk may come from another log: something happened since the last proof, or a
    /// record has another leader than the last folded record. Leaders change without notice, and
    /// the new leader may have lost records.
    fn may_be_another_log(&self, chunk: &Chunk) -> bool {
        let leader = self.last_folded().map(|(_, leader)| leader);
        let is_of_another = |record: &Record| Some(record.leader_epoch) != leader;
        self.can_prove() && (self.is_suspicious || chunk.records.iter().any(is_of_another))
    }

    /// Notes that a read failed, and reads again.
    pub fn read_failed(&mut self) -> Step<M> {
        self.read = Request::Idle;
        self.is_suspicious = true;
        self.read_on()
    }

    /// Notes that the log has no record at the offset to be read: the log is shorter than what was
    /// folded of it, or begins later. First a proof must show that it is still the same log.
    pub fn offset_gone(&mut self, moment: M) -> Step<M> {
        let is_wanted = self.read == Request::UnderWay && !self.awaits_proof();
        if !is_wanted || !self.can_prove() {
            return self.read_failed();
        }
        self.read = Request::Idle;
        let nothing = Chunk {
            partition: self.chain.partition,
            records: Vec::new(),
            next: self.next_offset(),
            at_end: false,
        };
        self.hold(nothing, moment)
    }

    fn hold(&mut self, chunk: Chunk, moment: M) -> Step<M> {
        self.held = Some((chunk, moment));
        self.ask_for_proof()
    }

    /// Notes that a chunk was folded; `were_seen` says whether all records before it had been seen.
    pub fn folded(&mut self, at_end: bool, were_seen: bool) {
        if at_end {
            self.end_was_read_by = self.reads;
        }
        let leader = self.last.as_ref().and_then(|last| last.leader_epoch);
        if were_seen && leader.is_some() {
            self.seen = self.place();
        }
    }

    /// Goes on after a chunk, if there is a goal; `None`: the goal was reached.
    pub fn go_on(&mut self, at_end: bool) -> Option<Step<M>> {
        let at_end = at_end && self.end_counts;
        let next = self.next_offset();
        match self.goal {
            Some(Goal::Behind(offset)) if next > offset => self.goal = None,
            Some(_) if at_end => self.goal = None,
            Some(_) | None => return Some(self.read_on()),
        }
        None
    }

    fn ask_for_proof(&mut self) -> Step<M> {
        self.is_suspicious = false;
        self.to_prove = self.place();
        self.proof.outdate();
        self.ask()
    }

    fn ask(&mut self) -> Step<M> {
        match &self.to_prove {
            Some(place) if self.proof == Request::Idle => {
                self.proof = Request::UnderWay;
                Step::Prove(place.offset)
            }
            _ => Step::Wait,
        }
    }

    /// Notes that a proof could not be made; it is requested again if it is still wanted.
    pub fn proof_failed(&mut self) -> Step<M> {
        self.proof = Request::Idle;
        self.is_suspicious = true;
        match self.to_prove {
            Some(_) => self.ask_for_proof(),
            None => Step::Wait,
        }
    }

    /// Takes the answer to a [`Step::Prove`]: the log's end, and its record at `offset`.
    pub fn proven(&mut self, offset: Offset, end: Offset, found: Option<&Record>) -> Step<M> {
        if self.proof.ends_outdated() {
            return self.ask();
        }
        let Some(place) = self.to_prove.take_if(|place| place.offset == offset) else {
            return Step::Wait;
        };
        match place.prove(self.chain.partition, end, found) {
            Ok(()) => {
                let leader_epoch = found.and_then(|record| record.leader_epoch);
                self.proven_under(Checkpoint {
                    leader_epoch,
                    ..place
                })
            }
            Err(damage) if place.is_changed(found) => Step::Changed(damage.into()),
            Err(damage) => Step::Disproven(damage.into()),
        }
    }

    /// The log holds the last folded record. If its leader is not the leader of the last seen
    /// record, everything from the last seen record on is read again.
    fn proven_under(&mut self, place: Checkpoint) -> Step<M> {
        let seen = self.seen.as_ref();
        let leader_epoch = seen.and_then(|seen| seen.leader_epoch);
        let trusts = self.chain.flaw.is(KnownBad::TrustsAcrossLeaders);
        if leader_epoch == place.leader_epoch || trusts {
            return self.proven_whole(place);
        }
        self.reread = Some(Reread {
            chain: self.chain_at(seen),
            next: seen.map_or(self.first_offset, |seen| seen.offset),
            to: place,
        });
        self.read.outdate();
        self.read_on()
    }

    fn read_again(&mut self, mut reread: Reread, chunk: &Chunk) -> Step<M> {
        for record in &chunk.records {
            match reread.judge(self.seen.as_ref(), record) {
                Ok(false) => {}
                Ok(true) => return self.proven_whole(reread.to),
                Err(stop) => return Step::Disproven(stop),
            }
        }
        if chunk.at_end {
            // The log ends before a place that was proven, so this place must be proven again.
            return self.ask_for_proof();
        }
        self.reread = Some(reread);
        self.read_on()
    }

    /// Goes on after a place up to which the log holds what was folded.
    fn proven_whole(&mut self, place: Checkpoint) -> Step<M> {
        self.seen = Some(place);
        match self.held.take() {
            Some((chunk, moment)) => Step::Fold(chunk, moment),
            None => Step::Proven,
        }
    }

    /// Hashes everything that decides what the reader does next, for a model checker.
    pub fn digest(&self, hasher: &mut impl Hasher) {
        let Self {
            chain,
            last,
            last_recorded_at,
            first_offset,
            goal,
            resumed,
            seen,
            is_suspicious,
            to_prove,
            proof,
            reread,
            held,
            read,
            end_counts,
            reads: _,
            end_was_read_by: _,
        } = self;
        let last = last.as_ref().map(|last| (last.offset, record_hash(last)));
        let held = held.as_ref().map(|(chunk, _)| {
            let last = chunk.records.last().map(record_hash);
            (chunk.next, chunk.at_end, last)
        });
        (chain, last, last_recorded_at, first_offset, goal, resumed).hash(hasher);
        (seen, is_suspicious, to_prove, proof, reread).hash(hasher);
        (held, read, end_counts).hash(hasher);
    }
}

#[cfg(test)]
mod tests;
