//! What an owner knows from the accepted history: states, versions and command ids.
//!
//! Invariant: memory reflects exactly the records up to the last folded one; nothing speculative is
//! in it. Entries that are not in the local store yet are never evicted.

mod answers;
pub(super) mod fingerprint;
pub(super) mod image;
mod rules;
mod saving;
pub(super) mod size;
mod streams;

use std::collections::BTreeMap;

use bytes::Bytes;
use kernel::{CommandId, ShapeError, Timestamp};

pub(super) use answers::{KnownId, answer_again, answer_of};
use position::{Offset, Partition, Position};
use size::StateSize;
pub(super) use streams::STATE_TIMES;

use event_log::commit::Commit;
use event_log::keyed::Keyed;
use event_log::verdict;
use kernel::explained;
use kernel::registry::{Aggregate, Opaque, Registry};

use super::machine::OwnCommit;
use super::store::{FirstId, IdHead, Saved, StateStore, StoreError, StoredId};
use crate::frozen::{Frozen, FrozenBy};
use rules::{Unfolded, evolve_all, initial, rules_of};
use streams::{StreamEntry, Streams};

/// The memory of an id apart from its key and its stored form, in bytes.
const ID_BYTES: usize = 192;

/// Old ids are not looked for among fewer new ids than this.
const IDS_LEFT_ALONE: usize = 1_024;

/// Why an entry exists that was just used.
const LOOKED_UP: &str = "a stream that was looked up is in memory";
/// Why a new stream has no state.
const NO_STATE: &str = "the state before any event could not be made";

pub(super) struct Memory {
    pub(super) registry: Registry,
    store: Box<dyn StateStore>,
    streams: Streams,
    /// All ids that the local store lacks, except those with which streams begin.
    ids: Keyed<StoredId>,
    /// How many ids were left when old ones were last removed from memory.
    ids_left: usize,
    /// None of `ids` was recorded before this; absent: there are none.
    ids_since: Option<Timestamp>,
    fingerprint_key: [u8; 16],
    pub(super) idempotency_window_ms: u64,
    pub(super) unsaved_commits: usize,
    /// Why nothing may be decided on this memory, if so.
    fault: Option<StoreFault>,
    /// The local store cannot be used: memory holds everything, until a full save has succeeded.
    alone: bool,
    /// The last record that was folded, for messages about streams that are frozen there.
    place: (Partition, Offset),
    /// How many streams are frozen, in memory and in the local store.
    pub(super) frozen_count: u64,
    /// How many of them by the program's rules.
    frozen_by_rules: u64,
    /// The versions of the rules by which states were folded, by category; those of categories that
    /// this program does not know are as the local store has them.
    rules: BTreeMap<String, u32>,
    /// Whether the log was folded again because a state in the local store could not be understood.
    /// If this program cannot read a state that it wrote itself, the owner would otherwise fold the
    /// log again and again.
    is_folded_again: bool,
}

/// What was wrong with the local store.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum StoreFault {
    /// The store could not be read.
    Unread,
    /// The store was read, and its content was not understood.
    Unreadable,
}

impl StoreFault {
    fn of(error: &StoreError) -> Self {
        match error.may_pass() {
            true => Self::Unread,
            false => Self::Unreadable,
        }
    }
}

/// The key of a command id: the stream's key, a zero byte, the id.
pub(super) fn id_key(stream_key: &[u8], id: &CommandId) -> Bytes {
    [stream_key, b"\0", id.as_str().as_bytes()].concat().into()
}

impl Memory {
    pub(super) fn new(
        registry: Registry,
        store: Box<dyn StateStore>,
        fingerprint_key: [u8; 16],
        idempotency_window_ms: u64,
        partition: Partition,
    ) -> Self {
        let rules = rules_of(&registry);
        Self {
            registry,
            store,
            rules,
            streams: Streams::default(),
            ids: Keyed::default(),
            ids_left: 0,
            ids_since: None,
            fingerprint_key,
            idempotency_window_ms,
            unsaved_commits: 0,
            fault: None,
            alone: false,
            place: (partition, Offset(0)),
            frozen_count: 0,
            frozen_by_rules: 0,
            is_folded_again: false,
        }
    }

