//! Taking a partition over, folding the log, and finding out what became of appends.
//!
//! Deliberately absent: how a command is decided and its record made (`decide`).

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use kernel::Timestamp;
use uuid::Uuid;

use super::memory::{Fingerprint, Memory, OwnCommit, answer_of, id_key};
use super::{Action, Entropy, Inquiry, NotOwning, Now, OwnerSettings, StateStore, Submission};
use crate::chain::{Acknowledged, Chain, Orphan, Stop, Verdict};
use crate::checkpoint::Checkpoint;
use crate::claim::Claim;
use crate::command::{Answer, SubmitError};
use crate::commit::Commit;
use crate::damage::{Damage, DamageKind};
use crate::ids::{ChainHash, LogId, Offset, Partition, Position, Term, WriterId};
use crate::log::{Appended, Chunk};
use crate::record::{ClaimHeaders, CommitHeaders, NewRecord, RECORD_VERSION, Record};
use crate::registry::{DecidedEvent, Opaque, Registry};

/// What an owner is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Holding the log against what was folded of it.
    Proving,
    /// Folding up to the log's end, to learn the highest term.
    Following,
    /// A claim was appended.
    Claiming {
        /// The claim.
        claim: ClaimHeaders,
        /// Names its append.
        sequence: u64,
        /// When it was handed over.
        sent_at: Timestamp,
        /// Its acknowledgement.
        acknowledged: Option<Option<Offset>>,
    },
    /// Deciding commands.
    Owning,
    /// Some appends may or may not be in the log; reading it.
    Doubt,
    /// Waiting before the next try, until this monotonic time in milliseconds.
    BackingOff {
        /// The end of the wait.
        until_ms: u64,
        /// Why.
        reason: NotOwning,
    },
    /// The reader must not go on.
    Stopped(Stop),
}

/// A record of ours that was appended and not yet found in the log.
pub(super) struct InFlight<T> {
    pub(super) sequence: u64,
    pub(super) headers: CommitHeaders,
    pub(super) head: ChainHash,
    pub(super) record: NewRecord,
    pub(super) key: Bytes,
    pub(super) commit: Commit,
    pub(super) events: Vec<DecidedEvent>,
    pub(super) fingerprint: Fingerprint,
    pub(super) answer: Answer,
    pub(super) submission: Submission,
    pub(super) waiters: Vec<(T, bool)>,
    pub(super) sent_at: Now,
    pub(super) acknowledged: Option<Option<Offset>>,
}

/// A stream's state behind the unacknowledged commits.
pub(super) struct SpeculativeStream {
    pub(super) version: u64,
    pub(super) state: Opaque,
    pub(super) in_flight: usize,
}

/// What the unacknowledged commits add to the accepted history.
#[derive(Default)]
pub(super) struct Speculation {
    pub(super) head: Option<(ChainHash, Position)>,
    pub(super) recorded_at: Option<Timestamp>,
    pub(super) streams: HashMap<Bytes, SpeculativeStream>,
    pub(super) ids: HashMap<Bytes, u64>,
}

/// Where reading must get to before the phase goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    End,
    Behind(Offset),
}

/// The owner of one partition. `T` stands for whoever waits for an answer.
pub struct Owner<T> {
    pub(super) settings: OwnerSettings,
    pub(super) entropy: Box<dyn Entropy>,
    pub(super) memory: Memory,
    pub(super) chain: Chain,
    pub(super) speculation: Speculation,
    /// Ours, in order, not yet found in the log.
    pub(super) window: VecDeque<InFlight<T>>,
    pub(super) window_bytes: usize,
    /// Commands whose records are known to be orphans, to be decided again, in order.
    pub(super) again: VecDeque<(Submission, Vec<(T, bool)>)>,
    pub(super) last_recorded_at: Option<Timestamp>,
    pub(super) actions: Vec<Action<T>>,
    pub(super) next_sequence: u64,
    phase: Phase,
    last: Option<Record>,
    /// The place of the local checkpoint, until a record was folded behind it.
    resumed: Option<Checkpoint>,
    first_offset: Offset,
    /// The last claim of ours that counted.
    claimed: Option<(Term, WriterId)>,
    /// The first append that was sent after the last read: its acknowledgement must lie behind
    /// everything folded.
    sent_after_read: u64,
    /// The log to claim while no claim fixed one: of a log that is being made.
    new_log: Option<LogId>,
    goal: Option<Goal>,
    reading: bool,
    /// Whether the end that the read under way will report was asked for after the goal was set.
    end_counts: bool,
    orphans: HashMap<Orphan, u64>,
}

