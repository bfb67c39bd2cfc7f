//! One record of the log as bytes: key, value, headers, and what the headers say.
//!
//! Invariant: bytes from the log are never trusted; a record that does not parse is `Foreign`.
//! Deliberately absent: which records count (`chain`), and what a value means (`commit`, `claim`).

mod hash;
mod headers;
mod kind;
mod partitioner;

pub use hash::{chain_claim, chain_commit, genesis, record_hash};
pub use headers::{Header, Headers};
pub use kind::{ClaimHeaders, CommitHeaders, Kind, RECORD_VERSION, RECORD_VERSION_FIRST};
pub use partitioner::{murmur2, partition_of};

use bytes::Bytes;
use position::Offset;

/// A record to be appended to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// `tenant/stream` of a commit; absent for a claim.
    pub key: Option<Bytes>,
    /// The JSON value.
    pub value: Option<Bytes>,
    /// The headers in their fixed order.
    pub headers: Headers,
}

/// A record as it was read from a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's place in the partition.
    pub offset: Offset,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The value, if it has one.
    pub value: Option<Bytes>,
    /// The headers in order.
    pub headers: Headers,
    /// The epoch of the partition's leader when the record was appended; absent if the log has no
    /// leaders. Not part of any hash.
    pub leader_epoch: Option<i32>,
    /// When the log appended the record, by the log's clock, in milliseconds since 1970. Not part
    /// of any hash.
    pub appended_at_ms: Option<i64>,
}

impl Record {
    /// The record that a log makes from `new` at `offset`.
    #[must_use]
    pub fn at(offset: Offset, new: NewRecord) -> Self {
        Self {
            offset,
            key: new.key,
            value: new.value,
            headers: new.headers,
            leader_epoch: None,
            appended_at_ms: None,
        }
    }

    /// The bytes that the record holds in memory, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        let part = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        part(&self.key) + part(&self.value) + self.headers.packed().len()
    }
}
