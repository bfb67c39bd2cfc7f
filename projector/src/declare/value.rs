//! Values of columns as projections give them.
//!
//! Invariant: values of one type are ordered as Postgres orders them, so that folding in memory and
//! merging in SQL agree. Text holds no U+0000, which Postgres cannot store.

use chrono::NaiveDate;
use kernel::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::declare::table::ColumnType;

/// The value of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Text.
    Text(Box<str>),
    /// An integer.
    Bigint(i64),
    /// A sum.
    Numeric(i128),
    /// A point in time.
    Timestamptz(Timestamp),
    /// A day.
    Date(NaiveDate),
    /// Bytes.
    Bytea(Box<[u8]>),
}

impl Value {
    /// Its type.
    #[must_use]
    pub fn column_type(&self) -> ColumnType {
        match self {
            Self::Text(_) => ColumnType::Text,
            Self::Bigint(_) => ColumnType::Bigint,
            Self::Numeric(_) => ColumnType::Numeric,
            Self::Timestamptz(_) => ColumnType::Timestamptz,
            Self::Date(_) => ColumnType::Date,
            Self::Bytea(_) => ColumnType::Bytea,
        }
    }
}

impl From<&str> for Value {
    /// Text; U+0000 becomes U+FFFD.
    fn from(text: &str) -> Self {
        if text.contains('\0') {
            Self::Text(text.replace('\0', "\u{fffd}").into())
        } else {
            Self::Text(text.into())
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Bigint(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Bigint(number.into())
    }
}

impl From<Timestamp> for Value {
    fn from(moment: Timestamp) -> Self {
        Self::Timestamptz(moment)
    }
}

impl From<NaiveDate> for Value {
    fn from(day: NaiveDate) -> Self {
        Self::Date(day)
    }
}

impl From<[u8; 32]> for Value {
    fn from(bytes: [u8; 32]) -> Self {
        Self::Bytea(bytes.into())
    }
}

/// The most bytes that a text in a key may have unshortened: all columns of a key together must fit
/// into one index entry of Postgres, which has at most 2,704 bytes.
const KEY_TEXT_WHOLE_BYTES_MAX: usize = 500;
/// What stands between the kept part of a long text and its digest.
const CUT: char = '…';
/// The length of a digest in hexadecimal.
const DIGEST_LENGTH: usize = 64;
/// The most bytes of a text in a key, shortened or not.
pub const KEY_TEXT_BYTES_MAX: usize = KEY_TEXT_WHOLE_BYTES_MAX + CUT.len_utf8() + DIGEST_LENGTH;

impl Value {
    /// The value as part of a key. The end of a long text is replaced by the text's digest, so that
    /// no text from a client is too long for an index.
    pub fn into_key(self) -> Self {
        match self {
            Self::Text(text) if text.len() > KEY_TEXT_WHOLE_BYTES_MAX => {
                let digest = Sha256::digest(text.as_bytes());
                let kept = &text[..text.floor_char_boundary(KEY_TEXT_WHOLE_BYTES_MAX)];
                Self::Text(format!("{kept}{CUT}{}", hex::encode(digest)).into())
            }
            value => value,
        }
    }

    /// Whether this is a text in the form in which [`Self::into_key`] shortens long ones, as rows
    /// show it. A reader that names such a key means it as it is.
    #[must_use]
    pub fn is_shortened(&self) -> bool {
        let Self::Text(text) = self else { return false };
        let Some((kept, digest)) = text.rsplit_once(CUT) else {
            return false;
        };
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        // The text was cut where a character ends.
        (KEY_TEXT_WHOLE_BYTES_MAX - 3..=KEY_TEXT_WHOLE_BYTES_MAX).contains(&kept.len())
            && digest.len() == DIGEST_LENGTH
            && digest.bytes().all(is_digit)
    }
}

/// A count as a column's value.
///
/// Counts of things in memory or in a log stay far below 2^63; a larger count is a bug.
#[must_use]
pub fn count_of(count: impl TryInto<i64>) -> i64 {
    count
        .try_into()
        .unwrap_or_else(|_| panic!("a count of things stays below 2^63"))
}