impl<T> Owner<T> {
    /// An owner of `partition` that has read nothing.
    #[must_use]
    pub fn new(
        partition: Partition,
        registry: Registry,
        settings: OwnerSettings,
        store: Box<dyn StateStore>,
        mut entropy: Box<dyn Entropy>,
    ) -> Self {
        let window_ms = settings.idempotency_window_ms;
        let memory = Memory::new(registry, store, entropy.bytes(), window_ms);
        Self {
            settings,
            entropy,
            memory,
            chain: Chain::genesis(partition),
            speculation: Speculation::default(),
            window: VecDeque::new(),
            window_bytes: 0,
            again: VecDeque::new(),
            last_recorded_at: None,
            actions: Vec::new(),
            next_sequence: 1,
            phase: Phase::Following,
            last: None,
            resumed: None,
            first_offset: Offset(0),
            claimed: None,
            sent_after_read: 1,
            new_log: None,
            goal: None,
            reading: false,
            end_counts: false,
            orphans: HashMap::new(),
        }
    }

    /// Lets the owner claim a partition that nobody claimed yet, for a log that is being made.
    pub fn allow_first_claim(&mut self, log: LogId) {
        self.new_log = Some(log);
    }

    /// Lets the owner pass damaged places that an operator has acknowledged.
    pub fn pass(&mut self, acknowledged: Acknowledged) {
        self.chain.acknowledged = acknowledged;
    }

    /// Begins to take the partition over: from the local checkpoint where there is one.
    /// `first_offset` is the first that the log keeps.
    pub fn start(&mut self, first_offset: Offset) {
        self.first_offset = first_offset;
        match self.memory.load() {
            Some(checkpoint) => {
                self.go_on_with(checkpoint.chain(self.chain.partition));
                self.last_recorded_at = checkpoint.last_recorded_at;
                let offset = checkpoint.offset;
                self.resumed = Some(checkpoint);
                self.prove(offset);
            }
            None => self.follow(),
        }
    }

    /// What the owner is about.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The chain as folded so far.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// How many orphans were met, by reason.
    #[must_use]
    pub fn orphans(&self) -> &HashMap<Orphan, u64> {
        &self.orphans
    }

    /// Why the owner does not decide commands; `None` if it does.
    #[must_use]
    pub fn not_owning(&self) -> Option<NotOwning> {
        match &self.phase {
            Phase::Owning => None,
            Phase::Proving | Phase::Following | Phase::Claiming { .. } => {
                Some(NotOwning::TakingOver)
            }
            Phase::Doubt => Some(NotOwning::InDoubt),
            Phase::BackingOff { reason, .. } => Some(reason.clone()),
            Phase::Stopped(stop) => Some(NotOwning::Stopped(stop.clone())),
        }
    }

    /// Whether it takes commands now: it owns, and neither records nor bytes in flight are at
    /// their bound.
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        self.phase == Phase::Owning
            && self.again.is_empty()
            && self.window.len() < self.settings.in_flight_max
            && self.window_bytes < self.settings.in_flight_bytes_max
    }

    /// Whether nothing waits for the log or for being decided again.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.window.is_empty() && self.again.is_empty()
    }

    /// What the driver is to do next.
    pub fn take_actions(&mut self) -> Vec<Action<T>> {
        std::mem::take(&mut self.actions)
    }

    /// Looks a command up: an answer if the log has it, `Unknown` while it is in flight.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn inquire(&self, inquiry: &Inquiry) -> Result<Option<Answer>, SubmitError> {
        let key = id_key(&inquiry.stream_key, &inquiry.id);
        if self.speculation.ids.contains_key(&key) {
            return Err(SubmitError::Unknown);
        }
        Ok(self
            .memory
            .id(&key, self.last_recorded_at)
            .map(|known| known.answer))
    }
}

/// Taking over.
impl<T> Owner<T> {
    fn prove(&mut self, offset: Offset) {
        self.phase = Phase::Proving;
        self.actions.push(Action::Prove { offset });
    }

