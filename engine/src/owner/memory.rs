//! What an owner knows from the accepted history: states, versions and command ids.
//!
//! Invariant: it stands exactly at the last folded record; nothing speculative is in it. Entries
//! that are not in the local store yet are never evicted.

pub(super) mod fingerprint;
pub(super) mod image;
mod streams;

use bytes::Bytes;
use kernel::{CommandId, StreamName, TenantId, Timestamp};

use streams::{StreamEntry, Streams};

use super::store::{
    FirstId, IdHead, SaveBatch, Saved, StateStore, StoreError, StoredId, StoredState,
};
use crate::chain::Chain;
use crate::checkpoint::Checkpoint;
use crate::cluster::Hint;
use crate::command::{Answer, Decision, EventRef};
use crate::commit::{Commit, Outcome};
use crate::damage::DamageKind;
use crate::explained;
use crate::ids::{Offset, Position};
use crate::keyed::Keyed;
use crate::registry::{DecidedEvent, Opaque, Registry};
use crate::token::PositionToken;

/// What an id takes in memory beside its key and its form, in bytes.
const ID_BYTES: usize = 192;

/// How many ids are not worth looking for old ones among them.
const IDS_LEFT_ALONE: usize = 1_024;

/// Why an entry is there that was just used.
const LOOKED_UP: &str = "a stream that was looked up is in memory";

pub(super) struct Memory {
    registry: Registry,
    store: Box<dyn StateStore>,
    streams: Streams,
    /// All ids that the local store lacks but those that streams begin with.
    ids: Keyed<StoredId>,
    /// How many were left when ids were last forgotten here.
    ids_left: usize,
    /// None of them was recorded before this; absent: there are none.
    ids_since: Option<Timestamp>,
    fingerprint_key: [u8; 16],
    idempotency_window_ms: u64,
    unsaved_commits: usize,
    /// Why what is here is not to be decided upon, if so.
    doubt: Option<Doubt>,
    /// The local store cannot be used: everything is here, and stays here until it can.
    alone: bool,
}

/// What was wrong with the local store.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Doubt {
    /// It could not be read.
    Unread,
    /// It was read, and not understood.
    Unreadable,
}

impl Doubt {
    fn of(error: &StoreError) -> Self {
        match error.may_pass() {
            true => Self::Unread,
            false => Self::Unreadable,
        }
    }
}

/// The key of a command id: the stream's key, a zero byte, the id.
pub(super) fn id_key(stream_key: &[u8], id: &CommandId) -> Bytes {
    let mut key = Vec::with_capacity(stream_key.len() + 1 + id.as_str().len());
    key.extend_from_slice(stream_key);
    key.push(0);
    key.extend_from_slice(id.as_str().as_bytes());
    key.into()
}

impl Memory {
    pub(super) fn new(
        registry: Registry,
        store: Box<dyn StateStore>,
        fingerprint_key: [u8; 16],
        idempotency_window_ms: u64,
    ) -> Self {
        Self {
            registry,
            store,
            streams: Streams::default(),
            ids: Keyed::default(),
            ids_left: 0,
            ids_since: None,
            fingerprint_key,
            idempotency_window_ms,
            unsaved_commits: 0,
            doubt: None,
            alone: false,
        }
    }

