//! What a record that counts says: the one verdict of all readers on its value.
//!
//! The rule (`chain`) looks at headers, key and hashes. This looks into the value of a commit that
//! counts, holds its version against its stream's, and knows what an operator has acknowledged. Owner,
//! follower and audit go through here, so that none passes what another refuses. Deliberately absent:
//! what the domain's rules make of it; a program whose rules fail freezes the stream (`frozen`), and
//! the log is whole.

use position::Offset;

use crate::chain::{Chain, Orphan, Verdict};
use crate::commit::Commit;
use crate::damage::{Damage, DamageKind};
use crate::record::{Kind, Record};

/// What a reader knows of the streams in its partition.
pub trait Streams {
    /// A stream's version so far, 0 where it has no events; absent where this reader cannot know.
    fn version(&mut self, key: &[u8]) -> Option<u64>;

    /// Whether an acknowledged place froze the stream.
    fn is_frozen(&mut self, key: &[u8]) -> bool;

    /// Takes up that an acknowledged place freezes the stream.
    fn freeze(&mut self, key: &[u8], offset: Offset, reason: &str);
}

/// What a commit that counts, or does not, comes to.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is made"
)]
pub enum Content {
    /// It counts and is to be taken up.
    Commit(Commit),
    /// Its stream is frozen since an operator acknowledged this place, or one before it.
    Frozen,
    /// It is no commit that counts.
    Nothing,
}

/// Takes a record's content, after the rule has said `verdict` of it.
///
/// # Errors
/// Damage: an accepted commit whose value cannot be read, or that does not follow from its stream's
/// version.
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
        // Whatever the place holds, and whoever could read it: all readers leave the same out.
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

/// The orphan that a commit of a frozen stream is counted as.
pub const FROZEN: Orphan = Orphan::Acknowledged;
