//! What a record that counts says. All readers share this one verdict on values.
//!
//! The acceptance rule (`chain`) looks at headers, key and hashes. This module reads the value of a
//! commit that counts, compares its version with its stream's version, and knows which places an
//! operator has acknowledged. Owner, follower and audit all use it, so that none of them passes a
//! record that another one refuses. Deliberately absent: what the domain's rules make of a commit.
//! If a program's rules fail, the program freezes the stream (`frozen`), and the log counts as
//! whole.

use std::collections::BTreeSet;

use position::Offset;

use crate::chain::{Chain, Orphan, Verdict};
use crate::commit::Commit;
use crate::damage::{Damage, DamageKind};
use crate::keyed::Keyed;
use crate::record::{Kind, Record};

/// What a reader knows of the streams in its partition.
pub trait Streams {
    /// A stream's version so far, 0 if it has no events; absent if this reader cannot know it.
    fn version(&mut self, key: &[u8]) -> Option<u64>;

    /// Whether an acknowledged place froze the stream.
    fn is_frozen(&mut self, key: &[u8]) -> bool;

    /// Freezes the stream, because of an acknowledged place.
    fn freeze(&mut self, key: &[u8], offset: Offset, reason: &str);
}

/// What a reader without a store knows of the streams in its partition.
#[derive(Clone, Default)]
pub(crate) struct StreamVersions {
    pub(crate) versions: Keyed<u64, Box<[u8]>>,
    pub(crate) versions_max: usize,
    /// Whether a stream that is missing here has no events. True if the log was read from its first
    /// record and no version was thrown away since.
    pub(crate) is_complete: bool,
    pub(crate) frozen: BTreeSet<Box<[u8]>>,
}

impl StreamVersions {
    /// For a reader from the first record on that forgets no stream.
    pub(crate) fn complete() -> Self {
        Self {
            versions_max: usize::MAX,
            is_complete: true,
            ..Self::default()
        }
    }

    pub(crate) fn note(&mut self, key: &[u8], version: u64) {
        if let Some(known) = self.versions.get_mut(key) {
            *known = version;
            return;
        }
        if self.versions.len() >= self.versions_max {
            self.versions.clear();
            self.is_complete = false;
        }
        // Copied, because the record's own bytes may share a piece of memory with other records.
        self.versions.insert(key.into(), version);
    }
}

impl Streams for StreamVersions {
    fn version(&mut self, key: &[u8]) -> Option<u64> {
        let known = self.versions.get(key).copied();
        known.or(self.is_complete.then_some(0))
    }

    fn is_frozen(&mut self, key: &[u8]) -> bool {
        !self.frozen.is_empty() && self.frozen.contains(key)
    }

    fn freeze(&mut self, key: &[u8], _: Offset, _: &str) {
        self.frozen.insert(key.into());
    }
}

/// What the verdict makes of a record.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is made"
)]
pub enum Content {
    /// A commit that counts and is to be applied.
    Commit(Commit),
    /// A commit whose stream is frozen: an operator acknowledged this place or one before it.
    Frozen,
    /// Not a commit that counts.
    Nothing,
}

/// Reads a record's content. `verdict` is the acceptance rule's verdict on the record.
///
/// # Errors
/// [`Damage`]: an accepted commit whose value cannot be read, or that does not follow from its
/// stream's version.
pub fn content(
    chain: &Chain,
    verdict: &Verdict,
    record: &Record,
    streams: &mut impl Streams,
) -> Result<Content, Damage> {
    let key = record.key.as_deref().unwrap_or_default();
    if let Some(reason) = chain.acknowledged.reason(chain.partition, record.offset)
        && matches!(Kind::of(record), Kind::Commit(_))
    {
        // Freeze whatever the place holds and whether or not it is readable, so that all readers
        // leave out the same records.
        streams.freeze(key, record.offset, reason);
    }
    match verdict {
        Verdict::Claim(..) | Verdict::Orphan(_) => return Ok(Content::Nothing),
        Verdict::Commit(_) if streams.is_frozen(key) => return Ok(Content::Frozen),
        Verdict::Commit(_) => {}
    }
    let damage = |kind| Damage {
        partition: chain.partition,
        offset: record.offset,
        kind,
    };
    let value = record.value.as_deref().unwrap_or_default();
    let commit = Commit::read(key, value)
        .map_err(|error| damage(DamageKind::Unreadable(error.to_string())))?;
    match streams.version(key) {
        Some(expected) if expected != commit.from_version => Err(damage(DamageKind::VersionGap {
            stream: String::from_utf8_lossy(key).into_owned(),
            expected,
            found: commit.from_version,
        })),
        _ => Ok(Content::Commit(commit)),
    }
}

/// The kind of orphan as which a commit of a frozen stream is counted.
pub const FROZEN: Orphan = Orphan::Acknowledged;
