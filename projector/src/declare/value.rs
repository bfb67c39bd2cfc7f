//! Values of columns as projections give them.
//!
//! Invariant: values of one type are ordered as Postgres orders them, so that folding in memory and
//! merging in SQL agree. Text holds no U+0000, which Postgres cannot store.

use chrono::NaiveDate;
use kernel::Timestamp;
use rust_decimal::Decimal;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::declare::column_type::ColumnType;
use crate::declare::exact::Exact;

/// The value of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Text.
    Text(Box<str>),
    /// An integer.
    Bigint(i64),
    /// A sum.
    Numeric(i128),
    /// A decimal number. It lies elsewhere, so that the other values stay small.
    Decimal(Box<Exact>),
    /// A finite number.
    Double(Finite),
    /// True or false.
    Boolean(bool),
    /// A UUID.
    Uuid(Uuid),
    /// A point in time.
    Timestamptz(Timestamp),
    /// A day.
    Date(NaiveDate),
    /// Bytes.
    Bytea(Box<[u8]>),
    /// A JSON document. Its order here means nothing.
    Jsonb(Box<str>),
    /// A list of texts.
    TextArray(Box<[Box<str>]>),
}

/// A finite number; 0 instead of −0, so that equal numbers are equal values.
#[derive(Clone, Copy, Debug)]
pub struct Finite(f64);

impl Finite {
    /// The number; absent if it is infinite or none.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        // Adding 0 turns −0 into 0.
        number.is_finite().then_some(Self(number + 0.0))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Finite {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Finite {}

impl PartialOrd for Finite {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Finite {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// A typed value to be kept as a JSON document: `row.put("address", Json(&address))`.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl Value {
    /// Its type.
    #[must_use]
    pub fn column_type(&self) -> ColumnType {
        match self {
            Self::Text(_) => ColumnType::Text,
            Self::Bigint(_) => ColumnType::Bigint,
            Self::Numeric(_) => ColumnType::Numeric,
            Self::Decimal(number) => ColumnType::Decimal {
                scale: number.scale(),
            },
            Self::Double(_) => ColumnType::Double,
            Self::Boolean(_) => ColumnType::Boolean,
            Self::Uuid(_) => ColumnType::Uuid,
            Self::Timestamptz(_) => ColumnType::Timestamptz,
            Self::Date(_) => ColumnType::Date,
            Self::Bytea(_) => ColumnType::Bytea,
            Self::Jsonb(_) => ColumnType::Jsonb,
            Self::TextArray(_) => ColumnType::TextArray,
        }
    }
}

/// A text that Postgres can store.
fn storable(text: &str) -> Box<str> {
    if text.as_bytes().contains(&0) {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

impl From<&str> for Value {
    /// Text; U+0000 becomes U+FFFD.
    fn from(text: &str) -> Self {
        Self::Text(storable(text))
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

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Boolean(truth)
    }
}

impl From<Uuid> for Value {
    fn from(id: Uuid) -> Self {
        Self::Uuid(id)
    }
}

impl From<Decimal> for Value {
    /// A decimal number; a column rounds it to the digits that it has.
    fn from(number: Decimal) -> Self {
        Self::Decimal(Box::new(number.into()))
    }
}

impl From<f64> for Value {
    /// A number; −0 becomes 0.
    ///
    /// # Panics
    /// If it is infinite or none (NaN), which JSON cannot show: a bug of the projection. Events
    /// hold finite numbers; a rule that divides decides what the result without one is.
    fn from(number: f64) -> Self {
        let finite = Finite::new(number);
        Self::Double(finite.unwrap_or_else(|| panic!("{number} is no finite number")))
    }
}

impl<T: AsRef<str>> From<&[T]> for Value {
    /// A list of texts; U+0000 becomes U+FFFD.
    fn from(texts: &[T]) -> Self {
        let texts = texts.iter().map(|text| storable(text.as_ref()));
        Self::TextArray(texts.collect())
    }
}

impl<T: AsRef<str>> From<&Vec<T>> for Value {
    fn from(texts: &Vec<T>) -> Self {
        Self::from(&texts[..])
    }
}

impl<T: Serialize> From<Json<T>> for Value {
    /// A JSON document; U+0000 becomes U+FFFD.
    ///
    /// # Panics
    /// If the value has no JSON form, as a map whose keys are no texts: a bug of the projection.
    fn from(Json(value): Json<T>) -> Self {
        match serde_json::to_string(&value) {
            Ok(json) => Self::Jsonb(storable_json(json).into()),
            Err(error) => panic!("the value has no JSON form: {error}"),
        }
    }
}

/// The same document without what Postgres refuses: U+0000, and halves of surrogate pairs, which
/// only raw JSON can hold.
fn storable_json(json: String) -> String {
    if !json.contains("\\u") {
        return json;
    }
    let mut whole = String::with_capacity(json.len());
    let mut rest = json.as_str();
    while let Some(at) = rest.find('\\') {
        whole.push_str(&rest[..at]);
        rest = &rest[at..];
        let (first, second) = (escaped(rest), rest.get(6..).and_then(escaped));
        let taken = match (first, second) {
            (None, _) => 2,
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0 | 0xd800..0xe000), _) => {
                whole.push('\u{fffd}');
                rest = &rest[6..];
                continue;
            }
            (Some(_), _) => 6,
        };
        let (kept, behind) = rest.split_at(taken);
        whole.push_str(kept);
        rest = behind;
    }
    whole.push_str(rest);
    whole
}

/// The code unit that an escape at the beginning of `json` names: `\u` and four digits.
fn escaped(json: &str) -> Option<u16> {
    let digits = json.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_stay_small() {
        assert_eq!(size_of::<Value>(), 32);
    }

    #[test]
    fn what_postgres_cannot_store_is_replaced() {
        let json = |text: &str| storable_json(text.to_owned());
        for (given, stored) in [
            (r#""\u0000a\\u0000""#, "\"\u{fffd}a\\\\u0000\""),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83dx\ude00""#, "\"\u{fffd}x\u{fffd}\""),
            (r#""\ud83d\n\u0041""#, "\"\u{fffd}\\n\\u0041\""),
            (r#"{"\u0000":1}"#, "{\"\u{fffd}\":1}"),
        ] {
            assert_eq!(json(given), stored, "{given}");
        }
        let value = Value::from(Json(json!({"a\0": ["\0", "\\u0000"]})));
        let stored = "{\"a\u{fffd}\":[\"\u{fffd}\",\"\\\\u0000\"]}";
        assert_eq!(value, Value::Jsonb(stored.into()));
        let texts = Value::from(&["a\0", ""][..]);
        assert_eq!(
            texts,
            Value::TextArray(["a\u{fffd}".into(), "".into()].into())
        );
    }

    #[test]
    fn equal_numbers_are_equal_values() {
        assert_eq!(Value::from(-0.0), Value::from(0.0));
        assert!(Value::from(-0.1) < Value::from(0.0));
        assert_eq!(Finite::new(f64::NAN), None);
        assert_eq!(Finite::new(f64::INFINITY), None);
    }
}
