//! The state of an owner, and the queries about it.
//!
//! Deliberately absent: how a command is decided and its record made (`decide`).

mod fold;
pub(in crate::owner) mod image;
mod settle;
mod take_over;
mod time;
mod without_store;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use event_log::chain::{Acknowledged, Chain, Stop};
use event_log::commit::stream_key;
use event_log::directory::Hint;
use event_log::keyed::Keyed;
use event_log::known_bad::KnownBad;
use event_log::reading::Reader;
use event_log::record::{ClaimHeaders, CommitHeaders, NewRecord};
use kernel::Timestamp;
use kernel::registry::{DecidedEvent, Opaque, Registry};
use position::{ChainHash, LogId, Offset, Partition, Position, Term, WriterId};

use self::without_store::Refusals;
use super::memory::fingerprint::Fingerprint;
use super::memory::size::StateSize;
use super::memory::{Memory, answer_again, id_key};
use super::{
    Action, Entropy, Inquired, Inquiry, NotOwning, Now, OwnerSettings, Saved, StateStore,
    Submission,
};
use crate::clock::Clock;
use crate::command::Answer;

/// What an owner is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Proving that the log still holds what was folded.
    Proving,
    /// Folding up to the log's end, to learn the highest term.
    Following,
    /// Waiting for the present owner to hand over, up to this monotonic time in milliseconds.
    Asking {
        /// The end of the wait.
        until_ms: u64,
    },
    /// Folded up to the log's end, and not wanted.
    Standby {
        /// When to look for new records, as a monotonic time in milliseconds; absent: never, or a
        /// look is under way.
        read_at_ms: Option<u64>,
    },
    /// A claim was appended.
    Claiming {
        claim: ClaimHeaders,
        /// Identifies its append.
        sequence: u64,
        /// When the claim was handed to the log.
        sent_at: Timestamp,
        /// The acknowledgement, once it has come; in it the offset, if the log told it.
        acknowledged: Option<Option<Offset>>,
        /// Whether the claim was found in the log and counts, and no other claim has counted since.
        counts: bool,
        /// When the owner gives up waiting for the acknowledgement, as a monotonic time in
        /// milliseconds.
        until_ms: u64,
    },
    /// Deciding commands.
    Owning,
    /// Reading the log, since some appends may or may not be in it.
    Doubt,
    /// Waiting before the next try, until this monotonic time in milliseconds.
    BackingOff {
        /// The end of the wait.
        until_ms: u64,
        reason: NotOwning,
    },
    /// The local checkpoint cannot be read now, or its store takes nothing; the owner will try
    /// again.
    AwaitingStore {
        /// The monotonic time of the next try, in milliseconds; absent: the next tick sets it.
        retry_at_ms: Option<u64>,
    },
    /// The reader must not go on.
    Stopped(Stop),
}

/// A commit that this owner decided, with its record.
#[derive(Clone)]
pub(super) struct OwnCommit {
    pub(super) headers: CommitHeaders,
    pub(super) head: ChainHash,
    pub(super) record: NewRecord,
    pub(super) key: Bytes,
    pub(super) id_key: Bytes,
    pub(super) recorded_at: Timestamp,
    /// The business time of its events.
    pub(super) occurred_at: Timestamp,
    pub(super) events: Vec<DecidedEvent>,
    pub(super) fingerprint: Fingerprint,
    pub(super) answer: Answer,
}