    /// Takes what the log holds at the offset of the last folded record, and its end.
    pub fn proven(&mut self, end: Offset, found: Option<&Record>) {
        if self.phase != Phase::Proving {
            return;
        }
        let place = match (&self.last, &self.resumed) {
            (Some(last), _) => Some(Checkpoint::new(&self.chain, last, self.last_recorded_at)),
            (None, resumed) => resumed.clone(),
        };
        let Some(place) = place else {
            return self.follow();
        };
        match place.prove(self.chain.partition, end, found) {
            Ok(()) => self.follow(),
            Err(damage) if self.claimed.is_some() => self.stop(Stop::Damage(damage)),
            Err(damage) => {
                tracing::warn!(%damage, "the local checkpoint is of another log; folding again");
                self.start_over();
            }
        }
    }

    /// Throws local state away and folds from the first record.
    fn start_over(&mut self) {
        if let Err(error) = self.memory.clear() {
            tracing::warn!(%error, "the local checkpoint store could not be cleared");
        }
        self.go_on_with(Chain::genesis(self.chain.partition));
        self.last = None;
        self.resumed = None;
        self.last_recorded_at = None;
        self.follow();
    }

    fn go_on_with(&mut self, chain: Chain) {
        let acknowledged = std::mem::take(&mut self.chain.acknowledged);
        self.chain = Chain {
            acknowledged,
            ..chain
        };
    }

    fn follow(&mut self) {
        self.phase = Phase::Following;
        self.read_to(Goal::End);
    }

    fn next_offset(&self) -> Offset {
        let last = self.last.as_ref().map(|record| record.offset);
        last.or(self.resumed.as_ref().map(|place| place.offset))
            .map_or(self.first_offset, Offset::next)
    }

    fn read_to(&mut self, goal: Goal) {
        self.goal = Some(goal);
        self.end_counts = !self.reading;
        self.request_read();
    }

    fn request_read(&mut self) {
        if !self.reading {
            self.reading = true;
            self.actions.push(Action::Read {
                from: self.next_offset(),
            });
        }
    }

    /// Takes a piece of the log that was asked for.
    pub fn read(&mut self, chunk: Chunk, now: Now) {
        self.reading = false;
        if matches!(self.phase, Phase::Stopped(_)) {
            return;
        }
        for record in chunk.records {
            if record.offset < self.next_offset() {
                continue;
            }
            if let Err(stop) = self.fold(record) {
                return self.stop(stop);
            }
            if self.memory.is_stale() {
                return self.start_over();
            }
        }
        self.sent_after_read = self.next_sequence;
        let Some(goal) = self.goal else { return };
        let at_end = chunk.at_end && self.end_counts;
        let reached = match goal {
            Goal::End => at_end,
            Goal::Behind(offset) => at_end || self.next_offset() > offset,
        };
        if reached {
            self.goal = None;
            self.reached(now);
        } else {
            self.end_counts = true;
            self.request_read();
        }
    }

    /// Notes that a read or a proof failed; the same is tried again.
    pub fn read_failed(&mut self) {
        self.reading = false;
        match &self.phase {
            Phase::Proving => {
                let offset = self.next_offset().0.saturating_sub(1);
                self.actions.push(Action::Prove {
                    offset: Offset(offset),
                });
            }
            Phase::Stopped(_) => {}
            _ => {
                if self.goal.is_some() {
                    self.end_counts = true;
                    self.request_read();
                }
            }
        }
    }

    /// Goes on once reading got to its goal.
    fn reached(&mut self, now: Now) {
        match &self.phase {
            Phase::Following => self.claim(now),
            Phase::Claiming { claim, .. } => {
                let ours = (claim.term, claim.writer) == (self.chain.term, self.chain.writer);
                if ours {
                    self.own(now)
                } else {
                    self.back_off(now, NotOwning::Deposed)
                }
            }
            Phase::Owning => self.settle_gap(now),
            Phase::Doubt if self.holds() => self.claim(now),
            Phase::Doubt => self.back_off(now, NotOwning::Deposed),
            Phase::Proving | Phase::BackingOff { .. } | Phase::Stopped(_) => {}
        }
    }

