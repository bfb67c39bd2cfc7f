//! Forgetting command ids that are too old: each save looks at some, from where the last one stopped.
//!
//! Invariant: a save looks at more ids than it brings, so that those that are too old and still there
//! stay within a part of those that are not. Nobody reads them: whoever asks for an id sees its age.
//! Deliberately absent: what is too old, and ids that streams begin with: they lie in the streams' rows,
//! and go when those are written again.

use std::ops::Bound;

use fjall::{Keyspace, OwnedWriteBatch, Slice};
use kernel::Timestamp;

use super::{ID, SaveBatch, StoreError, form};

/// How many ids are looked at for each that is new.
const LOOKS_EACH: usize = 2;

/// Where the store says of what age its ids are at most.
const OLDEST: &[u8] = b"o";

/// How far the looking is.
#[derive(Clone, Default)]
pub(super) struct Sweep {
    /// The last id that was looked at; absent: a round begins.
    behind: Option<Slice>,
    /// The oldest of those that this round has left.
    left: Option<Timestamp>,
    /// No id is older than this; absent: who knows.
    oldest: Option<Timestamp>,
}

impl Sweep {
    /// As the store says.
    pub(super) fn load(keyspace: &Keyspace) -> Result<Self, StoreError> {
        let oldest = keyspace.get(OLDEST)?;
        let oldest = oldest.as_deref().map(form::moment);
        Ok(Self {
            oldest: oldest.map(|it| it.ok_or(StoreError::Form)).transpose()?,
            ..Self::default()
        })
    }

    /// Takes ids that are too old out of the keyspace, where there may be any.
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
        // Each stream that changed may begin with one.
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
        // What comes is younger than what is too old now.
        let oldest = self.left.unwrap_or(before);
        batch.insert(keyspace, OLDEST, oldest.micros().to_be_bytes());
        *self = Self {
            oldest: Some(oldest),
            ..Self::default()
        };
        Ok(())
    }
}