    /// Throws away what is here, and says where the local store stands, if anywhere.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be read now.
    pub(super) fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        self.forget_all();
        self.doubt = Some(Doubt::Unread);
        let saved = match self.store.load() {
            Err(error) if !error.may_pass() => {
                let error = explained(&error);
                tracing::warn!(
                    error,
                    "the local checkpoint is not one that this program reads; it is made again from the log"
                );
                self.store.clear()?;
                None
            }
            loaded => loaded?,
        };
        self.doubt = None;
        self.alone = false;
        if let Some(saved) = &saved {
            self.fingerprint_key = saved.fingerprint_key;
            self.idempotency_window_ms = saved.idempotency_window_ms;
        }
        Ok(saved)
    }

    pub(super) fn clear(&mut self) -> Result<(), StoreError> {
        self.forget_all();
        let had_doubts = self.doubt.take().is_some();
        let cleared = self.store.clear();
        // What could not be read once is not read again before it took everything anew.
        self.alone = had_doubts || cleared.is_err();
        cleared
    }

    fn forget_all(&mut self) {
        self.streams.clear();
        self.let_ids_go();
        self.unsaved_commits = 0;
    }

    fn let_ids_go(&mut self) {
        self.ids.clear();
        self.ids_left = 0;
        self.ids_since = None;
    }

    /// Forgets each id that is here.
    pub(super) fn forget_ids(&mut self) {
        self.let_ids_go();
        self.streams.forget_all_firsts();
    }

    pub(super) fn set_idempotency_window_ms(&mut self, window_ms: u64) {
        self.idempotency_window_ms = window_ms;
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Whether something stored could not be read: the owner is to go back to where it can.
    pub(super) fn is_stale(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whether the store may be read again later, rather than be thrown away.
    pub(super) fn may_read_again(&self) -> bool {
        self.doubt == Some(Doubt::Unread)
    }

    pub(super) fn unsaved_commits(&self) -> usize {
        self.unsaved_commits
    }

    /// A stream as the accepted history left it; version 0 if it has none.
    pub(super) fn stream(&mut self, stream_key: &[u8], category: &str) -> &mut StreamEntry {
        let (registry, store, doubt) = (&self.registry, &self.store, &mut self.doubt);
        let alone = self.alone;
        self.streams.used(stream_key, || {
            let aggregate = registry.get(category);
            let stored = match store.state(stream_key) {
                _ if alone => None,
                Ok(stored) => stored,
                Err(error) => {
                    tracing::warn!(error = explained(&error), "a stream's state cannot be read");
                    *doubt = Some(Doubt::of(&error));
                    return StreamEntry::new(0, None, None, None);
                }
            };
            let stored_bytes = stored.as_ref().map(|stored| stored.state.len());
            let (version, state, first) = match (stored, aggregate) {
                (Some(stored), Some(aggregate)) => {
                    let state = aggregate.decode_state(&stored.state);
                    if state.is_none() {
                        *doubt = Some(Doubt::Unreadable);
                    }
                    (stored.version, state, stored.first)
                }
                (Some(stored), None) => (stored.version, None, stored.first),
                (None, Some(aggregate)) => (0, Some(aggregate.initial()), None),
                (None, None) => (0, None, None),
            };
            StreamEntry::new(version, state, first, stored_bytes)
        })
    }

    /// The same as [`Self::id`] of a stream that is about to be decided upon.
    ///
    /// # Errors
    /// [`StoreError`]: nobody can tell now.
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
        self.id(stream_key, id_key, last_recorded_at)
    }

    /// What is known of a command id, if it is remembered at `last_recorded_at`.
    ///
    /// # Errors
    /// [`StoreError`]: nobody can tell now.
    pub(super) fn id(
        &self,
        stream_key: &Bytes,
        id_key: &Bytes,
        last_recorded_at: Option<Timestamp>,
    ) -> Result<Option<KnownId>, StoreError> {
        // What could not be read is in memory as if it were new.
        let held = self.streams.get(stream_key).filter(|_| !self.is_stale());
        let is_stored = !self.alone && held.is_none_or(|entry| entry.is_stored);
        let known = match self.ids.get(id_key) {
            Some(known) => Some(known.read()?),
            // Where the local store has nothing of a stream, it has none of its ids.
            None if !is_stored => None,
            None => {
                let stored = self.store.id(id_key)?;
                stored.map(|known| known.read()).transpose()?
            }
        };
        let begins = |first: Option<&FirstId>| {
            let known = first.and_then(|first| first.known_as(stream_key, id_key));
            known.map(StoredId::read).transpose()
        };
        let known = match (known, held) {
            // If the stream begins with this id, it was forgotten and came again.
            (Some(known), _) => Some(known),
            (None, Some(entry)) => begins(entry.first.as_ref())?,
            (None, None) if !is_stored => None,
            (None, None) => {
                let stored = self.store.state(stream_key)?;
                begins(stored.as_ref().and_then(|stored| stored.first.as_ref()))?
            }
        };
        let is_remembered = |(head, _): &KnownId| {
            last_recorded_at.is_some_and(|last| {
                let age_micros = last.micros().saturating_sub(head.recorded_at.micros());
                age_micros < self.window_micros()
            })
        };
        Ok(known.filter(is_remembered))
    }

    /// Notes that something stored could not be read.
    pub(super) fn doubts_the_store(&mut self, error: &StoreError) {
        self.doubt = Some(Doubt::of(error));
    }

    fn window_micros(&self) -> i64 {
        i64::try_from(self.idempotency_window_ms)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000)
    }

    /// Takes up an accepted commit from the log, which has it under its stream's key.
    pub(super) fn fold(
        &mut self,
        key: &[u8],
        commit: &Commit,
        (offset, position): (Offset, Position),
    ) -> Result<(), DamageKind> {
        let category = commit.stream.category();
        let aggregate = self.registry.get(category).cloned();
        self.stream(key, category);
        if self.is_stale() {
            // The owner goes back.
            return Ok(());
        }
        let fingerprint = self.fingerprint(commit);
        let (entry, was_new) = self.streams.changed(key).expect(LOOKED_UP);
        if entry.version != commit.from_version {
            return Err(DamageKind::VersionGap {
                stream: String::from_utf8_lossy(key).into_owned(),
                expected: entry.version,
                found: commit.from_version,
            });
        }
        if let (Some(aggregate), Some(state)) = (aggregate, &mut entry.state) {
            for event in &commit.events {
                aggregate
                    .evolve_recorded(
                        state,
                        &event.type_name,
                        event.schema,
                        event.data.get(),
                        commit.occurred_at(event),
                    )
                    .map_err(|error| DamageKind::Unreadable(error.to_string()))?;
            }
        }
        entry.version = commit.version();
        let head = IdHead {
            offset,
            position,
            recorded_at: commit.recorded_at,
            fingerprint,
            version: commit.version(),
        };
        let known = match &commit.rejection {
            Some(rejection) => StoredId::rejected(&head, rejection),
            None => {
                let events = commit.events.iter();
                StoredId::accepted(
                    &head,
                    events.map(|event| (event.id, event.type_name.as_str())),
                )
            }
        };
        let id = commit.command.id.clone();
        match was_new {
            true => entry.first = Some(FirstId { id, known }),
            false => self.remember(id_key(key, &id), known, commit.recorded_at),
        }
        self.unsaved_commits += 1;
        Ok(())
    }

    /// Takes up an accepted commit of this owner's own deciding.
    pub(super) fn fold_own(&mut self, own: OwnCommit<'_>) {
        let OwnCommit {
            key,
            events,
            occurred_at,
            state,
            id,
            id_key,
            head,
            decision,
        } = own;
        let category = image::category_of(key);
        self.stream(key, category);
        if self.is_stale() {
            return;
        }
        let (entry, was_new) = self.streams.changed(key).expect(LOOKED_UP);
        match (state, &mut entry.state, self.registry.get(category)) {
            (Some(state), _, _) => entry.state = Some(state),
            (None, Some(state), Some(aggregate)) => {
                for event in events {
                    aggregate.evolve(state, event, occurred_at);
                }
            }
            (None, _, _) => {}
        }
        entry.version = head.version;
        let known = StoredId::of(&head, decision);
        match was_new {
            true => entry.first = Some(FirstId { id, known }),
            false => self.remember(id_key, known, head.recorded_at),
        }
        self.unsaved_commits += 1;
    }

    fn remember(&mut self, id_key: Bytes, known: StoredId, recorded_at: Timestamp) {
        self.ids.insert(id_key, known);
        let since = self.ids_since.unwrap_or(recorded_at);
        self.ids_since = Some(since.min(recorded_at));
    }

    /// Writes what changed to the local store, at the place that `checkpoint` names, and evicts
    /// states beyond `states_bytes_max`.
    ///
    /// # Errors
    /// [`StoreError`]: memory goes on keeping what changed.
    pub(super) fn save(
        &mut self,
        checkpoint: Checkpoint,
        seen: Option<Checkpoint>,
        holder: Option<Hint>,
        states_bytes_max: usize,
    ) -> Result<(), StoreError> {
        self.unsaved_commits = 0;
        if self.is_stale() {
            return Ok(());
        }
        let forget_before = self.forget_before(checkpoint.last_recorded_at);
        if !self.store.keeps() {
            self.forget_in_memory(forget_before);
            return Ok(());
        }
        let saved = Saved {
            checkpoint,
            seen,
            holder,
            idempotency_window_ms: self.idempotency_window_ms,
            fingerprint_key: self.fingerprint_key,
        };
        let written = self.write(&saved, forget_before);
        match written {
            Ok(()) => self.alone = false,
            Err(_) => self.forget_in_memory(forget_before),
        }
        self.streams.evict(states_bytes_max);
        written
    }

    fn write(&mut self, saved: &Saved, forget_before: Option<Timestamp>) -> Result<(), StoreError> {
        let mut batch = SaveBatch {
            forget_before,
            ..SaveBatch::default()
        };
        let is_kept = |first: &&FirstId| {
            forget_before.is_none_or(|before| first.known.recorded_at() > Some(before))
        };
        let mut too_old = Vec::new();
        for (key, entry) in self.streams.dirty() {
            let first = entry.first.as_ref().filter(is_kept);
            if first.is_none() && entry.first.is_some() {
                too_old.push(key.clone());
            }
            let stored = StoredState {
                version: entry.version,
                first: first.cloned(),
                state: encode(&self.registry, key, entry)?,
            };
            batch.states.push((key.clone(), stored));
        }
        self.streams.forget_firsts(&too_old);
        if self.alone {
            // Everything is here, and dirty: a store that works again takes all of it, or nothing.
            self.store.clear()?;
        }
        batch.ids = std::mem::take(&mut self.ids);
        if let Err(error) = self.store.save(saved, &batch) {
            self.ids = batch.ids;
            return Err(error);
        }
        self.let_ids_go();
        let states = batch.states.iter();
        self.streams
            .stored(states.map(|(_, stored)| stored.state.len()));
        Ok(())
    }

    /// About how much memory is taken by what the local store has not taken, in bytes, as far as it
    /// was to take it.
    pub(super) fn unsaved_bytes(&self) -> usize {
        let ids = self.ids.iter();
        let weight =
            |(key, known): (&Bytes, &StoredId)| ID_BYTES + key.len() + known.as_bytes().len();
        let ids: usize = ids.map(weight).sum();
        self.streams.dirty_bytes() + ids
    }

    /// Keeps nothing more in memory, until the local store is loaded again.
    pub(super) fn drop_all(&mut self) {
        self.forget_all();
        self.doubt = Some(Doubt::Unread);
    }

    /// Whether the local store takes so many bytes now.
    ///
    /// # Errors
    /// [`StoreError`]: it does not.
    pub(super) fn try_store(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.store.try_out(bytes)
    }

    fn forget_before(&self, last_recorded_at: Option<Timestamp>) -> Option<Timestamp> {
        let micros = last_recorded_at?
            .micros()
            .saturating_sub(self.window_micros());
        Timestamp::from_micros(micros).ok()
    }

    /// Forgets ids that are too old to be remembered, each time when half as many have come as were
    /// left.
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

