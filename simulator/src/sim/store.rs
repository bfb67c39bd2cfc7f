//! A node's local checkpoint store, and what a crash leaves of it.
//!
//! Invariant: checkpoint and contents change in one step. A crash leaves the state after some
//! earlier step, or nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use engine::owner::{SaveBatch, Saved, StateStore, StoreError, StoredId, StoredState};
use kernel::Timestamp;

#[derive(Default)]
struct Contents {
    saved: Option<Saved>,
    states: BTreeMap<Bytes, StoredState>,
    ids: BTreeMap<Bytes, StoredId>,
    /// No id is older than this. A save that forgets only ids before this need not search for any.
    oldest: Option<Timestamp>,
}

#[derive(Default)]
struct Kept {
    now: Contents,
    /// The previous values of what the last save changed; `None`: there is no save to lose.
    before: Option<Before>,
    /// Whether the store can be neither read nor written.
    is_away: bool,
}

/// The previous values of what one save changed.
#[derive(Default)]
struct Before {
    saved: Option<Saved>,
    states: Vec<(Bytes, Option<StoredState>)>,
    ids: Vec<(Bytes, Option<StoredId>)>,
}

fn put_back<T>(map: &mut BTreeMap<Bytes, T>, before: Vec<(Bytes, Option<T>)>) {
    for (key, value) in before.into_iter().rev() {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

/// The store of one partition; its contents outlive the node's process.
#[derive(Clone, Default)]
pub struct LocalStore(Arc<Mutex<Kept>>);

impl LocalStore {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses the last save, if nothing else was lost since.
    pub fn lose_last_save(&self) {
        let mut kept = self.kept();
        if let Some(before) = kept.before.take() {
            put_back(&mut kept.now.states, before.states);
            put_back(&mut kept.now.ids, before.ids);
            kept.now.saved = before.saved;
        }
    }

    pub fn lose_all(&self) {
        let mut kept = self.kept();
        (kept.now, kept.before) = Default::default();
    }

    /// Makes the store fail, or work again.
    pub fn set_away(&self, is_away: bool) {
        self.kept().is_away = is_away;
    }

    fn used(&self) -> Result<MutexGuard<'_, Kept>, StoreError> {
        let kept = self.kept();
        match kept.is_away {
            true => Err(StoreError::Closed),
            false => Ok(kept),
        }
    }
}

impl StateStore for LocalStore {
    fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        Ok(self.used()?.now.saved.clone())
    }

    fn state(&self, stream_key: &[u8]) -> Result<Option<StoredState>, StoreError> {
        Ok(self.used()?.now.states.get(stream_key).cloned())
    }

    fn id(&self, id_key: &[u8]) -> Result<Option<StoredId>, StoreError> {
        Ok(self.used()?.now.ids.get(id_key).cloned())
    }

    fn save(&mut self, saved: &Saved, batch: &SaveBatch) -> Result<(), StoreError> {
        let mut kept = self.used()?;
        let now = &mut kept.now;
        let mut before = Before {
            saved: now.saved.take(),
            ..Before::default()
        };
        let oldest = now.oldest;
        let is_due = |moment: &Timestamp| oldest.is_some_and(|o| o < *moment);
        if let Some(moment) = batch.forget_before.filter(is_due) {
            let is_old = |_: &Bytes, known: &mut StoredId| known.recorded_at() < Some(moment);
            let old = now.ids.extract_if(.., is_old);
            before.ids = old.map(|(key, known)| (key, Some(known))).collect();
        }
        for (key, state) in &batch.states {
            let old = now.states.insert(key.clone(), state.clone());
            before.states.push((key.clone(), old));
        }
        for (key, known) in &batch.ids {
            let recorded_at = known.recorded_at();
            now.oldest = now.oldest.map_or(recorded_at, |o| recorded_at.min(Some(o)));
            let old = now.ids.insert(key.clone(), known.clone());
            before.ids.push((key.clone(), old));
        }
        now.saved = Some(saved.clone());
        kept.before = Some(before);
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        let mut kept = self.used()?;
        (kept.now, kept.before) = Default::default();
        Ok(())
    }

    fn try_out(&mut self, _: usize) -> Result<(), StoreError> {
        self.used().map(drop)
    }

    fn keeps(&self) -> bool {
        true
    }
}
