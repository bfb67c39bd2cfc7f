//! Quantities and names that have a rule, shared by all aggregates: ids, texts, money, and limits.
//!
//! Invariant: values read from JSON are well formed, and the JSON Schema of each type accepts
//! exactly what is read. Deliberately absent: values that the business would refuse (a price of
//! zero, for example); these are rejections.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use kernel::{Timestamp, deserialize_text};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest amount, in minor units, and the largest integer that every JSON reader keeps: 2^53.
pub const AMOUNT_MINOR_MAX: i64 = 9_007_199_254_740_992;
/// The smallest amount, in minor units: -2^53.
pub const AMOUNT_MINOR_MIN: i64 = -AMOUNT_MINOR_MAX;
/// The most characters an id may have.
pub const ID_LENGTH_MAX: usize = 128;
/// The most characters a person's name may have.
pub const NAME_LENGTH_MAX: usize = 200;
/// The most characters a city's name may have.
pub const CITY_LENGTH_MAX: usize = 200;
/// The most characters a state's name or abbreviation may have.
pub const STATE_LENGTH_MAX: usize = 100;
/// The most characters the first part of a postcode may have.
pub const POSTCODE_PREFIX_LENGTH_MAX: usize = 20;
/// The most characters the reason of a cancellation may have.
pub const REASON_LENGTH_MAX: usize = 1_000;
/// The most characters the title of a review may have.
pub const REVIEW_TITLE_LENGTH_MAX: usize = 500;
/// The most characters the comment of a review may have.
pub const REVIEW_COMMENT_LENGTH_MAX: usize = 10_000;

/// Why a text is not a value of the requested type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VocabularyError {
    /// Not an id.
    #[error("an id is 1 to {ID_LENGTH_MAX} letters, digits and . _ ~ -")]
    Id,
    /// Not a currency.
    #[error("a currency is 3 letters A-Z, such as BRL")]
    Currency,
    /// The text is too long.
    #[error("a text of more than {length_max} characters")]
    TextTooLong {
        /// The most characters it may have.
        length_max: usize,
    },
    /// The text contains U+0000, which Postgres cannot store.
    #[error("a text with the character U+0000")]
    TextWithNul,
}

macro_rules! string_value {
    ($type:ident $(<const $limit:ident: usize>)?) => {
        impl$(<const $limit: usize>)? $type$(<$limit>)? {
            /// The value as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl$(<const $limit: usize>)? fmt::Display for $type$(<$limit>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl$(<const $limit: usize>)? fmt::Debug for $type$(<$limit>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl$(<const $limit: usize>)? Serialize for $type$(<$limit>)? {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de $(, const $limit: usize)?> Deserialize<'de> for $type$(<$limit>)? {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_text(deserializer)
            }
        }
    };
}

macro_rules! ids {
    ($($(#[$doc:meta])* $type:ident),+ $(,)?) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $type(Box<str>);

            string_value!($type);

            impl FromStr for $type {
                type Err = VocabularyError;

                fn from_str(text: &str) -> Result<Self, VocabularyError> {
                    if is_id(text) { Ok(Self(text.into())) } else { Err(VocabularyError::Id) }
                }
            }

            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({
                        "type": "string",
                        "pattern": format!("^[A-Za-z0-9._~-]{{1,{ID_LENGTH_MAX}}}$"),
                    })
                }

                fn inline_schema() -> bool {
                    true
                }
            }
        )+
    };
}

ids! {
    /// Names a customer: a person, whatever they order.
    CustomerId,
    /// Names an order.
    OrderId,
    /// Names a product.
    ProductId,
    /// Names a review.
    ReviewId,
    /// Names a seller.
    SellerId,
}

