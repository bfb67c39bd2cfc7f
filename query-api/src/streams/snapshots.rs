//! States of streams that were folded before, from which later folds go on.
//!
//! Invariant: a state is used only if the record that it ends with is still the one in the index,
//! by its hash; then all records before it are the same, too, because each holds the hash of the
//! history before it. The kept bytes are bounded: what was used longest ago goes first. Deliberately
//! absent: a state of other rules; a new program begins without any.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::{StreamName, TenantId, Timestamp};
use uuid::Uuid;

/// The most bytes that are kept.
const BYTES_MAX: usize = 16 << 20;
/// What a snapshot takes beside its texts, about.
const ENTRY_BYTES: usize = 512;

/// How far a stream was folded: to the end of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The stream's version after the commit.
    pub(super) version: u64,
    /// The commit's id.
    pub(super) commit: Uuid,
    /// The hash of its record.
    pub(super) record_hash: Box<[u8]>,
    /// When it was recorded.
    pub(super) recorded_at: Timestamp,
    /// The latest recorded time so far.
    pub(super) recorded_max: Timestamp,
    /// The latest business time so far.
    pub(super) occurred_max: Timestamp,
}

/// A state that was folded.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) end: End,
    pub(super) json: Box<str>,
}

type Key = (TenantId, StreamName);

#[derive(Default)]
struct Kept {
    streams: BTreeMap<Key, BTreeMap<u64, (u64, Arc<Snapshot>)>>,
    /// The use of each snapshot by the number of the use.
    uses: BTreeMap<u64, (Key, u64)>,
    clock: u64,
    bytes: usize,
}

/// The snapshots of all streams.
#[derive(Default)]
pub(crate) struct Snapshots(Mutex<Kept>);

impl Snapshots {
    /// The last snapshot that `fits`, of those up to a version.
    pub(super) fn last(
        &self,
        tenant: &TenantId,
        stream: &StreamName,
        up_to: u64,
        fits: impl Fn(&End) -> bool,
    ) -> Option<Arc<Snapshot>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant.clone(), stream.clone());
        let mut candidates = kept.streams.get(&key)?.range(..=up_to).rev();
        let found = candidates.find(|(_, (_, snapshot))| fits(&snapshot.end))?;
        let snapshot = Arc::clone(&found.1.1);
        kept.put(key, Arc::clone(&snapshot));
        Some(snapshot)
    }

    /// Keeps a snapshot.
    pub(super) fn put(&self, tenant: &TenantId, stream: &StreamName, snapshot: Snapshot) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.put((tenant.clone(), stream.clone()), Arc::new(snapshot));
        while kept.bytes > BYTES_MAX {
            let Some((_, (key, version))) = kept.uses.pop_first() else {
                break;
            };
            kept.take(&key, version);
        }
    }

    /// Forgets a stream whose records are not those that were folded.
    pub(super) fn forget(&self, tenant: &TenantId, stream: &StreamName) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant.clone(), stream.clone());
        let versions = kept.streams.get(&key);
        let versions: Vec<u64> = versions
            .into_iter()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        for version in versions {
            kept.take(&key, version);
        }
    }
}

impl Kept {
    fn put(&mut self, key: Key, snapshot: Arc<Snapshot>) {
        let version = snapshot.end.version;
        self.take(&key, version);
        self.clock += 1;
        self.bytes += size(&key, &snapshot);
        self.uses.insert(self.clock, (key.clone(), version));
        let versions = self.streams.entry(key).or_default();
        versions.insert(version, (self.clock, snapshot));
    }

    fn take(&mut self, key: &Key, version: u64) {
        let Some(versions) = self.streams.get_mut(key) else {
            return;
        };
        let taken = versions.remove(&version);
        if versions.is_empty() {
            self.streams.remove(key);
        }
        if let Some((used, snapshot)) = taken {
            self.uses.remove(&used);
            self.bytes -= size(key, &snapshot);
        }
    }
}

fn size(key: &Key, snapshot: &Snapshot) -> usize {
    2 * (key.0.as_str().len() + key.1.as_str().len()) + snapshot.json.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(version: u64, bytes: usize) -> Snapshot {
        let at = Timestamp::from_micros(i64::try_from(version).unwrap()).unwrap();
        Snapshot {
            end: End {
                version,
                commit: Uuid::nil(),
                record_hash: Box::default(),
                recorded_at: at,
                recorded_max: at,
                occurred_max: at,
            },
            json: "x".repeat(bytes).into(),
        }
    }

    #[test]
    fn the_last_one_that_fits_is_found_and_what_was_used_longest_ago_goes() {
        let snapshots = Snapshots::default();
        let (tenant, stream) = (TenantId::default(), "order-1".parse().unwrap());
        let find = |up_to: u64, before: i64| {
            let fits = |end: &End| end.recorded_max.micros() < before;
            let found = snapshots.last(&tenant, &stream, up_to, fits);
            found.map(|found| found.end.version)
        };
        for version in [10, 20, 30] {
            snapshots.put(&tenant, &stream, snapshot(version, 5 << 20));
        }
        assert_eq!(find(25, 100), Some(20));
        assert_eq!(find(u64::MAX, 30), Some(20));
        assert_eq!(find(9, 100), None);
        // 10 and 30 were used before 20.
        assert_eq!(find(30, 100), Some(30));
        snapshots.put(&tenant, &stream, snapshot(40, 6 << 20));
        assert_eq!(find(15, 100), None);
        assert_eq!(find(35, 100), Some(30));
        let kept = snapshots.0.lock().unwrap();
        assert!(
            kept.bytes <= BYTES_MAX && kept.uses.len() == 2,
            "{}",
            kept.bytes
        );
        drop(kept);
        snapshots.forget(&tenant, &stream);
        assert_eq!(find(u64::MAX, 100), None);
        let kept = snapshots.0.lock().unwrap();
        assert!(kept.bytes == 0 && kept.uses.is_empty() && kept.streams.is_empty());
    }
}
