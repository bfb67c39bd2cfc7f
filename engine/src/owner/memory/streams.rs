//! The streams that are kept in memory: which of them are unsaved, and which are evicted when all
//! take too much memory.
//!
//! Invariant: an unsaved stream is never evicted. Deliberately absent: the store, and what a state
//! means.

use std::collections::BTreeMap;

use bytes::Bytes;
use event_log::keyed::Keyed;
use kernel::registry::Opaque;

use super::size::StateSize;
use crate::frozen::Frozen;
use crate::owner::store::FirstId;

/// The memory of an entry apart from its key and its state, in bytes.
const ENTRY_BYTES: usize = 256;
/// The memory of an entry's first id apart from its text and its stored form, in bytes.
const ID_BYTES: usize = 32;
/// How many times its size as JSON a state takes in memory.
pub(in crate::owner) const STATE_TIMES: usize = 3;
/// An eviction makes one part in this many of the limit free, so that not every save needs one.
const FREED_PART: usize = 8;

/// One stream as the accepted history left it.
pub(in crate::owner) struct StreamEntry {
    pub(in crate::owner) version: u64,
    /// Absent where no registered aggregate reads the category, and where the stream is frozen.
    pub(in crate::owner) state: Option<Opaque>,
    /// Why the stream is frozen, if it is.
    pub(in crate::owner) frozen: Option<Box<Frozen>>,
    /// The command with which the stream begins, unless it was too old when the stream was last
    /// saved.
    pub(super) first: Option<FirstId>,
    /// Whether the local store has anything of the stream.
    pub(super) is_stored: bool,
    pub(in crate::owner) size: StateSize,
    /// The size of the state in the local store, in bytes; 0 if it is not there.
    pub(super) stored_bytes: usize,
    pub(super) dirty: bool,
    pub(super) used_in: u64,
    /// The part of `Streams::bytes` that is this entry's.
    weighed: usize,
}

impl StreamEntry {
    /// An entry as the local store has it; `stored_bytes` is absent if the store has none.
    pub(super) fn new(
        version: u64,
        state: Option<Opaque>,
        first: Option<FirstId>,
        stored_bytes: Option<usize>,
    ) -> Self {
        Self {
            version,
            state,
            frozen: None,
            first,
            is_stored: stored_bytes.is_some(),
            size: StateSize::measured(stored_bytes.unwrap_or_default()),
            stored_bytes: stored_bytes.unwrap_or_default(),
            dirty: false,
            used_in: 0,
            weighed: 0,
        }
    }

    /// Freezes the stream: the reason takes the place of its state.
    pub(super) fn freeze(&mut self, frozen: Frozen) {
        self.state = None;
        self.frozen = Some(Box::new(frozen));
    }

    /// Whether nothing is known of the stream, in memory or in the local store.
    pub(super) fn is_new(&self) -> bool {
        !self.is_stored && !self.dirty
    }

    /// The approximate memory of the entry, in bytes.
    fn weight(&self, key: &[u8]) -> usize {
        let first = self.first.as_ref();
        let first = first.map_or(0, |first| {
            ID_BYTES + first.id.as_str().len() + first.known.as_bytes().len()
        });
        ENTRY_BYTES + key.len() + first + self.stored_bytes * STATE_TIMES
    }
}

/// Streams by their keys.
#[derive(Default)]
pub(super) struct Streams {
    entries: Keyed<StreamEntry>,
    /// The keys of the unsaved entries.
    dirty: Vec<Bytes>,
    /// The approximate memory of all entries, in bytes.
    bytes: usize,
    /// Counts the saves; tells which entries were used lately.
    pub(super) generation: u64,
}