impl OwnCommit {
    /// The size of its value, in bytes.
    pub(super) fn size(&self) -> usize {
        self.record.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A record of this owner that was appended and not yet found in the log.
#[derive(Clone)]
pub(super) struct InFlight<T> {
    pub(super) sequence: u64,
    pub(super) commit: OwnCommit,
    pub(super) submission: Submission,
    pub(super) waiters: Vec<(T, bool)>,
    pub(super) sent_at: Now,
    pub(super) acknowledged: Option<Option<Offset>>,
}

/// A stream's state after the unacknowledged commits.
pub(super) struct SpeculativeStream {
    pub(super) version: u64,
    pub(super) state: Opaque,
    pub(super) size: StateSize,
    /// How many unacknowledged commits change the stream. If there are none, this state equals the
    /// accepted one. The copy is then kept for the next command, which need not copy the whole
    /// state.
    pub(super) in_flight: usize,
    /// Whether a command used this copy since [`Speculation::drop_spares`] last ran.
    pub(super) is_used: bool,
}

/// What the unacknowledged commits add to the accepted history.
#[derive(Default)]
pub(super) struct Speculation {
    pub(super) head: Option<(ChainHash, Position)>,
    pub(super) recorded_at: Option<Timestamp>,
    pub(super) streams: Keyed<SpeculativeStream>,
    pub(super) ids: Keyed<u64>,
    /// The approximate size of the copies that no commit in flight needs, in bytes.
    pub(super) spare_bytes: usize,
}

impl Speculation {
    /// Drops the copies that no command has used since the last call.
    pub(super) fn drop_spares(&mut self) {
        if self.spare_bytes == 0 {
            return;
        }
        self.streams
            .retain(|_, stream| stream.in_flight > 0 || std::mem::take(&mut stream.is_used));
        let spares = self.streams.values().filter(|stream| stream.in_flight == 0);
        self.spare_bytes = spares.map(|stream| stream.size.bytes()).sum();
    }
}

/// What is known of other nodes' lists of acknowledged places, as their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lists {
    /// There are no other nodes.
    #[default]
    Alone,
    /// Nothing is known of other nodes yet.
    Unheard,
    /// The lists of the nodes that are present and take commands.
    Of(BTreeSet<Option<String>>),
}

/// The owner of one partition. `T` identifies a client that waits for an answer.
pub struct Owner<T> {
    pub(super) settings: OwnerSettings,
    pub(super) entropy: Box<dyn Entropy>,
    pub(super) memory: Memory,
    /// What was folded, and what is to be read and proven next. The phase goes on once its goal is
    /// reached.
    pub(crate) reader: Reader<Now>,
    pub(super) speculation: Speculation,
    /// This owner's records that are not yet found in the log, in order.
    pub(super) window: VecDeque<InFlight<T>>,
    pub(super) window_bytes: usize,
    /// Commands to be decided again, in order: their records are orphans, or they could not be
    /// decided.
    pub(super) again: VecDeque<(Submission, Vec<(T, bool)>)>,
    pub(super) actions: Vec<Action<T>>,
    pub(super) next_sequence: u64,
    phase: Phase,
    /// The last claim of this owner that counted.
    pub(super) claimed: Option<(Term, WriterId)>,
    clock: Clock,
    /// Whether this node should own.
    wanted: bool,
    /// The record format that claims announce.
    pub(super) record_version: u16,
    /// Whether the owner gives the partition up once nothing is in flight.
    letting_go: bool,
    /// The node that the newest claim names.
    holder: Option<Hint>,
    /// The digest of the list of acknowledged places that the newest claim names.
    claimed_list: Option<String>,
    /// What is known of other nodes' lists of acknowledged places.
    lists: Lists,
    /// How often another writer took the partition in short succession, and (`lost_at_ms`) when
    /// last.
    losses: u32,
    lost_at_ms: u64,
    /// The first append that was sent after the last read: its offset must lie after everything
    /// folded.
    sent_after_read: u64,
    /// The newest append of this owner that reading found: when it was sent, and the log's
    /// timestamp in milliseconds. Kept until this node's clock is compared with it.
    found_at: Option<(Timestamp, i64)>,
    /// The id of a new log, in which the owner may claim a partition that nobody has claimed yet: a
    /// log has no id until a claim has fixed it.
    pub new_log: Option<LogId>,
    /// The log that was opened: the owner stops if it finds another one. Absent: any log is
    /// accepted.
    pub opened_log: Option<LogId>,
    /// Whether the local checkpoint was read since the process began.
    has_loaded: bool,
    /// How often the local checkpoint store failed since it last took something.
    store_failures: u32,
    /// What the local store refuses again and again.
    refusals: Refusals,
    /// Whether the partition was given up because neither the local store nor memory has room.
    without_room: bool,
    /// When an owner next reads on although nothing is in doubt, as a monotonic time in
    /// milliseconds.
    look_at_ms: u64,
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
        let record_version = settings.record_version_max;
        let memory = Memory::new(registry, store, entropy.bytes(), window_ms, partition);
        Self {
            settings,
            entropy,
            memory,
            reader: Reader::new(Chain {
                reads: record_version,
                ..Chain::genesis(partition)
            }),
            speculation: Speculation::default(),
            window: VecDeque::new(),
            window_bytes: 0,
            again: VecDeque::new(),
            actions: Vec::new(),
            next_sequence: 1,
            phase: Phase::Following,
            claimed: None,
            clock: Clock::default(),
            wanted: true,
            record_version,
            letting_go: false,
            holder: None,
            claimed_list: None,
            lists: Lists::Alone,
            losses: 0,
            lost_at_ms: 0,
            sent_after_read: 1,
            found_at: None,
            new_log: None,
            opened_log: None,
            has_loaded: false,
            store_failures: 0,
            refusals: Refusals::default(),
            without_room: false,
            look_at_ms: 0,
        }
    }

