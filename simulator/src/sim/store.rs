//! A node's local checkpoint store, as far as a crash leaves it.
//!
//! Invariant: place and contents change in one step; what a crash leaves is what stood at some
//! earlier step, or nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use engine::owner::{SaveBatch, Saved, StateStore, StoreError, StoredId, StoredState};

#[derive(Clone, Default)]
struct Contents {
    saved: Option<Saved>,
    states: BTreeMap<Bytes, StoredState>,
    ids: BTreeMap<Bytes, StoredId>,
}

#[derive(Default)]
struct Kept {
    now: Contents,
    /// As it stood before the last save.
    before: Contents,
}

/// What a crash does to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    None,
    /// The last save.
    LastSave,
    /// All of it.
    Everything,
}

/// The store of one partition; its contents outlive the node's process.
#[derive(Clone, Default)]
pub struct LocalStore(Arc<Mutex<Kept>>);

impl LocalStore {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a crash happen to it.
    pub fn lose(&self, loss: Loss) {
        let mut kept = self.kept();
        match loss {
            Loss::None => {}
            Loss::LastSave => kept.now = kept.before.clone(),
            Loss::Everything => *kept = Kept::default(),
        }
    }
}

impl StateStore for LocalStore {
    fn load(&self) -> Option<Saved> {
        self.kept().now.saved.clone()
    }

    fn state(&self, stream_key: &[u8]) -> Option<StoredState> {
        self.kept().now.states.get(stream_key).cloned()
    }

    fn id(&self, id_key: &[u8]) -> Option<StoredId> {
        self.kept().now.ids.get(id_key).cloned()
    }

    fn save(&mut self, saved: &Saved, batch: &SaveBatch) -> Result<(), StoreError> {
        let mut kept = self.kept();
        kept.before = kept.now.clone();
        let now = &mut kept.now;
        if let Some(before) = batch.forget_before {
            now.ids.retain(|_, known| known.recorded_at >= before);
        }
        now.states.extend(batch.states.iter().cloned());
        let ids = batch.ids.iter();
        now.ids
            .extend(ids.map(|(key, (_, known))| (key.clone(), known.clone())));
        now.saved = Some(saved.clone());
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.kept().now = Contents::default();
        Ok(())
    }

    fn keeps(&self) -> bool {
        true
    }
}
