//! The local checkpoint of an owner: states and command ids at one place in the log.
//!
//! Invariant: everything here can be deleted at any time and is folded again from the log; place
//! and contents change in one step. Deliberately absent: anything that only this store knows.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::command::Answer;
use crate::ids::{Offset, Partition, Position};

/// The most bytes that wait in memory for being written, per partition.
const MEMTABLE_BYTES: u64 = 4 << 20;
/// The most bytes of journals on disk, over all partitions: the least that the library takes, and more
/// than all that waits in memory.
const JOURNALS_BYTES: u64 = 64 << 20;
/// The bytes that blocks read from disk may take in memory, over all partitions.
const CACHE_BYTES: u64 = 32 << 20;

/// A failed operation on the local store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's own failure.
    #[error("the local checkpoint store failed")]
    Fjall(#[from] fjall::Error),
    /// What was to be written has no JSON form.
    #[error("a checkpoint could not be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A state of the domain has no JSON form.
    #[error(transparent)]
    Encode(#[from] crate::registry::EncodeError),
}

/// The place of a local checkpoint, and what else a fold needs there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The place.
    pub checkpoint: Checkpoint,
    /// The idempotency window of the log, in milliseconds.
    pub idempotency_window_ms: u64,
    /// The key of the fingerprints that are stored.
    pub fingerprint_key: [u8; 16],
}

/// One stream's state.
#[derive(Clone, Debug)]
pub struct StoredState {
    /// Its version.
    pub version: u64,
    /// The state as JSON; empty where no registered aggregate reads the category.
    pub state: Vec<u8>,
}

/// What is known of one command id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredId {
    /// Where its commit stands.
    pub offset: Offset,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What its command looked like.
    pub fingerprint: [u8; 16],
    /// What the log says of it.
    pub answer: Answer,
}

/// Everything that moves together with the place.
#[derive(Default)]
pub struct SaveBatch {
    /// States by stream key.
    pub states: Vec<(Bytes, StoredState)>,
    /// Command ids by their key.
    pub ids: HashMap<Bytes, (Position, StoredId)>,
    /// The moment up to which recorded ids are forgotten.
    pub forget_before: Option<Timestamp>,
}

/// The local store of one partition.
pub trait StateStore: Send {
    /// The place it stands at, if it has one that can be read.
    fn load(&self) -> Option<Saved>;
    /// A stream's state.
    fn state(&self, stream_key: &[u8]) -> Option<StoredState>;
    /// A command id.
    fn id(&self, id_key: &[u8]) -> Option<StoredId>;
    /// Moves the place and everything with it.
    ///
    /// # Errors
    /// [`StoreError`]; the earlier place still stands.
    fn save(&mut self, saved: &Saved, batch: &SaveBatch) -> Result<(), StoreError>;
    /// Forgets everything.
    ///
    /// # Errors
    /// [`StoreError`].
    fn clear(&mut self) -> Result<(), StoreError>;
    /// Whether what is saved can be read again; if not, everything stays in memory.
    fn keeps(&self) -> bool;
}

/// No store: everything stays in memory.
pub struct NoStore;

impl StateStore for NoStore {
    fn load(&self) -> Option<Saved> {
        None
    }

    fn state(&self, _: &[u8]) -> Option<StoredState> {
        None
    }

    fn id(&self, _: &[u8]) -> Option<StoredId> {
        None
    }