impl Streams {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, &StreamEntry)> {
        self.entries.iter()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.dirty.clear();
        self.bytes = 0;
    }

    /// The entry of a stream, made by `load` if it is not in memory.
    pub(super) fn used(
        &mut self,
        key: &[u8],
        load: impl FnOnce() -> StreamEntry,
    ) -> &mut StreamEntry {
        if !self.entries.contains_key(key) {
            let mut entry = load();
            entry.weighed = entry.weight(key);
            self.bytes += entry.weighed;
            // The key may be part of a larger buffer, which must not stay in memory with it.
            self.entries.insert(Bytes::copy_from_slice(key), entry);
        }
        let entry = self.entries.get_mut(key).expect("it was put in");
        entry.used_in = self.generation;
        entry
    }

    /// The entry of a stream, if it is in memory.
    pub(super) fn get(&self, key: &[u8]) -> Option<&StreamEntry> {
        self.entries.get(key)
    }

    /// Marks an entry as unsaved and returns it, with whether the stream was new; `None` if the
    /// stream is not in memory.
    pub(super) fn changed(&mut self, key: &[u8]) -> Option<(&mut StreamEntry, bool)> {
        let entry = self.entries.get_mut(key)?;
        let was_new = entry.is_new();
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(Bytes::copy_from_slice(key));
        }
        Some((entry, was_new))
    }

    /// Forgets the commands with which all streams begin.
    pub(super) fn forget_all_firsts(&mut self) {
        self.entries
            .values_mut()
            .for_each(|entry| entry.first = None);
    }

    /// The keys of the unsaved entries.
    pub(super) fn dirty_keys(&self) -> Vec<Bytes> {
        self.dirty.clone()
    }

    /// The approximate memory of the unsaved entries, in bytes.
    pub(super) fn dirty_bytes(&self) -> usize {
        let weight = |key| Some(self.get(key)?.weight(key));
        self.dirty.iter().filter_map(|key| weight(key)).sum()
    }

    /// Notes that the local store took all unsaved entries; `sizes` are the sizes of their states
    /// there, in the order of [`Self::dirty_keys`].
    pub(super) fn stored(&mut self, sizes: impl IntoIterator<Item = usize>) {
        for (key, size) in self.dirty.drain(..).zip(sizes) {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.is_stored = true;
                entry.stored_bytes = size;
                entry.size = StateSize::measured(size);
                entry.dirty = false;
                self.bytes -= entry.weighed;
                entry.weighed = entry.weight(&key);
                self.bytes += entry.weighed;
            }
        }
    }

    /// Ends a generation. If all entries take more than `bytes_max`, evicts the saved ones that
    /// were not used for longest.
    pub(super) fn evict(&mut self, bytes_max: usize) {
        self.generation += 1;
        if self.bytes <= bytes_max {
            return;
        }
        let surplus = self.bytes - (bytes_max - bytes_max / FREED_PART);
        let mut weights: BTreeMap<u64, usize> = BTreeMap::new();
        for entry in self.entries.values().filter(|entry| !entry.dirty) {
            *weights.entry(entry.used_in).or_default() += entry.weighed;
        }
        let (mut freed, mut keep_from) = (0, 0);
        for (used_in, weight) in weights {
            if freed >= surplus {
                break;
            }
            freed += weight;
            keep_from = used_in + 1;
        }
        self.entries
            .retain(|_, entry| entry.dirty || entry.used_in >= keep_from);
        self.bytes -= freed;
    }

    /// A copy, with states copied by `copy`.
    pub(super) fn fork(&self, copy: impl Fn(&Bytes, &Opaque) -> Option<Opaque>) -> Self {
        let copy = |(key, entry): (&Bytes, &StreamEntry)| {
            let entry = StreamEntry {
                state: entry.state.as_ref().and_then(|state| copy(key, state)),
                frozen: entry.frozen.clone(),
                first: entry.first.clone(),
                ..*entry
            };
            (key.clone(), entry)
        };
        Self {
            entries: self.entries.iter().map(copy).collect(),
            dirty: self.dirty.clone(),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Bytes {
        format!("main/counter-{number}").into()
    }

    fn entry() -> StreamEntry {
        StreamEntry::new(1, None, None, None)
    }

    fn is_here(streams: &Streams, number: usize) -> bool {
        streams.iter().any(|(held, _)| *held == key(number))
    }

    fn weighed(streams: &Streams) -> usize {
        streams.iter().map(|(key, entry)| entry.weight(key)).sum()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_the_rest_stays() {
        let mut streams = Streams::default();
        let one = entry().weight(&key(10));
        for number in 10..90 {
            streams.used(&key(number), entry);
            streams.evict(80 * one);
        }
        streams.used(&key(10), || panic!("it is here"));
        streams.used(&key(90), entry);
        streams.evict(80 * one);
        assert!(is_here(&streams, 10), "it was used just now");
        assert!(!is_here(&streams, 11));
        assert!(is_here(&streams, 30));
        let kept = streams.iter().count();
        assert!((60..=80).contains(&kept), "{kept}");
        assert_eq!(streams.bytes, weighed(&streams));
    }

    #[test]
    fn what_the_store_has_not_taken_stays_whatever_it_takes() {
        let mut streams = Streams::default();
        for number in 0..5 {
            streams.used(&key(number), entry);
        }
        let (changed, was_new) = streams.changed(&key(3)).unwrap();
        assert!(was_new && !changed.is_new());
        changed.version = 2;
        for _ in 0..3 {
            streams.evict(0);
        }
        assert_eq!(streams.dirty_keys(), [key(3)]);
        assert_eq!(streams.iter().count(), 1);
        assert_eq!(streams.dirty_bytes(), weighed(&streams));
        streams.stored([100]);
        assert_eq!(streams.bytes, weighed(&streams));
        assert!(streams.bytes > 300, "the state's size is known now");
        assert_eq!(streams.dirty_bytes(), 0);
        streams.evict(0);
        assert_eq!((streams.iter().count(), streams.bytes), (0, 0));
    }
}
