//! The local checkpoint of an owner: states and command ids at one place in the log.
//!
//! Invariant: everything here can be deleted at any time and is folded again from the log; place
//! and contents change in one step. Deliberately absent: anything that only this store knows.

mod form;
mod sweep;

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use kernel::{CommandId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(super) use self::form::IdHead;
pub use self::form::StoredId;
use event_log::checkpoint::Checkpoint;
use event_log::directory::Hint;
use event_log::keyed::Keyed;
use kernel::explained;
use position::{Offset, Partition};

use self::sweep::Sweep;
use crate::frozen::Frozen;

/// The least and the most bytes that wait in memory to be written, per partition.
const MEMTABLE_BYTES: RangeInclusive<u64> = 256 << 10..=4 << 20;
/// The size of the files of a partition's store, in bytes. The library merges new data with files
/// of up to four times this size together before it sets any of them aside. This size therefore
/// bounds how often each row is written again. Smaller files would mean many open files.
const FILE_BYTES: u64 = 16 << 20;
/// About how many times its own size waiting data takes in memory.
const MEMTABLE_TIMES: u64 = 2;
/// The most bytes of journals on disk, over all partitions: the least that the library accepts, and
/// more than all data that waits in memory.
const JOURNALS_BYTES: u64 = 64 << 20;
/// The pause before a store that failed is opened again.
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A failed operation on the local store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's own failure.
    #[error("the local checkpoint store failed")]
    Fjall(#[from] fjall::Error),
    /// The store failed before, and could not be opened again yet.
    #[error("the local checkpoint store is closed because it failed")]
    Closed,
    /// The store was opened again, and is not at the place where it was left.
    #[error("the local checkpoint store lost data that it had confirmed")]
    Lost,
    /// The stored data has another form, or the data to be written has none.
    #[error("the content of the local checkpoint store has an unknown form")]
    Form,
    /// What was to be written has no JSON form.
    #[error("a checkpoint could not be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A state of the domain has no JSON form.
    #[error(transparent)]
    Rules(#[from] kernel::registry::RuleError),
}

impl StoreError {
    /// Whether the operation may succeed later, with what the store has.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Fjall(fjall::Error::Poisoned) | Self::Closed | Self::Lost => true,
            Self::Fjall(error) => is_of_the_moment(error),
            Self::Form | Self::Json(_) | Self::Rules(_) => false,
        }
    }
}

/// The place of a local checkpoint, and what an owner knows there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedPlace {
    pub checkpoint: Checkpoint,
    /// The last place at or before `checkpoint` up to which the log was seen to hold what was
    /// folded.
    pub seen: Option<Checkpoint>,
    /// The node that the newest claim up to there names.
    pub holder: Option<Hint>,
    /// The digest of the list of acknowledged places that the newest claim names.
    pub claimed_list: Option<String>,
    /// The acknowledged places up to there: another list would freeze other streams.
    pub acknowledged: Vec<Offset>,
}

/// A local checkpoint apart from states and command ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    pub place: SavedPlace,
    /// The idempotency window of the log, in milliseconds.
    pub idempotency_window_ms: u64,
    /// The key of the fingerprints that are stored.
    pub fingerprint_key: [u8; 16],
    /// How many streams were frozen up to there.
    pub frozen: u64,
    /// How many of them by the program's rules.
    pub frozen_by_rules: u64,
    /// The versions of the rules by which the states were folded, by category.
    pub rules: BTreeMap<String, u32>,
}

/// One stream's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredState {
    /// Its version.
    pub version: u64,
    /// The command with which the stream begins, unless it is too old to be remembered.
    pub first: Option<FirstId>,
    /// Why the stream is frozen, if it is; then it has no state.
    pub frozen: Option<Frozen>,
    /// The state as JSON; empty where no registered aggregate reads the category.
    pub state: Vec<u8>,
}

/// The id of the command with which a stream begins. It is kept with the stream's state, so that a
/// stream of one command takes one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FirstId {
    pub id: CommandId,
    /// What is known of it.
    pub known: StoredId,
}

impl FirstId {
    /// What is known of a command id of this stream, if it is this first id.
    pub(super) fn known_as(&self, stream_key: &[u8], id_key: &[u8]) -> Option<&StoredId> {
        let id = id_key.get(stream_key.len() + 1..)?;
        (id == self.id.as_str().as_bytes()).then_some(&self.known)
    }
}