fn is_id(text: &str) -> bool {
    (1..=ID_LENGTH_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}

/// A text of at most `LENGTH_MAX` characters (Unicode scalar values), kept unchanged: it may be
/// empty and have line breaks and quotes. Only U+0000 is refused, because Postgres cannot store it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const LENGTH_MAX: usize>(Box<str>);

string_value!(Text<const LENGTH_MAX: usize>);

impl<const LENGTH_MAX: usize> FromStr for Text<LENGTH_MAX> {
    type Err = VocabularyError;

    fn from_str(text: &str) -> Result<Self, VocabularyError> {
        // A character has at least one byte, so the characters of most texts need not be counted.
        if text.len() > LENGTH_MAX && text.chars().count() > LENGTH_MAX {
            return Err(VocabularyError::TextTooLong {
                length_max: LENGTH_MAX,
            });
        }
        if text.contains('\0') {
            return Err(VocabularyError::TextWithNul);
        }
        Ok(Self(text.into()))
    }
}

impl<const LENGTH_MAX: usize> JsonSchema for Text<LENGTH_MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Text{LENGTH_MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": LENGTH_MAX,
            "pattern": r"^[^\u0000]*$",
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A person's name.
pub type Name = Text<NAME_LENGTH_MAX>;
/// A city's name.
pub type City = Text<CITY_LENGTH_MAX>;
/// A state's name or abbreviation.
pub type StateName = Text<STATE_LENGTH_MAX>;
/// The first part of a postcode.
pub type PostcodePrefix = Text<POSTCODE_PREFIX_LENGTH_MAX>;
/// Why an order is cancelled.
pub type Reason = Text<REASON_LENGTH_MAX>;
/// The title of a review.
pub type ReviewTitle = Text<REVIEW_TITLE_LENGTH_MAX>;
/// The comment of a review.
pub type ReviewComment = Text<REVIEW_COMMENT_LENGTH_MAX>;

/// A currency by its three letters (ISO 4217), such as BRL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The Brazilian real.
    pub const BRL: Self = Self(*b"BRL");

    /// The three letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency is three ASCII letters")
    }
}

impl FromStr for Currency {
    type Err = VocabularyError;

    fn from_str(text: &str) -> Result<Self, VocabularyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            Ok(_) | Err(_) => Err(VocabularyError::Currency),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

impl JsonSchema for Currency {
    fn schema_name() -> Cow<'static, str> {
        "Currency".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Z]{3}$"})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// An amount of money: integer minor units (centavos) of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// The amount in minor units, within ±2^53.
    #[serde(deserialize_with = "integer::<_, _, AMOUNT_MINOR_MIN, AMOUNT_MINOR_MAX>")]
    #[schemars(range(min = AMOUNT_MINOR_MIN, max = AMOUNT_MINOR_MAX))]
    pub amount_minor: i64,
    /// Its currency.
    pub currency: Currency,
}

impl Money {
    /// An amount of a currency.
    #[must_use]
    pub fn new(amount_minor: i64, currency: Currency) -> Self {
        Self {
            amount_minor,
            currency,
        }
    }
}

/// Facts, and when they came to be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Dated{T}")]
pub struct Dated<T> {
    /// The business time of the event.
    pub at: Timestamp,
    /// The facts that the event gave.
    pub facts: T,
}

impl<T> Dated<T> {
    /// Facts since this time.
    pub fn new(at: Timestamp, facts: T) -> Self {
        Self { at, facts }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} minor units of {}", self.amount_minor, self.currency)
    }
}

/// Reads an integer from `MIN` to `MAX`. JSON Schema treats 2, 2.0 and 2e0 as the same number, and
/// so does the canonical form from which commands are read: it writes all three as 2.
///
/// # Errors
/// If the value is not a number, not integral, or out of range.
pub(crate) fn integer<'de, D, T, const MIN: i64, const MAX: i64>(
    deserializer: D,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    struct IntegerVisitor<const MIN: i64, const MAX: i64>;

    impl<const MIN: i64, const MAX: i64> Visitor<'_> for IntegerVisitor<MIN, MAX> {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an integer from {MIN} to {MAX}")
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<i64, E> {
            if (MIN..=MAX).contains(&value) {
                Ok(value)
            } else {
                Err(E::invalid_value(de::Unexpected::Signed(value), &self))
            }
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<i64, E> {
            match i64::try_from(value) {
                Ok(value) => self.visit_i64(value),
                Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
            }
        }

        fn visit_f64<E: de::Error>(self, _rounded: f64) -> Result<i64, E> {
            // A number that is a float here has a fraction or is beyond 64 bits, and is already
            // rounded.
            Err(E::custom(format_args!(
                "not an integer from {MIN} to {MAX}"
            )))
        }
    }

    let value = deserializer.deserialize_i64(IntegerVisitor::<MIN, MAX>)?;
    T::try_from(value).map_err(|_| de::Error::custom("an integer out of range"))
}

/// Reads a list of at most `LENGTH_MAX` elements and stops at the first one too many.
///
/// # Errors
/// If the value is not a list, is too long, or has an element that cannot be read.
pub(crate) fn list<'de, D, T, const LENGTH_MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct ListVisitor<T, const LENGTH_MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const LENGTH_MAX: usize> Visitor<'de>
        for ListVisitor<T, LENGTH_MAX>
    {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {LENGTH_MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                if elements.len() == LENGTH_MAX {
                    return Err(de::Error::invalid_length(LENGTH_MAX + 1, &self));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }

    deserializer.deserialize_seq(ListVisitor::<T, LENGTH_MAX>(PhantomData))
}
