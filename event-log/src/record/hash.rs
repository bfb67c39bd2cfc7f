//! The four hashes of the log, all SHA-256 (FIPS 180-4) under a name of their own.
//!
//! Invariant: every part of variable length is preceded by its length, so that no two different
//! records have the same input. Golden vectors are in `tests/golden/hashes.json`.

use position::{ChainHash, Partition, Position, RecordHash};
use sha2::{Digest, Sha256};

use super::{ClaimHeaders, CommitHeaders, Record};

/// The chain head of a partition before any record is accepted in it.
#[must_use]
pub fn genesis(partition: Partition) -> ChainHash {
    let mut hasher = Sha256::new_with_prefix(b"annals.genesis.v1");
    hasher.update(partition.0.to_be_bytes());
    ChainHash(hasher.finalize().into())
}

/// The chain hash of a commit with its key and value.
#[must_use]
pub fn chain_commit(headers: &CommitHeaders, key: &[u8], value: &[u8]) -> ChainHash {
    let mut hasher = Sha256::new_with_prefix(b"annals.commit.v1");
    hasher.update(headers.previous.0);
    hasher.update(headers.term.0.to_be_bytes());
    hasher.update(headers.writer.0.as_bytes());
    hasher.update(headers.position.0.to_be_bytes());
    sized(&mut hasher, key);
    sized(&mut hasher, value);
    ChainHash(hasher.finalize().into())
}

/// The chain hash of a claim. `previous` and `position` come from the reader, because a claimer
/// cannot know where its claim lands.
#[must_use]
pub fn chain_claim(
    headers: &ClaimHeaders,
    previous: ChainHash,
    position: Position,
    value: &[u8],
) -> ChainHash {
    let mut hasher = Sha256::new_with_prefix(b"annals.claim.v1");
    hasher.update(previous.0);
    hasher.update(headers.term.0.to_be_bytes());
    hasher.update(headers.writer.0.as_bytes());
    hasher.update(headers.log.0.as_bytes());
    hasher.update(headers.version.to_be_bytes());
    hasher.update(position.0.to_be_bytes());
    sized(&mut hasher, value);
    ChainHash(hasher.finalize().into())
}

/// The hash of any record as it stands in the log, with its offset.
#[must_use]
pub fn record_hash(record: &Record) -> RecordHash {
    let mut hasher = Sha256::new_with_prefix(b"annals.record.v1");
    hasher.update(record.offset.0.to_be_bytes());
    optional(&mut hasher, record.key.as_deref());
    optional(&mut hasher, record.value.as_deref());
    for (name, value) in record.headers.iter() {
        optional(&mut hasher, Some(name));
        optional(&mut hasher, value);
    }
    RecordHash(hasher.finalize().into())
}

fn sized(hasher: &mut Sha256, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("no log takes a record of 4 GiB");
    hasher.update(length.to_be_bytes());
    hasher.update(bytes);
}

fn optional(hasher: &mut Sha256, bytes: Option<&[u8]>) {
    hasher.update([u8::from(bytes.is_some())]);
    sized(hasher, bytes.unwrap_or_default());
}