/// Everything that is saved in one step with the place.
#[derive(Default)]
pub struct SaveBatch {
    /// States by stream key.
    pub states: Vec<(Bytes, StoredState)>,
    /// All other command ids, by their key.
    pub ids: Keyed<StoredId>,
    /// The moment up to which recorded ids are forgotten.
    pub forget_before: Option<Timestamp>,
}

/// The local store of one partition.
///
/// A failed read is an error and never an absence: an owner that took a failed disk for an empty
/// one would decide on streams as if they were new.
pub trait StateStore: Send {
    /// The place of the checkpoint, if there is one.
    fn load(&mut self) -> Result<Option<Saved>, StoreError>;
    fn state(&self, stream_key: &[u8]) -> Result<Option<StoredState>, StoreError>;
    /// A command id, if it has a row of its own.
    fn id(&self, id_key: &[u8]) -> Result<Option<StoredId>, StoreError>;
    /// Saves the place and everything with it, in one step. After an error, the earlier place still
    /// stands.
    fn save(&mut self, saved: &Saved, batch: &SaveBatch) -> Result<(), StoreError>;
    /// Forgets everything.
    fn clear(&mut self) -> Result<(), StoreError>;
    /// Writes a trial value of this many bytes, and removes it again. After an error, a save of as
    /// much would most likely fail, too.
    fn try_out(&mut self, bytes: usize) -> Result<(), StoreError>;
    /// Whether what is saved can be read again; if not, everything stays in memory.
    fn keeps(&self) -> bool;
}

/// No store: everything stays in memory.
pub struct NoStore;

impl StateStore for NoStore {
    fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        Ok(None)
    }

    fn state(&self, _: &[u8]) -> Result<Option<StoredState>, StoreError> {
        Ok(None)
    }

    fn id(&self, _: &[u8]) -> Result<Option<StoredId>, StoreError> {
        Ok(None)
    }

    fn save(&mut self, _: &Saved, _: &SaveBatch) -> Result<(), StoreError> {
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn try_out(&mut self, _: usize) -> Result<(), StoreError> {
        Ok(())
    }

    fn keeps(&self) -> bool {
        false
    }
}

/// The local store of a node. After one failed write, the library refuses everything for good; the
/// store is then closed and opened again.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    room: Room,
    opened: RwLock<Opened>,
}

/// The open database. All handles are here, so that they can be closed together.
struct Opened {
    database: Option<(Database, HashMap<Partition, Keyspace>)>,
    /// How often it was opened.
    opening: u64,
    tried_at: Instant,
}

const PLACE: &[u8] = b"c";
/// The version of the stored form; it stands before the place. If the stored form is another one,
/// the log is folded again.
const FORM: u8 = 5;
const STATE: u8 = b's';
const ID: u8 = b'i';
/// The key of a value that is written to see whether the disk takes it.
const TRIAL: &[u8] = b"trial";
/// The least size of this value, in bytes.
const TRIAL_BYTES_MIN: usize = 256 << 10;

/// How much may be kept in memory: a quarter for blocks read from disk, the rest for data that
/// waits to be written. The more data waits, the less often it is merged with what is on disk.
#[derive(Clone, Copy)]
struct Room {
    cache_bytes: u64,
    /// For each partition.
    memtable_bytes: u64,
}

impl Room {
    fn of(memory_bytes: u64, partitions: u32) -> Self {
        let cache = memory_bytes / 4;
        let each = (memory_bytes - cache) / MEMTABLE_TIMES / u64::from(partitions.max(1));
        Self {
            cache_bytes: cache,
            memtable_bytes: each.clamp(*MEMTABLE_BYTES.start(), *MEMTABLE_BYTES.end()),
        }
    }
}

fn incompressible(bytes: usize) -> Vec<u8> {
    let blocks = 0_u64..;
    blocks
        .flat_map(|block| Sha256::digest(block.to_be_bytes()))
        .take(bytes)
        .collect()
}

