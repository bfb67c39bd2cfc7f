//! Removing command ids that have expired: each save examines some ids, from where the last save
//! stopped.
//!
//! Invariant: a save examines more ids than it adds, so that expired ids stay a bounded fraction of
//! live ones. Nobody takes an expired id for a live one: each look-up checks the id's age.
//! Deliberately absent: when an id expires, and the ids with which streams begin. Those are part of
//! the streams' rows, and go when a row is written again.

use std::ops::Bound;

use fjall::{Keyspace, OwnedWriteBatch, Slice};
use kernel::Timestamp;

use super::{ID, SaveBatch, StoreError, form};

/// How many ids are examined for each new one.
const LOOKS_EACH: usize = 2;

/// The key of the moment before which no id in the store was recorded.
const OLDEST: &[u8] = b"o";

/// How far the sweep has come.
#[derive(Clone, Default)]
pub(super) struct Sweep {
    /// The last id that was examined; absent: a new round begins.
    behind: Option<Slice>,
    /// When the oldest id was recorded that this round has kept.
    left: Option<Timestamp>,
    /// No id is older than this; absent: unknown.
    oldest: Option<Timestamp>,
}

impl Sweep {
    /// The sweep as the store knows it: a new round begins.
    pub(super) fn load(keyspace: &Keyspace) -> Result<Self, StoreError> {
        let oldest = keyspace.get(OLDEST)?;
        let oldest = oldest.as_deref().map(form::moment);
        Ok(Self {
            oldest: oldest.map(|it| it.ok_or(StoreError::Form)).transpose()?,
            ..Self::default()
        })
    }

    /// Removes expired ids from the keyspace, if there may be any.
    pub(super) fn forget(
        &mut self,
        keyspace: &Keyspace,
        changes: &SaveBatch,
        batch: &mut OwnedWriteBatch,
    ) -> Result<(), StoreError> {
        let Some(before) = changes.forget_before else {
            return Ok(());
        };
        if self.oldest.is_none_or(|oldest| oldest < before) {
            self.look(keyspace, changes, before, batch)?;
        }
        Ok(())
    }

    fn look(
        &mut self,
        keyspace: &Keyspace,
        changes: &SaveBatch,
        before: Timestamp,
        batch: &mut OwnedWriteBatch,
    ) -> Result<(), StoreError> {
        let from = match &self.behind {
            Some(behind) => Bound::Excluded(behind.clone()),
            None => Bound::Included(Slice::from([ID])),
        };
        let ids = (from, Bound::Excluded(Slice::from([ID + 1])));
        // Each stream that changed may bring the id with which it begins.
        let brought = changes.ids.len() + changes.states.len();
        let mut looks = brought * LOOKS_EACH;
        for entry in keyspace.range(ids) {
            if looks == 0 {
                return Ok(());
            }
            looks -= 1;
            let (key, id) = entry.into_inner()?;
            let recorded_at = form::recorded_at(&id).ok_or(StoreError::Form)?;
            if recorded_at >= before {
                self.left = Some(self.left.map_or(recorded_at, |left| left.min(recorded_at)));
            } else if !changes.ids.contains_key(&key[1..]) {
                batch.remove(keyspace, key.clone());
            }
            self.behind = Some(key);
        }
        // Later ids are younger than those that have expired now.
        let oldest = self.left.unwrap_or(before);
        batch.insert(keyspace, OLDEST, oldest.micros().to_be_bytes());
        *self = Self {
            oldest: Some(oldest),
            ..Self::default()
        };
        Ok(())
    }
}
