//! The local store of a modelled node; a crash may keep or lose it.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use engine::owner::{SaveBatch, Saved, StateStore, StoreError, StoredId, StoredState};

#[derive(Clone, Default)]
struct Content {
    saved: Option<Saved>,
    states: BTreeMap<Vec<u8>, StoredState>,
    ids: BTreeMap<Vec<u8>, StoredId>,
}

/// A store in memory; its clones share the content.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Content>>);

impl MemoryStore {
    fn with<R>(&self, use_it: impl FnOnce(&mut Content) -> R) -> R {
        use_it(&mut self.0.lock().expect("nobody panics while holding it"))
    }

    /// Another store with the same content.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.with(|content| content.clone()))))
    }

    /// A digest that differs for different contents.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.with(|content| {
            let place = content.saved.as_ref().map(|saved| {
                let place = &saved.place.checkpoint;
                (place.offset, place.record_hash, place.head, place.position)
            });
            place.hash(&mut hasher);
            for (key, state) in &content.states {
                (key, state.version, &state.first, &state.state).hash(&mut hasher);
            }
            for (key, id) in &content.ids {
                (key, id).hash(&mut hasher);
            }
        });
        hasher.finish()
    }
}

impl StateStore for MemoryStore {
    fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        Ok(self.with(|content| content.saved.clone()))
    }

    fn state(&self, stream_key: &[u8]) -> Result<Option<StoredState>, StoreError> {
        Ok(self.with(|content| content.states.get(stream_key).cloned()))
    }

    fn id(&self, id_key: &[u8]) -> Result<Option<StoredId>, StoreError> {
        Ok(self.with(|content| content.ids.get(id_key).cloned()))
    }

    fn save(&mut self, saved: &Saved, batch: &SaveBatch) -> Result<(), StoreError> {
        self.with(|content| {
            content.saved = Some(saved.clone());
            let states = batch.states.iter();
            content
                .states
                .extend(states.map(|(key, state)| (key.to_vec(), state.clone())));
            let ids = batch.ids.iter();
            content
                .ids
                .extend(ids.map(|(key, id)| (key.to_vec(), id.clone())));
        });
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.with(|content| *content = Content::default());
        Ok(())
    }

    fn try_out(&mut self, _: usize) -> Result<(), StoreError> {
        Ok(())
    }

    fn keeps(&self) -> bool {
        true
    }
}