    fn claim(&mut self, now: Now) {
        let Some(log) = self.chain.log.or(self.new_log) else {
            return self.back_off(now, NotOwning::TakingOver);
        };
        let claim = ClaimHeaders {
            term: Term(self.chain.term.0 + 1),
            writer: WriterId(uuid::Builder::from_random_bytes(self.entropy.bytes()).into_uuid()),
            log,
            version: RECORD_VERSION,
        };
        let value = Claim {
            node: self.settings.node.clone(),
            address: self.settings.address.clone(),
            idempotency_window_ms: self.settings.idempotency_window_ms,
            copied: None,
        };
        let sequence = self.sequence();
        let record = claim.record(value.to_value());
        self.actions.push(Action::Append {
            sequence,
            record,
            claim: true,
        });
        self.phase = Phase::Claiming {
            claim,
            sequence,
            sent_at: now.wall,
            acknowledged: None,
        };
    }

    /// The claim counts: the folded state is the truth, and what it does not hold is an orphan.
    fn own(&mut self, now: Now) {
        self.phase = Phase::Owning;
        self.claimed = Some((self.chain.term, self.chain.writer));
        self.speculation = Speculation::default();
        self.window_bytes = 0;
        let orphaned = std::mem::take(&mut self.window);
        for entry in orphaned.into_iter().rev() {
            self.again.push_front((entry.submission, entry.waiters));
        }
        self.decide_again(now);
    }

    /// Decides commands again whose records do not count, as far as the bounds allow.
    pub(super) fn decide_again(&mut self, now: Now) {
        while self.phase == Phase::Owning
            && self.window.len() < self.settings.in_flight_max
            && let Some((submission, waiters)) = self.again.pop_front()
        {
            self.decide(submission, waiters, now);
        }
    }

    fn back_off(&mut self, now: Now, reason: NotOwning) {
        let chance = u64::from(self.entropy.bytes()[0]);
        let least_ms = match reason {
            // Every try leaves a claim in the log.
            NotOwning::Clock(_) => self.settings.clock_back_off_ms,
            _ => self.settings.back_off_ms,
        };
        let pause_ms = least_ms * (256 + chance) / 256;
        self.goal = None;
        self.phase = Phase::BackingOff {
            until_ms: now.monotonic_ms + pause_ms,
            reason,
        };
    }

    /// Whether no other claim has counted since ours.
    fn holds(&self) -> bool {
        self.claimed == Some((self.chain.term, self.chain.writer))
    }

    pub(super) fn stop(&mut self, stop: Stop) {
        tracing::error!(%stop, "the owner stops: an operator must look at the log");
        self.goal = None;
        self.phase = Phase::Stopped(stop);
        let window = std::mem::take(&mut self.window)
            .into_iter()
            .map(|entry| entry.waiters);
        let again = std::mem::take(&mut self.again)
            .into_iter()
            .map(|(_, waiters)| waiters);
        // What was in flight may be in the log: unknown is the only true word.
        for (ticket, _) in window.chain(again).flatten() {
            self.actions.push(Action::Answer {
                ticket,
                answer: Err(SubmitError::Unknown),
            });
        }
    }

    pub(super) fn sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// A fresh UUID v7 of this moment (RFC 9562 §5.7).
    pub(super) fn uuid_v7(&mut self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.micros() / 1_000).unwrap_or(0);
        let [random @ .., _, _, _, _, _, _] = self.entropy.bytes();
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

/// Acknowledgements and time.
impl<T> Owner<T> {
    /// Takes the log's acknowledgement of an append.
    pub fn acknowledged(&mut self, sequence: u64, appended: Appended, now: Now) {
        if matches!(self.phase, Phase::Stopped(_)) {
            return;
        }
        let claimed = match &mut self.phase {
            Phase::Claiming {
                sequence: own,
                sent_at,
                acknowledged,
                ..
            } if *own == sequence => {
                *acknowledged = Some(appended.offset);
                Some(*sent_at)
            }
            _ => None,
        };
        if let Some(sent_at) = claimed {
            if let Some(skew_ms) = self.skew_ms(sent_at, appended, now) {
                return self.back_off(now, NotOwning::Clock(skew_ms));
            }
            return self.read_to(appended.offset.map_or(Goal::End, Goal::Behind));
        }
        let Some(first) = self.window.front().map(|entry| entry.sequence) else {
            return;
        };
        let index = sequence
            .checked_sub(first)
            .and_then(|index| usize::try_from(index).ok());
        let Some(entry) = index.and_then(|index| self.window.get_mut(index)) else {
            return;
        };
        entry.acknowledged = Some(appended.offset);
        let sent_at = entry.sent_at.wall;
        if self.phase != Phase::Owning {
            return;
        }
        if let Some(offset) = appended.offset
            && offset < self.next_offset()
        {
            if sequence < self.sent_after_read {
                // It was read before its acknowledgement came, and did not count.
                return self.doubt();
            }
            let reason = "an append was acknowledged at an offset that had been read before";
            let kind = DamageKind::ProofFailed(reason.to_owned());
            let partition = self.chain.partition;
            return self.stop(Stop::Damage(Damage {
                partition,
                offset,
                kind,
            }));
        }
        if let Some(skew_ms) = self.skew_ms(sent_at, appended, now) {
            tracing::warn!(skew_ms, "this node's clock and the log's lie too far apart");
            return self.doubt();
        }
        self.settle(now);
    }

