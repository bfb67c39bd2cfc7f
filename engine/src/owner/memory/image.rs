//! What an owner remembers, copied and digested for a model checker.

use std::hash::{Hash, Hasher};

use bytes::Bytes;
use kernel::registry::{Opaque, Registry};

use super::Memory;
use super::streams::StreamEntry;
use crate::owner::machine::image::{StateDigest, unordered};
use crate::owner::store::StateStore;

impl Memory {
    pub(in crate::owner) fn fork(&self, store: Box<dyn StateStore>) -> Self {
        let copy = |key: &Bytes, state: &Opaque| {
            let aggregate = self.registry.get(category_of(key))?;
            aggregate.copy(state).ok()
        };
        Self {
            registry: self.registry.clone(),
            store,
            streams: self.streams.fork(copy),
            ids: self.ids.clone(),
            rules: self.rules.clone(),
            ..*self
        }
    }

    /// Hashes everything that decides what the memory does next.
    pub(in crate::owner) fn digest(&self, hasher: &mut impl Hasher) {
        let Self {
            registry,
            store: _,
            streams,
            ids,
            // An id that is too old has no effect, whether it is still here or not.
            ids_left: _,
            ids_since: _,
            fingerprint_key,
            idempotency_window_ms,
            unsaved_commits,
            fault,
            alone,
            place,
            frozen_count,
            frozen_by_rules,
            rules,
            is_folded_again,
        } = self;
        let stream = |(key, entry): (&Bytes, &StreamEntry), hasher: &mut StateDigest| {
            (key, entry.version, entry.stored_bytes).hash(hasher);
            // The size of a state decides nothing in a model.
            (&entry.first, entry.dirty, entry.is_stored, entry.used_in).hash(hasher);
            entry.frozen.hash(hasher);
            digest_state(registry, key, entry.state.as_ref(), hasher);
        };
        unordered(streams.iter(), hasher, stream);
        unordered(ids.iter(), hasher, |id, hasher| id.hash(hasher));
        (fingerprint_key, idempotency_window_ms).hash(hasher);
        (streams.generation, unsaved_commits, fault, alone).hash(hasher);
        (place, frozen_count, frozen_by_rules, rules, is_folded_again).hash(hasher);
    }
}

/// The category of the stream that a key names.
pub(in crate::owner) fn category_of(stream_key: &[u8]) -> &str {
    let name = std::str::from_utf8(stream_key).unwrap_or_default();
    let stream = name.split_once('/').map_or("", |(_, stream)| stream);
    stream.split_once('-').map_or("", |(category, _)| category)
}

pub(in crate::owner) fn digest_state(
    registry: &Registry,
    key: &[u8],
    state: Option<&Opaque>,
    hasher: &mut impl Hasher,
) {
    let aggregate = registry.get(category_of(key));
    let json = state.zip(aggregate).map(|(state, aggregate)| {
        let json = aggregate.encode_state(state);
        json.expect("a state that can be stored can be digested")
    });
    json.hash(hasher);
}
