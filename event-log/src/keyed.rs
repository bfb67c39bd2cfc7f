//! Maps whose keys are chosen by clients: names of streams, ids of commands.
//!
//! Each map hashes with a random key of its own, so that nobody can choose names that collide. An
//! owner hashes about a dozen times for each command, so hashing must be fast. Deliberately absent:
//! any other map.

use std::collections::HashMap;

use bytes::Bytes;

/// A map from such keys to values.
pub type Keyed<V, K = Bytes> = HashMap<K, V, ahash::RandomState>;