    /// Empties memory, and returns the place of the local checkpoint, if there is one.
    pub(super) fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        self.forget_all();
        self.fault = Some(StoreFault::Unread);
        let saved = match self.store.load() {
            Err(error) if !error.may_pass() => {
                let error = explained(&error);
                tracing::warn!(
                    error,
                    "this program cannot read the local checkpoint; it is made again from the log"
                );
                self.store.clear()?;
                None
            }
            loaded => loaded?,
        };
        self.fault = None;
        self.alone = false;
        if let Some(saved) = &saved {
            self.fingerprint_key = saved.fingerprint_key;
            self.idempotency_window_ms = saved.idempotency_window_ms;
            self.place.1 = saved.place.checkpoint.offset;
            self.rules.clone_from(&saved.rules);
            self.rules.extend(rules_of(&self.registry));
            (self.frozen_count, self.frozen_by_rules) = (saved.frozen, saved.frozen_by_rules);
        }
        Ok(saved)
    }

    /// Whether states in a local checkpoint were folded by rules of the present versions.
    pub(super) fn is_of_these_rules(&self, saved: &Saved) -> bool {
        let present = rules_of(&self.registry);
        let is_same = |(category, version): (&String, &u32)| {
            present
                .get(category)
                .is_none_or(|present| present == version)
        };
        saved.rules.iter().all(is_same)
    }

    pub(super) fn clear(&mut self) -> Result<(), StoreError> {
        self.forget_all();
        self.rules = rules_of(&self.registry);
        self.is_folded_again |= self.fault == Some(StoreFault::Unreadable);
        let was_faulty = self.fault.take().is_some();
        let cleared = self.store.clear();
        // After a failure of the store, ignore it until a full save has succeeded.
        self.alone = was_faulty || cleared.is_err();
        cleared
    }

    fn forget_all(&mut self) {
        self.streams.clear();
        self.let_ids_go();
        self.unsaved_commits = 0;
        (self.frozen_count, self.frozen_by_rules) = (0, 0);
    }

    fn let_ids_go(&mut self) {
        self.ids.clear();
        self.ids_left = 0;
        self.ids_since = None;
    }

    /// Forgets all ids in memory.
    pub(super) fn forget_ids(&mut self) {
        self.let_ids_go();
        self.streams.forget_all_firsts();
    }

    /// Whether something in the local store could not be read: the owner must go back to the local
    /// checkpoint, or to the first record.
    pub(super) fn is_stale(&self) -> bool {
        self.fault.is_some()
    }

    /// Whether the store may be read again later, rather than be thrown away.
    pub(super) fn may_read_again(&self) -> bool {
        self.fault == Some(StoreFault::Unread)
    }

    /// A stream as the accepted history left it; version 0 if it has none.
    pub(super) fn stream(&mut self, stream_key: &[u8], category: &str) -> &mut StreamEntry {
        let (registry, store, fault) = (&self.registry, &self.store, &mut self.fault);
        let (alone, place, is_folded_again) = (self.alone, self.place, self.is_folded_again);
        self.streams.used(stream_key, || {
            let aggregate = registry.get(category);
            let stored = match store.state(stream_key) {
                _ if alone => None,
                Ok(stored) => stored,
                Err(error) => {
                    tracing::warn!(error = explained(&error), "a stream's state cannot be read");
                    *fault = Some(StoreFault::of(&error));
                    return StreamEntry::new(0, None, None, None);
                }
            };
            let Some(stored) = stored else {
                let state = aggregate.and_then(|aggregate| initial(&**aggregate));
                return StreamEntry::new(0, state, None, None);
            };
            let size = Some(stored.state.len());
            let mut entry = StreamEntry::new(stored.version, None, stored.first, size);
            entry.frozen = stored.frozen.map(Box::new);
            if let (Some(aggregate), None) = (aggregate, &entry.frozen) {
                entry.state = aggregate.decode_state(&stored.state);
                match (&entry.state, is_folded_again) {
                    (Some(_), _) => {}
                    (None, false) => *fault = Some(StoreFault::Unreadable),
                    (None, true) => {
                        let said = "the state that they wrote is not one that they read";
                        let (partition, offset) = place;
                        entry.freeze(Frozen {
                            partition,
                            offset,
                            why: FrozenBy::Rules(said.to_owned()),
                        });
                    }
                }
            }
            entry
        })
    }

    /// Why a stream is frozen, if it is.
    pub(super) fn frozen(&mut self, stream_key: &[u8]) -> Option<Frozen> {
        if self.frozen_count == 0 {
            return None;
        }
        let category = image::category_of(stream_key);
        self.stream(stream_key, category).frozen.as_deref().cloned()
    }

    /// Freezes a stream, if it is not frozen yet, and drops its state.
    pub(super) fn freeze(&mut self, stream_key: &[u8], why: FrozenBy) {
        self.stream(stream_key, image::category_of(stream_key));
        let frozen = Frozen {
            partition: self.place.0,
            offset: self.place.1,
            why,
        };
        let Some((entry, _)) = self.streams.changed(stream_key) else {
            return;
        };
        let is_acknowledged = matches!(frozen.why, FrozenBy::Acknowledged(_));
        match entry.frozen.as_deref().map(|before| &before.why) {
            None => self.frozen_count += 1,
            // Every reader skips an acknowledged place, whatever its rules say: this reason
            // replaces the rules' one.
            Some(FrozenBy::Rules(_)) if is_acknowledged => self.frozen_by_rules -= 1,
            Some(_) => return,
        }
        let stream = String::from_utf8_lossy(stream_key);
        tracing::error!(%stream, partition = %frozen.partition, offset = %frozen.offset, "{frozen}");
        metrics::counter!("annals_streams_frozen_total").increment(1);
        self.frozen_by_rules += u64::from(!is_acknowledged);
        entry.freeze(frozen);
    }

    /// The same as [`Self::id`], for a stream that is about to be decided on: if the id cannot be
    /// looked up now, the owner must go back.
    pub(super) fn id_of(
        &mut self,
        stream_key: &Bytes,
        id_key: &Bytes,
        last_recorded_at: Option<Timestamp>,
    ) -> Result<Option<KnownId>, StoreError> {
        let category = image::category_of(stream_key);
        if self.stream(stream_key, category).is_new() {
            return Ok(None);
        }
        let known = self.id(stream_key, id_key, last_recorded_at);
        known.inspect_err(|error| self.fault = Some(StoreFault::of(error)))
    }

    /// What is known of a command id, if it is remembered at `last_recorded_at`.
    pub(super) fn id(
        &self,
        stream_key: &Bytes,
        id_key: &Bytes,
        last_recorded_at: Option<Timestamp>,
    ) -> Result<Option<KnownId>, StoreError> {
        // After a failed read, memory holds the stream as if it were new.
        let held = self.streams.get(stream_key).filter(|_| !self.is_stale());
        let is_stored = !self.alone && held.is_none_or(|entry| entry.is_stored);
        // If the local store has nothing of a stream, it has none of its ids.
        let known = match self.ids.get(id_key) {
            None if is_stored => self.store.id(id_key)?,
            known => known.cloned(),
        };
        let stored = match held {
            None if is_stored && known.is_none() => self.store.state(stream_key)?,
            _ => None,
        };
        let first = match (held, &stored) {
            (Some(entry), _) => entry.first.as_ref(),
            (None, stored) => stored.as_ref().and_then(|stored| stored.first.as_ref()),
        };
        let first = || first?.known_as(stream_key, id_key).cloned();
        // The other one comes first even if the stream begins with this id: then it was forgotten
        // and came again.
        let known = known.or_else(first).map(|known| known.read()).transpose()?;
        let is_remembered = |(head, _): &KnownId| {
            last_recorded_at.is_some_and(|last| {
                let age_micros = last.micros().saturating_sub(head.recorded_at.micros());
                age_micros < self.window_micros()
            })
        };
        Ok(known.filter(is_remembered))
    }

    fn window_micros(&self) -> i64 {
        i64::try_from(self.idempotency_window_ms)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000)
    }

    /// Folds an accepted commit from the log. It must stand under its stream's key and follow its
    /// stream's version.
    ///
    /// # Errors
    /// This program is too old for one of the events. Then memory must not be used any more.
    pub(super) fn fold(
        &mut self,
        key: &[u8],
        commit: &Commit,
        (offset, position): (Offset, Position),
    ) -> Result<(), ShapeError> {
        let head = IdHead {
            offset,
            position,
            recorded_at: commit.recorded_at,
            fingerprint: self.fingerprint(commit),
            version: commit.version(),
        };
        let events = commit.events.iter();
        let known = match &commit.rejection {
            Some(rejection) => StoredId::rejected(&head, rejection),
            None => {
                let events = events.clone();
                StoredId::accepted(&head, events.map(|event| (event.id, &*event.type_name)))
            }
        };
        let id = (&commit.command.id, || id_key(key, &commit.command.id));
        self.take(key, id, &head, known, |entry, aggregate| {
            entry.size = entry.size.with(events.map(|event| event.data.get()));
            match (aggregate, &mut entry.state) {
                (Some(aggregate), Some(state)) => evolve_all(aggregate, state, commit),
                (Some(_), None) if entry.frozen.is_none() => {
                    Err(Unfolded::Failed(NO_STATE.to_owned()))
                }
                _ => Ok(()),
            }
        })
    }

    /// Folds an accepted commit that this owner decided. `state` is the stream's state after the
    /// commit, and its size, if they are known.
    pub(super) fn fold_own(
        &mut self,
        commit: &OwnCommit,
        offset: Offset,
        state: Option<(Opaque, StateSize)>,
    ) {
        let head = IdHead {
            offset,
            position: commit.headers.position,
            recorded_at: commit.recorded_at,
            fingerprint: commit.fingerprint,
            version: commit.answer.version,
        };
        let known = StoredId::of(&head, &commit.answer.decision);
        let id = (&commit.answer.command_id, || commit.id_key.clone());
        let taken = self.take(&commit.key, id, &head, known, |entry, aggregate| {
            match (state, &mut entry.state, aggregate) {
                _ if entry.frozen.is_some() => {}
                (Some((state, size)), _, _) => (entry.state, entry.size) = (Some(state), size),
                (None, Some(state), Some(aggregate)) => {
                    let mut events = commit.events.iter();
                    entry.size = entry
                        .size
                        .with(events.clone().map(|event| event.data.get()));
                    let evolved = events
                        .try_for_each(|event| aggregate.evolve(state, event, commit.occurred_at));
                    return evolved.map_err(|error| Unfolded::Failed(error.to_string()));
                }
                (None, _, _) => {}
            }
            Ok(())
        });
        taken.expect("this program knows what it decided itself");
    }

    /// Folds one accepted commit. `change` changes the stream's state, or returns why it does not.
    fn take(
        &mut self,
        key: &[u8],
        (id, id_key): (&CommandId, impl FnOnce() -> Bytes),
        head: &IdHead,
        known: StoredId,
        change: impl FnOnce(&mut StreamEntry, Option<&dyn Aggregate>) -> Result<(), Unfolded>,
    ) -> Result<(), ShapeError> {
        let category = image::category_of(key);
        self.stream(key, category);
        if self.is_stale() {
            // The stream could not be read: the owner goes back.
            return Ok(());
        }
        self.place.1 = head.offset;
        let (entry, was_new) = self.streams.changed(key).expect(LOOKED_UP);
        let changed = change(entry, self.registry.get(category).map(|it| &**it));
        let failed = match changed {
            Ok(()) => None,
            Err(Unfolded::Newer(event)) => return Err(event),
            Err(Unfolded::Failed(said)) => Some(said),
        };
        entry.version = head.version;
        if was_new {
            let id = id.clone();
            entry.first = Some(FirstId { id, known });
        } else {
            self.ids.insert(id_key(), known);
            let since = self.ids_since.unwrap_or(head.recorded_at);
            self.ids_since = Some(since.min(head.recorded_at));
        }
        self.unsaved_commits += 1;
        if let Some(said) = failed {
            self.freeze(key, FrozenBy::Rules(said));
        }
        Ok(())
    }

    /// The approximate memory of what the local store was to take and has not taken, in bytes.
    pub(super) fn unsaved_bytes(&self) -> usize {
        let ids = self.ids.iter();
        let weight =
            |(key, known): (&Bytes, &StoredId)| ID_BYTES + key.len() + known.as_bytes().len();
        let ids: usize = ids.map(weight).sum();
        self.streams.dirty_bytes() + ids
    }

    /// Empties memory, which must not be used until the local store is loaded again.
    pub(super) fn drop_all(&mut self) {
        self.forget_all();
        self.fault = Some(StoreFault::Unread);
    }

    /// Fails unless the local store takes a trial write of this size now.
    pub(super) fn try_store(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.store.try_out(bytes)
    }

    fn forget_before(&self, last_recorded_at: Option<Timestamp>) -> Option<Timestamp> {
        let micros = last_recorded_at?
            .micros()
            .saturating_sub(self.window_micros());
        Timestamp::from_micros(micros).ok()
    }

    /// Removes ids from memory that are too old to be remembered. This is done only once half as
    /// many ids have come as were left the last time.
    fn forget_in_memory(&mut self, before: Option<Timestamp>) {
        let most = self.ids_left + self.ids_left / 2 + IDS_LEFT_ALONE;
        if let Some(before) = before
            && self.ids_since.is_some_and(|since| since <= before)
            && self.ids.len() > most
        {
            let mut since = None;
            self.ids.retain(|_, known| {
                let kept = known.recorded_at().filter(|at| *at > before);
                since = kept.into_iter().chain(since).min();
                kept.is_some()
            });
            self.ids_left = self.ids.len();
            self.ids_since = since;
        }
    }
}

impl verdict::Streams for Memory {
    fn version(&mut self, key: &[u8]) -> Option<u64> {
        let version = self.stream(key, image::category_of(key)).version;
        // If the stream could not be read, the owner goes back.
        (!self.is_stale()).then_some(version)
    }

    fn is_frozen(&mut self, key: &[u8]) -> bool {
        let frozen = self.frozen(key);
        frozen.is_some_and(|frozen| matches!(frozen.why, FrozenBy::Acknowledged(_)))
    }

    fn freeze(&mut self, key: &[u8], offset: Offset, reason: &str) {
        self.place.1 = offset;
        Self::freeze(self, key, FrozenBy::Acknowledged(reason.to_owned()));
    }
}