    fn skew_ms(&self, sent_at: Timestamp, appended: Appended, now: Now) -> Option<i64> {
        let at_ms = appended.appended_at_ms?;
        let early = sent_at.micros() / 1_000 - at_ms;
        let late = at_ms - now.wall.micros() / 1_000;
        let skew_ms = early.max(late);
        (skew_ms > self.settings.clock_skew_max_ms).then_some(skew_ms)
    }

    /// Answers what is the oldest unverified and stands right behind the last verified offset;
    /// anything else that was acknowledged is looked up in the log.
    fn settle(&mut self, now: Now) {
        if self.goal.is_some() {
            return;
        }
        while let Some(front) = self.window.front()
            && let Some(Some(offset)) = front.acknowledged
            && offset == self.next_offset()
        {
            let entry = self.window.pop_front().expect("it was looked at");
            self.chain.accept_commit(entry.headers, entry.head, offset);
            self.verified(entry, offset);
        }
        if self.memory.is_stale() {
            return self.doubt();
        }
        let acknowledged = self.window.iter().filter_map(|entry| entry.acknowledged);
        let furthest = acknowledged.map(|offset| offset.map_or(Goal::End, Goal::Behind));
        match furthest.last() {
            Some(goal) => self.read_to(goal),
            None => self.decide_again(now),
        }
    }

    /// The log was read up to everything that was acknowledged when the reading began.
    fn settle_gap(&mut self, now: Now) {
        let next = self.next_offset();
        // Acknowledged, read past, and not accepted: an orphan of ours.
        let orphaned = self
            .window
            .front()
            .is_some_and(|entry| match entry.acknowledged {
                Some(Some(offset)) => offset < next,
                Some(None) => true,
                None => false,
            });
        if orphaned || !self.holds() {
            self.doubt()
        } else {
            self.settle(now)
        }
    }

    /// Notes that an append failed or that nobody knows what became of it.
    pub fn append_failed(&mut self, sequence: u64, now: Now) {
        match &self.phase {
            Phase::Claiming { sequence: own, .. } if *own == sequence => {
                self.back_off(now, NotOwning::TakingOver);
            }
            Phase::Owning => {
                let first = self.window.front().map(|entry| entry.sequence);
                if first.is_some_and(|first| sequence >= first) {
                    self.doubt();
                }
            }
            _ => {}
        }
    }

    /// Sends nothing more under the current claim, and reads what became of what was sent.
    pub(super) fn doubt(&mut self) {
        tracing::warn!(
            partition = %self.chain.partition,
            in_flight = self.window.len(),
            "appends are in doubt; reading the log"
        );
        self.phase = Phase::Doubt;
        if self.memory.is_stale() {
            return self.start_over();
        }
        self.read_to(Goal::End);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Now) {
        match &self.phase {
            Phase::BackingOff { until_ms, .. } if now.monotonic_ms >= *until_ms => {
                match self.last.as_ref().map(|last| last.offset) {
                    Some(offset) => self.prove(offset),
                    None => self.follow(),
                }
            }
            Phase::Owning => {
                let oldest = self.window.front().map(|entry| entry.sent_at.monotonic_ms);
                let patience_ms = self.settings.append_doubt_after_ms;
                if oldest.is_some_and(|sent| now.monotonic_ms >= sent + patience_ms) {
                    self.doubt();
                }
            }
            _ => {}
        }
    }