fn open(folder: &Path, room: Room) -> Result<Database, StoreError> {
    let open = || {
        Database::builder(folder)
            .cache_size(room.cache_bytes)
            .max_journaling_size(JOURNALS_BYTES)
            .worker_threads(1)
            .open()
    };
    match open() {
        Ok(database) => Ok(database),
        Err(fjall::Error::Locked) => Err(fjall::Error::Locked.into()),
        Err(error) if is_of_the_moment(&error) => Err(error.into()),
        Err(error) => {
            tracing::warn!(
                error = explained(&error),
                "the local checkpoint store is unreadable; it is deleted and made again"
            );
            std::fs::remove_dir_all(folder).map_err(fjall::Error::from)?;
            Ok(open()?)
        }
    }
}

/// Whether the machine lacks something now, and the store is not damaged.
fn is_of_the_moment(error: &fjall::Error) -> bool {
    use rustix::io::Errno;
    use std::io::ErrorKind::{OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let errno = error.raw_os_error();
            let lacks_files = [Errno::MFILE, Errno::NFILE].map(|it| Some(it.raw_os_error()));
            let lacks = [OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
            return lacks_files.contains(&errno) || lacks.contains(&error.kind());
        }
        cause = error.source();
    }
    false
}

impl Store {
    /// Opens the store in a folder, or makes one. A store that cannot be read is deleted and made
    /// again: the log has everything. If the machine lacks something now, the store is opened
    /// later. The store may take about `memory_bytes` in memory, for `partitions` partitions.
    ///
    /// # Errors
    /// [`StoreError`] where the folder cannot be written.
    pub fn open(folder: &Path, memory_bytes: u64, partitions: u32) -> Result<Self, StoreError> {
        let room = Room::of(memory_bytes, partitions);
        let database = match open(folder, room) {
            Err(StoreError::Fjall(error)) if is_of_the_moment(&error) => {
                let error = explained(&error);
                tracing::warn!(error, "the local checkpoint store cannot be opened now");
                None
            }
            opened => Some((opened?, HashMap::new())),
        };
        let opened = Opened {
            database,
            opening: 1,
            tried_at: Instant::now(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                folder: folder.to_owned(),
                room,
                opened: RwLock::new(opened),
            }),
        })
    }

    /// The part of one partition of one log.
    #[must_use]
    pub fn partition(&self, partition: Partition) -> impl StateStore + use<> {
        PartitionStore {
            shared: Arc::clone(&self.shared),
            partition,
            left: None,
            sweep: Sweep::default(),
        }
    }
}

/// One partition's keyspace, with the database that it belongs to.
struct Part<'a> {
    database: &'a Database,
    keyspace: &'a Keyspace,
    opening: u64,
}

impl Shared {
    /// Runs `act` on a partition's keyspace, which is opened first if it is not open.
    fn with<R>(
        &self,
        partition: Partition,
        act: impl FnOnce(Part<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        loop {
            let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((database, keyspaces)) = &opened.database
                && let Some(keyspace) = keyspaces.get(&partition)
            {
                let opening = opened.opening;
                return act(Part {
                    database,
                    keyspace,
                    opening,
                });
            }
            drop(opened);
            self.open(partition)?;
        }
    }

    /// Opens a partition's keyspace. A closed database is opened again first, if the pause since
    /// the last try is over.
    fn open(&self, partition: Partition) -> Result<(), StoreError> {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.database.is_none() {
            if opened.tried_at.elapsed() < OPEN_AGAIN_AFTER {
                return Err(StoreError::Closed);
            }
            opened.tried_at = Instant::now();
            opened.database = Some((open(&self.folder, self.room)?, HashMap::new()));
            opened.opening += 1;
            tracing::info!("the local checkpoint store is open again");
        }
        let (database, keyspaces) = opened.database.as_mut().ok_or(StoreError::Closed)?;
        let options = || {
            let files = Leveled::default().with_table_target_size(FILE_BYTES);
            KeyspaceCreateOptions::default()
                .max_memtable_size(self.room.memtable_bytes)
                .compaction_strategy(Arc::new(files))
        };
        let keyspace = database.keyspace(&format!("partition-{partition}"), options)?;
        keyspaces.insert(partition, keyspace);
        Ok(())
    }

    /// Closes the database that failed, unless it has been opened again since.
    fn close(&self, opening: u64) {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.opening == opening && opened.database.take().is_some() {
            opened.tried_at = Instant::now();
        }
    }
}

struct PartitionStore {
    shared: Arc<Shared>,
    partition: Partition,
    /// The opening in which the partition was last used, and the place at which it was left.
    left: Option<(u64, Option<Vec<u8>>)>,
    sweep: Sweep,
}

fn key(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind], name].concat()
}

