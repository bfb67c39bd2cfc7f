//! Maps by keys that clients choose: names of streams, ids of commands.
//!
//! Each is hashed with a random key of its own, so that nobody can find names that collide, and an owner
//! hashes a dozen times a command, so that it has to be fast. Deliberately absent: any other map.

use std::collections::HashMap;

use bytes::Bytes;

/// Values by such keys.
pub type Keyed<V, K = Bytes> = HashMap<K, V, ahash::RandomState>;
