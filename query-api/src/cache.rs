//! Answers that are kept for the next request that asks the same.
//!
//! Invariant: an answer is never stale. It is kept with the version of its rows, and given only to a
//! request for which the present version was read after that request came ([`super::levels`]) and is
//! the same. Rows of one version are the same rows ([`RowsVersion`]), so the request gets what a read
//! at that moment would have given. The kept bytes are bounded. Deliberately absent: problems; they
//! are not kept.

use std::sync::Arc;

use axum::body::Bytes;
use metrics::{Counter, counter, gauge};
use projector::RowsVersion;
use quick_cache::sync::Cache as QuickCache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

/// The most bytes that are kept.
const BYTES_MAX: u64 = 32 << 20;
/// A larger answer is not kept.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What an entry takes beside its texts, about.
const ENTRY_BYTES: usize = 256;
/// How many answers are expected.
const ANSWERS_TYPICAL: usize = 4_096;
/// Into how many parts the cache is divided, so that requests seldom wait for each other.
const SHARDS: usize = 8;

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) version: RowsVersion,
    /// How many streams of the tenant are parked; follows from the version and what was asked.
    pub(super) parked: u64,
    /// Without spare room: what is kept is what is counted.
    pub(super) body: Bytes,
    /// The target of the link to the next page.
    pub(super) next: Option<Box<str>>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Box<str>, Arc<Kept>> for Weight {
    fn weight(&self, key: &Box<str>, kept: &Arc<Kept>) -> u64 {
        let version = kept.version.as_str().len();
        let next = kept.next.as_ref().map_or(0, |next| next.len());
        (key.len() + kept.body.len() + version + next + ENTRY_BYTES) as u64
    }
}

#[derive(Clone)]
struct Evictions(Counter);

impl Lifecycle<Box<str>, Arc<Kept>> for Evictions {
    type RequestState = ();

    fn begin_request(&self) {}

    fn on_evict(&self, (): &mut (), _: Box<str>, _: Arc<Kept>) {
        self.0.increment(1);
    }
}

/// The kept answers, by what was asked.
pub(super) struct Cache {
    kept: QuickCache<Box<str>, Arc<Kept>, Weight, DefaultHashBuilder, Evictions>,
    hits: Counter,
    misses: Counter,
}

impl Cache {
    pub(super) fn new() -> Self {
        let counters = [
            counter!("annals_query_cache_hits_total"),
            counter!("annals_query_cache_misses_total"),
            counter!("annals_query_cache_evictions_total"),
        ];
        counters.iter().for_each(|counter| counter.increment(0));
        let [hits, misses, evictions] = counters;
        let options = OptionsBuilder::new()
            .estimated_items_capacity(ANSWERS_TYPICAL)
            .weight_capacity(BYTES_MAX)
            .shards(SHARDS)
            .build()
            .expect("the options are complete");
        Self {
            kept: QuickCache::with_options(
                options,
                Weight,
                DefaultHashBuilder::default(),
                Evictions(evictions),
            ),
            hits,
            misses,
        }
    }

    /// Whether an answer of any version is kept, so that reading the present version may be worth it.
    pub(super) fn has(&self, asked: &str) -> bool {
        self.kept.contains_key(asked)
    }

    /// The answer of this version.
    pub(super) fn get(&self, asked: &str, version: &RowsVersion) -> Option<Arc<Kept>> {
        let kept = self.kept.get(asked)?;
        (kept.version == *version).then_some(kept)
    }

    pub(super) fn hit(&self) {
        self.hits.increment(1);
    }

    /// Keeps an answer that was not there.
    pub(super) fn put(&self, asked: String, kept: Kept) {
        self.misses.increment(1);
        if kept.body.len() <= ANSWER_BYTES_MAX {
            self.kept.insert(asked.into_boxed_str(), Arc::new(kept));
        }
    }

    /// Updates the gauge.
    pub(super) fn measure(&self) {
        gauge!("annals_query_cache_bytes").set(self.kept.weight() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(epoch: u32) -> RowsVersion {
        RowsVersion::read(&format!("1 1 {epoch} 0")).unwrap()
    }

    fn kept(epoch: u32, size: usize) -> Kept {
        Kept {
            version: version(epoch),
            parked: 0,
            body: vec![b'x'; size].into(),
            next: None,
        }
    }

    #[test]
    fn an_answer_of_another_version_is_not_given() {
        let cache = Cache::new();
        cache.put("a".to_owned(), kept(1, 10));
        assert!(cache.has("a") && cache.get("a", &version(1)).is_some());
        assert!(cache.get("a", &version(2)).is_none() && !cache.has("b"));
        cache.put("a".to_owned(), kept(2, 10));
        assert!(cache.get("a", &version(1)).is_none());
    }

    #[test]
    fn the_kept_bytes_are_bounded() {
        let cache = Cache::new();
        for number in 0..200 {
            cache.put(number.to_string(), kept(1, ANSWER_BYTES_MAX - 1_000));
        }
        assert!(cache.kept.weight() <= BYTES_MAX, "{}", cache.kept.weight());
        assert!(cache.kept.len() > 10, "{} answers", cache.kept.len());
        cache.put("large".to_owned(), kept(1, ANSWER_BYTES_MAX + 1));
        assert!(!cache.has("large"));
    }
}
