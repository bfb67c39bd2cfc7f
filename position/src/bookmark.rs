//! Bookmarks: the last commit that a reader of a whole log has, in each partition, as an opaque text.
//!
//! In base64url, without padding:
//!
//! | part | bytes |
//! |---|---|
//! | the form of the bookmark: 177 | 1 |
//! | the log's id | 16 |
//! | the number of partitions with a commit | number |
//! | for each: how many partitions lie between it and the one before | number |
//! | … the offset and the position of the commit | numbers |
//! | … the first bytes of the chain hash of the commit | 6 |
//! | the CRC-32 of all bytes before | 4, big-endian |
//!
//! *Numbers* are those of position tokens (`form`). Invariants: a bookmark has exactly one text, and a
//! text that was cut or changed is no bookmark. Deliberately absent: the proof that a log still holds
//! these commits (`event_log::bookmark`), and secrecy.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::form::{CHECK_SIZE, put_number, take_number};
use crate::ids::{ChainHash, LogId, Offset, Partition, Position};

/// The first byte of a bookmark; no position token begins with it.
const FORM: u8 = 177;
/// The kept bytes of a chain hash. Two histories that differ look the same once in 2^48.
const HEAD_SIZE: usize = 6;

/// The beginning of a chain hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortHash([u8; HEAD_SIZE]);

impl From<ChainHash> for ShortHash {
    fn from(hash: ChainHash) -> Self {
        let [a, b, c, d, e, f, ..] = hash.0;
        Self([a, b, c, d, e, f])
    }
}

/// The place of a commit, with what proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The log's own number of its record.
    pub offset: Offset,
    /// Its number among the accepted records of its partition.
    pub position: Position,
    /// The chain head behind it, which stands for all accepted records up to it.
    pub head: ShortHash,
}

/// How far a reader of a whole log has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// The log.
    pub log: LogId,
    /// The last commit of each partition; a partition without one is read from its beginning.
    pub marks: BTreeMap<Partition, Mark>,
}

/// The text is not a bookmark of this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a bookmark, or one that was cut or changed")]
pub struct BookmarkError;

impl Bookmark {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + 16 * self.marks.len());
        bytes.push(FORM);
        bytes.extend_from_slice(self.log.0.as_bytes());
        put_number(&mut bytes, self.marks.len() as u64);
        let mut next = 0;
        for (partition, mark) in &self.marks {
            let partition = u64::from(partition.0);
            put_number(&mut bytes, partition - next);
            next = partition + 1;
            put_number(&mut bytes, mark.offset.0);
            put_number(&mut bytes, mark.position.0);
            bytes.extend_from_slice(&mark.head.0);
        }
        let check = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&check.to_be_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (content, check) = bytes.split_last_chunk::<CHECK_SIZE>()?;
        if crc32fast::hash(content) != u32::from_be_bytes(*check) {
            return None;
        }
        let (&form, rest) = content.split_first()?;
        let (log, mut rest) = rest.split_at_checked(16)?;
        if form != FORM {
            return None;
        }
        let log = LogId(Uuid::from_slice(log).ok()?);
        let mut marks = BTreeMap::new();
        let mut next: u64 = 0;
        for _ in 0..take_number(&mut rest)? {
            let partition = next.checked_add(take_number(&mut rest)?)?;
            next = partition.checked_add(1)?;
            let offset = Offset(take_number(&mut rest)?);
            let position = Position(take_number(&mut rest)?);
            let (&head, behind) = rest.split_first_chunk::<HEAD_SIZE>()?;
            rest = behind;
            let head = ShortHash(head);
            let mark = Mark {
                offset,
                position,
                head,
            };
            marks.insert(Partition(u32::try_from(partition).ok()?), mark);
        }
        let bookmark = Self { log, marks };
        // Bytes that are left, or longer forms of a number: another text says the same.
        (bookmark.bytes() == bytes).then_some(bookmark)
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.bytes()))
    }
}

impl FromStr for Bookmark {
    type Err = BookmarkError;

    fn from_str(text: &str) -> Result<Self, BookmarkError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BookmarkError)?;
        Self::of_bytes(&bytes).ok_or(BookmarkError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bookmark() -> impl Strategy<Value = Bookmark> {
        let mark = (any::<u64>(), any::<u64>(), any::<[u8; HEAD_SIZE]>());
        let mark = mark.prop_map(|(offset, position, head)| Mark {
            offset: Offset(offset),
            position: Position(position),
            head: ShortHash(head),
        });
        let marks = proptest::collection::btree_map(0..300_u32, mark, 0..40);
        (any::<u128>(), marks).prop_map(|(log, marks)| Bookmark {
            log: LogId(Uuid::from_u128(log)),
            marks: marks
                .into_iter()
                .map(|(p, mark)| (Partition(p), mark))
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn every_bookmark_is_read_back(bookmark in bookmark()) {
            prop_assert_eq!(bookmark.to_string().parse(), Ok(bookmark));
        }

        #[test]
        fn a_changed_bookmark_is_none(
            bookmark in bookmark(),
            at in any::<prop::sample::Index>(),
            letter in "[A-Za-z0-9_-]",
        ) {
            let text = bookmark.to_string();
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &letter);
            if changed != text {
                prop_assert_eq!(changed.parse::<Bookmark>(), Err(BookmarkError));
            }
            prop_assert_eq!(text[..at].parse::<Bookmark>(), Err(BookmarkError));
        }
    }

    #[test]
    fn a_bookmark_of_twelve_partitions_is_shorter_than_300_characters() {
        let mark = Mark {
            offset: Offset(1_000_000),
            position: Position(990_000),
            head: ShortHash([7; HEAD_SIZE]),
        };
        let marks = (0..12)
            .map(|partition| (Partition(partition), mark))
            .collect();
        let log = LogId(Uuid::nil());
        let text = Bookmark { log, marks }.to_string();
        assert!(text.len() < 300, "{}", text.len());
        assert!(text.parse::<crate::PositionToken>().is_err());
    }
}