    fn save(&mut self, _: &Saved, _: &SaveBatch) -> Result<(), StoreError> {
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn keeps(&self) -> bool {
        false
    }
}

/// The local store of a node.
#[derive(Clone)]
pub struct Store {
    database: Database,
}

const PLACE: &[u8] = b"c";
const STATE: u8 = b's';
const ID: u8 = b'i';
const EXPIRY: u8 = b'e';

impl Store {
    /// Opens the store in a folder, or makes one. A store that cannot be read is deleted and made
    /// again: the log has everything.
    ///
    /// # Errors
    /// [`StoreError`] where the folder cannot be written.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let open = || {
            Database::builder(folder)
                .cache_size(CACHE_BYTES)
                .max_journaling_size(JOURNALS_BYTES)
                .worker_threads(1)
                .open()
        };
        let database = match open() {
            Ok(database) => database,
            Err(fjall::Error::Locked) => return Err(fjall::Error::Locked.into()),
            Err(error) => {
                tracing::warn!(%error, "the local checkpoint store is unreadable and made again");
                std::fs::remove_dir_all(folder).map_err(fjall::Error::from)?;
                open()?
            }
        };
        Ok(Self { database })
    }

    /// The part of one partition of one log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn partition(&self, partition: Partition) -> Result<impl StateStore + use<>, StoreError> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspace = self
            .database
            .keyspace(&format!("partition-{partition}"), options)?;
        Ok(PartitionStore {
            database: self.database.clone(),
            keyspace,
        })
    }
}

struct PartitionStore {
    database: Database,
    keyspace: Keyspace,
}

fn key(kind: u8, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(kind);
    key.extend_from_slice(name);
    key
}

fn expiry_key(recorded_at: Timestamp, position: Position) -> Vec<u8> {
    // With the sign bit turned, big-endian bytes sort as the numbers do.
    let micros = recorded_at.micros().cast_unsigned() ^ (1 << 63);
    let mut key = vec![EXPIRY];
    key.extend_from_slice(&micros.to_be_bytes());
    key.extend_from_slice(&position.0.to_be_bytes());
    key
}

impl PartitionStore {
    fn read(&self, key: &[u8]) -> Option<fjall::Slice> {
        self.keyspace.get(key).unwrap_or_else(|error| {
            tracing::warn!(%error, "the local checkpoint store could not be read");
            None
        })
    }

    fn forget(
        &self,
        batch: &mut fjall::OwnedWriteBatch,
        before: Timestamp,
    ) -> Result<(), StoreError> {
        let end = expiry_key(before, Position(0));
        for entry in self.keyspace.range(vec![EXPIRY]..end) {
            let (expiry, id) = entry.into_inner()?;
            batch.remove(&self.keyspace, key(ID, &id));
            batch.remove(&self.keyspace, expiry);
        }
        Ok(())
    }
}

impl StateStore for PartitionStore {
    fn load(&self) -> Option<Saved> {
        serde_json::from_slice(&self.read(PLACE)?).ok()
    }

    fn state(&self, stream_key: &[u8]) -> Option<StoredState> {
        let bytes = self.read(&key(STATE, stream_key))?;
        let (version, state) = bytes.split_first_chunk::<8>()?;
        Some(StoredState {
            version: u64::from_be_bytes(*version),
            state: state.to_vec(),
        })
    }

    fn id(&self, id_key: &[u8]) -> Option<StoredId> {
        serde_json::from_slice(&self.read(&key(ID, id_key))?).ok()
    }

    fn save(&mut self, saved: &Saved, changes: &SaveBatch) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        if let Some(before) = changes.forget_before {
            self.forget(&mut batch, before)?;
        }
        for (stream_key, state) in &changes.states {
            let mut value = state.version.to_be_bytes().to_vec();
            value.extend_from_slice(&state.state);
            batch.insert(&self.keyspace, key(STATE, stream_key), value);
        }
        for (id_key, (position, id)) in &changes.ids {
            batch.insert(
                &self.keyspace,
                expiry_key(id.recorded_at, *position),
                &id_key[..],
            );
            batch.insert(&self.keyspace, key(ID, id_key), serde_json::to_vec(id)?);
        }
        batch.insert(&self.keyspace, PLACE, serde_json::to_vec(saved)?);
        Ok(batch.commit()?)
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        Ok(self.keyspace.clear()?)
    }

    fn keeps(&self) -> bool {
        true
    }
}
