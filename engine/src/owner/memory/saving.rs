//! Writing what memory holds to the local store.
//!
//! Invariant: data that cannot be written does not keep other data from being written.

use bytes::Bytes;
use kernel::Timestamp;
use kernel::registry::{Registry, RuleError};

use super::streams::StreamEntry;
use super::{LOOKED_UP, Memory, image};
use crate::frozen::FrozenBy;
use crate::owner::store::{FirstId, SaveBatch, Saved, SavedPlace, StoreError, StoredState};

impl Memory {
    /// Writes what changed to the local store, at `place`, and evicts states
    /// beyond `states_bytes_max`. After an error, memory goes on keeping what changed.
    pub(in crate::owner) fn save(
        &mut self,
        place: SavedPlace,
        states_bytes_max: usize,
    ) -> Result<(), StoreError> {
        self.unsaved_commits = 0;
        if self.is_stale() {
            return Ok(());
        }
        let forget_before = self.forget_before(place.checkpoint.last_recorded_at);
        if !self.store.keeps() {
            self.forget_in_memory(forget_before);
            return Ok(());
        }
        let batch = self.batch(forget_before);
        let saved = Saved {
            place,
            idempotency_window_ms: self.idempotency_window_ms,
            fingerprint_key: self.fingerprint_key,
            frozen: self.frozen_count,
            frozen_by_rules: self.frozen_by_rules,
            rules: self.rules.clone(),
        };
        let written = self.write(&saved, &batch);
        match written {
            Ok(()) => self.alone = false,
            Err(_) => {
                self.ids = batch.ids;
                self.forget_in_memory(forget_before);
            }
        }
        self.streams.evict(states_bytes_max);
        written
    }

    /// What the local store lacks. A stream whose state cannot be written as JSON is frozen:
    /// otherwise nothing could be saved any more.
    fn batch(&mut self, forget_before: Option<Timestamp>) -> SaveBatch {
        let mut batch = SaveBatch {
            forget_before,
            ..SaveBatch::default()
        };
        let is_kept = |first: &FirstId| {
            forget_before.is_none_or(|before| first.known.recorded_at() > Some(before))
        };
        for key in self.streams.dirty_keys() {
            let (entry, _) = self.streams.changed(&key).expect(LOOKED_UP);
            entry.first.take_if(|first| !is_kept(first));
            let state = encode(&self.registry, &key, entry).unwrap_or_else(|error| {
                self.freeze(&key, FrozenBy::Rules(error.to_string()));
                Vec::new()
            });
            let entry = self.streams.get(&key).expect(LOOKED_UP);
            let stored = StoredState {
                version: entry.version,
                first: entry.first.clone(),
                frozen: entry.frozen.as_deref().cloned(),
                state,
            };
            batch.states.push((key, stored));
        }
        batch.ids = std::mem::take(&mut self.ids);
        batch
    }

    fn write(&mut self, saved: &Saved, batch: &SaveBatch) -> Result<(), StoreError> {
        if self.alone {
            // Memory holds everything, and all of it is dirty: the store takes all of it, or
            // nothing.
            self.store.clear()?;
        }
        self.store.save(saved, batch)?;
        self.let_ids_go();
        let states = batch.states.iter();
        self.streams
            .stored(states.map(|(_, stored)| stored.state.len()));
        Ok(())
    }
}

fn encode(registry: &Registry, key: &Bytes, entry: &StreamEntry) -> Result<Vec<u8>, RuleError> {
    let aggregate = registry.get(image::category_of(key));
    match (aggregate, &entry.state) {
        (Some(aggregate), Some(state)) => Ok(aggregate.encode_state(state)?.into_bytes()),
        _ => Ok(Vec::new()),
    }
}