    /// Sets the newest record format that all known nodes read; `None`: no limit is known. Later
    /// claims announce this format, or the newest that this program writes if that is an older one.
    pub fn set_read_by_all(&mut self, version: Option<u16>) {
        let writes = self.settings.record_version_max;
        self.record_version = version.map_or(writes, |version| version.min(writes));
    }

    /// Lets the owner pass damaged places that an operator has acknowledged.
    pub fn pass(&mut self, acknowledged: Acknowledged) {
        self.reader.chain.acknowledged = acknowledged;
    }

    /// Begins to follow the partition, from the local checkpoint if there is one. `first_offset` is
    /// the first that the log keeps.
    pub fn start(&mut self, first_offset: Offset) {
        self.reader.first_offset = first_offset;
        match self.memory.load() {
            Ok(saved) if self.may_go_on_from(saved.as_ref()) => {
                self.go_to(saved.map(|saved| saved.place));
            }
            Ok(_) => return self.start_over(),
            Err(error) => return self.await_store(&error),
        }
        if self.wanted || self.settings.standby_read_every_ms.is_some() {
            self.resume();
        } else {
            self.phase = Phase::Standby { read_at_ms: None };
        }
    }

    /// What the owner is doing.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The chain as folded so far.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.reader.chain
    }

    /// Why the owner does not decide commands; `None` if it does.
    #[must_use]
    pub fn not_owning(&self) -> Option<NotOwning> {
        if let Some(off) = self.clock.off()
            && !matches!(self.phase, Phase::Stopped(_))
        {
            return Some(NotOwning::Clock(off));
        }
        match &self.phase {
            Phase::Owning => None,
            Phase::Standby { .. } if self.differs() => Some(NotOwning::OtherList),
            Phase::Proving | Phase::Following if !self.wanted => Some(NotOwning::Standby),
            Phase::Proving | Phase::Following | Phase::Asking { .. } | Phase::Claiming { .. } => {
                Some(NotOwning::TakingOver)
            }
            Phase::Standby { .. } => Some(NotOwning::Standby),
            Phase::Doubt => Some(NotOwning::InDoubt),
            Phase::AwaitingStore { .. } if self.without_room => Some(self.without_store()),
            Phase::AwaitingStore { .. } => Some(NotOwning::StoreAway),
            Phase::BackingOff { reason, .. } => Some(reason.clone()),
            Phase::Stopped(stop) => Some(NotOwning::Stopped(stop.clone())),
        }
    }

    /// Whether the owner takes commands now: it owns and is not letting go, its clock is right, no
    /// command waits to be decided again, and records and bytes in flight are below their limits.
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        self.phase == Phase::Owning
            && !self.letting_go
            && self.clock.off().is_none()
            && self.again.is_empty()
            && self.window.len() < self.settings.in_flight_max
            && self.window_bytes < self.settings.in_flight_bytes_max
    }

    /// Whether commands may wait here: the owner owns, is about to own, or is finding out what
    /// became of appends. If not, they are for another node.
    #[must_use]
    pub fn may_own_soon(&self) -> bool {
        match &self.phase {
            Phase::Owning => !self.letting_go,
            Phase::Doubt | Phase::Claiming { .. } | Phase::Asking { .. } => true,
            Phase::Proving | Phase::Following | Phase::AwaitingStore { .. } => {
                self.may_claim() || !self.window.is_empty()
            }
            Phase::BackingOff { reason, .. } => {
                matches!(reason, NotOwning::TakingOver) && self.may_claim()
            }
            Phase::Standby { .. } | Phase::Stopped(_) => false,
        }
    }

    /// Whether the owner may claim: it is wanted, has room for unsaved data, its clock is right,
    /// and its list of acknowledged places allows it.
    fn may_claim(&self) -> bool {
        self.wanted && !self.without_room && self.clock.off().is_none() && !self.differs()
    }

    /// Whether the partition is left to nodes with another list of acknowledged places. This is so
    /// if the newest claim names another list, and either a present node has that list or nothing
    /// is known of other nodes yet.
    fn differs(&self) -> bool {
        let is_another = self.reader.chain.log.is_some()
            && self.claimed_list != self.reader.chain.acknowledged.digest();
        is_another
            && match &self.lists {
                Lists::Alone => false,
                Lists::Unheard => true,
                Lists::Of(others) => others.contains(&self.claimed_list),
            }
    }

    /// Sets what is known of other nodes' lists of acknowledged places.
    pub fn set_lists(&mut self, lists: Lists, now: Now) {
        self.lists = lists;
        if self.wanted && matches!(self.phase, Phase::Standby { .. }) && self.may_claim() {
            self.want(true, now);
        }
    }

    /// The acknowledged places of the partition up to `last`.
    fn acknowledged_up_to(&self, last: Offset) -> Vec<Offset> {
        let acknowledged = &self.reader.chain.acknowledged;
        acknowledged
            .up_to(self.reader.chain.partition, last)
            .collect()
    }

    /// Whether the owner can go on from a local checkpoint, or from the log's beginning (`None`).
    /// It cannot if the checkpoint was folded with another list of acknowledged places, or by rules of
    /// another version. Nor can it when the process begins, if rules froze a stream in the checkpoint: this program's rules may
    /// be mended.
    fn may_go_on_from(&mut self, saved: Option<&Saved>) -> bool {
        let is_first = !std::mem::replace(&mut self.has_loaded, true);
        saved.is_none_or(|saved| {
            let is_of_this_list =
                saved.place.acknowledged == self.acknowledged_up_to(saved.place.checkpoint.offset);
            is_of_this_list
                && self.memory.is_of_these_rules(saved)
                && !(is_first && saved.frozen_by_rules > 0)
        })
    }

    /// Whether the owner still folds the log, and has no command of its own to settle.
    #[must_use]
    pub fn is_reading_up(&self) -> bool {
        matches!(self.phase, Phase::Proving | Phase::Following) && self.is_drained()
    }

    /// The node that the newest claim names; absent if the claim names no address.
    #[must_use]
    pub fn holder(&self) -> Option<&Hint> {
        self.holder.as_ref()
    }

    /// The term of this owner's last claim that counted, if no other claim has counted since.
    #[must_use]
    pub fn held_term(&self) -> Option<Term> {
        self.holds().then_some(self.reader.chain.term)
    }

    /// Whether an append may be handed to the log now. Under a claim that is in doubt, lost or
    /// given up, nothing more is sent, even if it was decided before.
    #[must_use]
    pub fn sends(&self, sequence: u64) -> bool {
        match &self.phase {
            Phase::Owning => self.in_window(sequence).is_some(),
            Phase::Claiming { sequence: own, .. } => *own == sequence,
            _ => self.is(KnownBad::SendsAfterDoubt),
        }
    }

    /// Who waits for the outcome of an append.
    pub(crate) fn waiters(&self, sequence: u64) -> impl Iterator<Item = &T> {
        let entry = self.in_window(sequence).map(|index| &self.window[index]);
        let waiters = entry.into_iter().flat_map(|entry| &entry.waiters);
        waiters.map(|(ticket, _)| ticket)
    }

    /// The index of an append in the window, if it is there.
    pub(super) fn in_window(&self, sequence: u64) -> Option<usize> {
        let index = sequence.checked_sub(self.window.front()?.sequence)?;
        let index = usize::try_from(index).ok()?;
        (index < self.window.len()).then_some(index)
    }

    /// Whether the owner was asked to let go and has not yet done so.
    #[must_use]
    pub fn is_letting_go(&self) -> bool {
        self.letting_go
    }

    /// Whether no command waits for the log or to be decided again.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.window.is_empty() && self.again.is_empty()
    }

    /// How many streams are frozen.
    #[must_use]
    pub fn frozen_streams(&self) -> u64 {
        self.memory.frozen_count
    }

    /// How many of this owner's records are appended and not yet found in the log.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.window.len()
    }

    /// What the driver is to do next.
    pub fn take_actions(&mut self) -> Vec<Action<T>> {
        std::mem::take(&mut self.actions)
    }

    /// Looks a command up. An answer that is found is valid whichever node owns. That nothing is
    /// found means something only while this node owns.
    pub fn inquire(&self, inquiry: &Inquiry) -> Inquired {
        let stream_key = stream_key(&inquiry.tenant, &inquiry.stream);
        let key = id_key(&stream_key, &inquiry.id);
        let is_open = |(submission, _): &(Submission, _)| submission.is(inquiry);
        if self.speculation.ids.contains_key(&key) || self.again.iter().any(is_open) {
            return Inquired::InFlight;
        }
        let up_to = self.reader.chain.position;
        match self
            .memory
            .id(&stream_key, &key, self.reader.last_recorded_at)
        {
            Ok(Some(known)) => {
                let who = (&inquiry.tenant, &inquiry.stream, &inquiry.id);
                Inquired::Known(answer_again(&self.reader.chain, who, known))
            }
            Err(_) => Inquired::InFlight,
            Ok(None) if self.phase == Phase::Owning => Inquired::NotKnown { up_to },
            Ok(None) if self.window.iter().any(|entry| entry.submission.is(inquiry)) => {
                Inquired::InFlight
            }
            Ok(None) => Inquired::NotHere { up_to },
        }
    }
}