    /// Writes the local checkpoint if there is enough to write, or anything and `eager`.
    pub fn save(&mut self, eager: bool) {
        let unsaved = self.memory.unsaved_commits();
        let due = unsaved >= self.settings.save_every_commits || (eager && unsaved > 0);
        let Some(last) = self.last.as_ref().filter(|_| due) else {
            return;
        };
        if matches!(self.phase, Phase::Stopped(_)) {
            return;
        }
        let checkpoint = Checkpoint::new(&self.chain, last, self.last_recorded_at);
        if let Err(error) = self.memory.save(checkpoint, self.settings.states_max) {
            tracing::warn!(%error, "the local checkpoint was not written; memory keeps it");
        }
    }
}

/// Folding.
impl<T> Owner<T> {
    fn fold(&mut self, record: Record) -> Result<(), Stop> {
        match self.chain.judge(&record)? {
            Verdict::Claim(claim, position) => {
                if position == Position(1)
                    && let Some(value) = record.value.as_deref().and_then(Claim::read)
                {
                    self.memory
                        .set_idempotency_window_ms(value.idempotency_window_ms);
                }
                tracing::debug!(partition = %self.chain.partition, term = %claim.term, "claim");
                self.last = Some(record);
            }
            Verdict::Commit(headers) => {
                let ours = self
                    .window
                    .front()
                    .is_some_and(|entry| entry.headers == headers);
                if ours {
                    let entry = self.window.pop_front().expect("it was looked at");
                    let offset = record.offset;
                    self.verified(entry, offset);
                    self.last = Some(record);
                } else {
                    let place = (self.chain.partition, record.offset);
                    match self.fold_commit(&record, headers.position) {
                        Err(_) if self.chain.acknowledged.contains(place.0, place.1) => {
                            *self.orphans.entry(Orphan::Acknowledged).or_default() += 1;
                        }
                        folded => folded?,
                    }
                    self.last = Some(record);
                }
            }
            Verdict::Orphan(reason) => {
                *self.orphans.entry(reason).or_default() += 1;
                self.last = Some(record);
            }
        }
        Ok(())
    }

    fn fold_commit(&mut self, record: &Record, position: Position) -> Result<(), Stop> {
        let (partition, offset) = (self.chain.partition, record.offset);
        let damage = |kind| Damage {
            partition,
            offset,
            kind,
        };
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let unreadable = |reason: String| damage(DamageKind::Unreadable(reason));
        let commit = Commit::read(key, value).map_err(|error| unreadable(error.to_string()))?;
        let answer = answer_of(&self.chain, &commit, position)
            .ok_or_else(|| unreadable("a refusal without a reason".to_owned()))?;
        self.last_recorded_at = Some(commit.recorded_at);
        self.memory
            .fold(&commit, answer, (offset, position))
            .map_err(damage)?;
        Ok(())
    }

    /// Takes up a record of ours that the log has, and answers.
    fn verified(&mut self, entry: InFlight<T>, offset: Offset) {
        let size = entry.record.value.as_ref().map_or(0, Bytes::len);
        self.window_bytes = self.window_bytes.saturating_sub(size);
        self.last_recorded_at = Some(entry.commit.recorded_at);
        self.forget_speculation(&entry);
        let own = OwnCommit {
            commit: &entry.commit,
            key: &entry.key,
            events: &entry.events,
        };
        let place = (offset, entry.headers.position);
        self.memory
            .fold_own(own, entry.fingerprint, entry.answer.clone(), place);
        for (ticket, repeated) in entry.waiters {
            let answer = Ok(Answer {
                repeated,
                ..entry.answer.clone()
            });
            self.actions.push(Action::Answer { ticket, answer });
        }
        self.last = Some(Record::at(offset, entry.record));
    }

    fn forget_speculation(&mut self, entry: &InFlight<T>) {
        self.speculation
            .ids
            .remove(&id_key(&entry.key, &entry.commit.command.id));
        if let Some(stream) = self.speculation.streams.get_mut(&entry.key) {
            stream.in_flight -= 1;
            if stream.in_flight == 0 {
                self.speculation.streams.remove(&entry.key);
            }
        }
    }
}