impl Part<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<fjall::Slice>, StoreError> {
        Ok(self.keyspace.get(key)?)
    }

    /// Checks that the partition is still at the place where it was left, if the database was
    /// opened again meanwhile.
    fn check(&self, left: Option<&(u64, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        match left {
            Some((opening, _)) if *opening == self.opening => Ok(()),
            Some((_, place)) if self.get(PLACE)?.as_deref() == place.as_deref() => Ok(()),
            Some(_) => Err(StoreError::Lost),
            None => Ok(()),
        }
    }

    fn save(&self, place: &[u8], changes: &SaveBatch, sweep: &mut Sweep) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        sweep.forget(self.keyspace, changes, &mut batch)?;
        for (stream_key, state) in &changes.states {
            batch.insert(self.keyspace, key(STATE, stream_key), form::row_of(state));
        }
        for (id_key, id) in &changes.ids {
            batch.insert(self.keyspace, key(ID, id_key), id.as_bytes());
        }
        batch.insert(self.keyspace, PLACE, place);
        Ok(batch.commit()?)
    }
}

impl PartitionStore {
    /// Runs `act` on the partition's content, if this is at the place where it was left.
    fn with<R>(
        &self,
        act: impl FnOnce(&Part<'_>) -> Result<R, StoreError>,
    ) -> Result<(u64, R), StoreError> {
        let mut seen = None;
        let done = self.shared.with(self.partition, |part| {
            seen = Some(part.opening);
            part.check(self.left.as_ref())?;
            Ok((part.opening, act(&part)?))
        });
        if let (Err(StoreError::Fjall(_)), Some(opening)) = (&done, seen) {
            self.shared.close(opening);
        }
        done
    }
}

impl StateStore for PartitionStore {
    fn load(&mut self) -> Result<Option<Saved>, StoreError> {
        self.left = None;
        let (opening, (place, sweep)) =
            self.with(|part| Ok((part.get(PLACE)?, Sweep::load(part.keyspace)?)))?;
        let place = place.map(|place| place.to_vec());
        self.sweep = sweep;
        let saved = place.as_deref().map(|place| match place {
            [FORM, saved @ ..] => Ok(serde_json::from_slice(saved)?),
            _ => Err(StoreError::Form),
        });
        let saved = saved.transpose();
        self.left = Some((opening, place));
        saved
    }

    fn state(&self, stream_key: &[u8]) -> Result<Option<StoredState>, StoreError> {
        let (_, bytes) = self.with(|part| part.get(&key(STATE, stream_key)))?;
        let state = bytes.map(|row| form::state_of(&row).ok_or(StoreError::Form));
        state.transpose()
    }

    fn id(&self, id_key: &[u8]) -> Result<Option<StoredId>, StoreError> {
        let (_, bytes) = self.with(|part| part.get(&key(ID, id_key)))?;
        Ok(bytes.as_deref().map(StoredId::from_bytes))
    }

    fn save(&mut self, saved: &Saved, changes: &SaveBatch) -> Result<(), StoreError> {
        let mut place = vec![FORM];
        serde_json::to_writer(&mut place, saved)?;
        let mut sweep = self.sweep.clone();
        let (opening, ()) = self.with(|part| part.save(&place, changes, &mut sweep))?;
        self.sweep = sweep;
        self.left = Some((opening, Some(place)));
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.left = None;
        let (opening, ()) = self.with(|part| Ok(part.keyspace.clear()?))?;
        self.sweep = Sweep::default();
        self.left = Some((opening, None));
        Ok(())
    }

    fn try_out(&mut self, bytes: usize) -> Result<(), StoreError> {
        let bytes = bytes.max(TRIAL_BYTES_MIN);
        self.with(|part| {
            part.keyspace.insert(TRIAL, incompressible(bytes))?;
            part.database.persist(fjall::PersistMode::SyncData)?;
            Ok(part.keyspace.remove(TRIAL)?)
        })?;
        Ok(())
    }

    fn keeps(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