fn encode(registry: &Registry, key: &Bytes, entry: &StreamEntry) -> Result<Vec<u8>, StoreError> {
    let aggregate = registry.get(image::category_of(key));
    match (aggregate, &entry.state) {
        (Some(aggregate), Some(state)) => Ok(aggregate.encode_state(state)?.into_bytes()),
        _ => Ok(Vec::new()),
    }
}

/// A commit of this owner's own deciding.
pub(super) struct OwnCommit<'a> {
    pub(super) key: &'a Bytes,
    pub(super) events: &'a [DecidedEvent],
    /// The business time of the events.
    pub(super) occurred_at: Timestamp,
    /// The stream's state behind it, where that is known.
    pub(super) state: Option<Opaque>,
    pub(super) id: CommandId,
    pub(super) id_key: Bytes,
    pub(super) head: IdHead,
    pub(super) decision: &'a Decision,
}

/// What is known of a command id: where and when, and what was decided.
pub(super) type KnownId = (IdHead, Decision);

/// What the log says of the command that left `commit` at `position`.
pub(super) fn answer_of(chain: &Chain, commit: &Commit, position: Position) -> Option<Answer> {
    Some(Answer {
        tenant: commit.tenant.clone(),
        stream: commit.stream.clone(),
        command_id: commit.command.id.clone(),
        version: commit.version(),
        position: PositionToken::at(chain.log?, chain.partition, position),
        decision: decision_of(commit)?,
        repeated: false,
    })
}

/// What was decided, as a commit says it; absent where it refuses without a reason.
fn decision_of(commit: &Commit) -> Option<Decision> {
    match (commit.outcome, &commit.rejection) {
        (Outcome::Accepted, _) => {
            let events = commit.events.iter().zip(commit.from_version + 1..);
            let events = events.map(|(event, version)| EventRef {
                id: event.id,
                type_name: event.type_name.clone(),
                version,
            });
            Some(Decision::Accepted(events.collect()))
        }
        (Outcome::Rejected, Some(rejection)) => Some(Decision::Rejected(rejection.clone())),
        (Outcome::Rejected, None) => None,
    }
}

/// What is known of a command id as the answer to one more sending of it.
pub(super) fn answer_again(
    chain: &Chain,
    (tenant, stream, id): (&TenantId, &StreamName, &CommandId),
    (head, decision): KnownId,
) -> Answer {
    let log = chain
        .log
        .expect("nothing is known of a log without a claim");
    Answer {
        tenant: tenant.clone(),
        stream: stream.clone(),
        command_id: id.clone(),
        version: head.version,
        position: PositionToken::at(log, chain.partition, head.position),
        decision,
        repeated: false,
    }
}
