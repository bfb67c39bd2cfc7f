//! Computes how many bytes a value takes as JSON without writing it. Text is scanned eight bytes at
//! a time, and only fractions are formatted.
//!
//! Invariant: the size is what `serde_json` would write, and what `serde_json` refuses to write is
//! refused here.

use std::fmt::{self, Display};

use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::Error;

/// The names under which `serde_json` passes on values that are JSON already.
const WRITTEN_ALREADY: [&str; 2] = [
    "$serde_json::private::RawValue",
    "$serde_json::private::Number",
];

/// How many bytes `value` takes as JSON.
///
/// # Errors
/// As `serde_json::to_string`: a key that is not text, or an error of the value itself.
pub(super) fn json_size<T: Serialize + ?Sized>(value: &T) -> Result<usize, Error> {
    let mut size = Size::default();
    value.serialize(&mut size)?;
    Ok(size.bytes)
}

#[derive(Default)]
struct Size {
    bytes: usize,
    /// Whether a key is being measured: numbers are quoted in keys.
    is_key: bool,
}

impl Size {
    fn add(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes += bytes;
        Ok(())
    }

    fn number(&mut self, digits: usize) -> Result<(), Error> {
        self.add(digits + if self.is_key { 2 } else { 0 })
    }

    /// Adds the length of a fraction as `serde_json` writes it.
    fn fraction(&mut self, value: impl Serialize, is_finite: bool) -> Result<(), Error> {
        if self.is_key && !is_finite {
            return Err(Error::custom("a key must be finite"));
        }
        let mut written = Written(0);
        serde_json::to_writer(&mut written, &value)?;
        self.number(written.0)
    }

    /// Refuses a value that cannot be a key.
    fn no_key(&self) -> Result<(), Error> {
        match self.is_key {
            true => Err(Error::custom("a key must be text")),
            false => Ok(()),
        }
    }

    /// Begins a list or an object.
    fn begin(&mut self) -> Result<Items<'_>, Error> {
        self.no_key()?;
        self.add(2)?;
        Ok(Items {
            size: self,
            is_first: true,
            is_written: false,
        })
    }

    /// Begins an object whose only member is named after a variant.
    fn begin_variant(&mut self, variant: &str) -> Result<Items<'_>, Error> {
        self.no_key()?;
        self.add(3 + text_size(variant))?;
        self.begin()
    }
}

/// The length of a text with its quotes.
fn text_size(text: &str) -> usize {
    2 + text.len() + escapes_size(text.as_bytes())
}

/// How many bytes escaping adds to a text.
fn escapes_size(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain([&last]);
    let escaped = words.filter(|word| has_escaped(u64::from_ne_bytes(**word)));
    escaped.flatten().map(|byte| escape_size(*byte)).sum()
}

/// Whether one of eight bytes is a quote, a backslash or less than a space. All are compared at
/// once (Sean Eron Anderson, "Bit Twiddling Hacks": a byte less than n, a zero byte).
fn has_escaped(word: u64) -> bool {
    const EACH: u64 = u64::MAX / 0xff;
    let less_than = |word: u64, least: u8| word.wrapping_sub(EACH * u64::from(least)) & !word;
    let quote = less_than(word ^ (EACH * u64::from(b'"')), 1);
    let backslash = less_than(word ^ (EACH * u64::from(b'\\')), 1);
    (less_than(word, b' ') | quote | backslash) & (EACH * 0x80) != 0
}

fn escape_size(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 1,
        0..0x20 => 5,
        _ => 0,
    }
}

fn digits(value: u128) -> usize {
    let below = match u64::try_from(value) {
        Ok(value) => value.checked_ilog10(),
        Err(_) => value.checked_ilog10(),
    };
    below.map_or(1, |below| below as usize + 1)
}

macro_rules! integers {
    ($($signed:ident $unsigned:ident $of_signed:ident $of_unsigned:ident;)+) => {$(
        fn $of_signed(self, value: $signed) -> Result<(), Error> {
            self.number(usize::from(value < 0) + digits(value.unsigned_abs().into()))
        }

        fn $of_unsigned(self, value: $unsigned) -> Result<(), Error> {
            self.number(digits(value.into()))
        }
    )+};
}

impl<'a> Serializer for &'a mut Size {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Items<'a>;
    type SerializeStructVariant = Items<'a>;

    integers! {
        i8 u8 serialize_i8 serialize_u8;
        i16 u16 serialize_i16 serialize_u16;
        i32 u32 serialize_i32 serialize_u32;
        i64 u64 serialize_i64 serialize_u64;
        i128 u128 serialize_i128 serialize_u128;
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.number(if value { 4 } else { 5 })
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.fraction(value, value.is_finite())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.fraction(value, value.is_finite())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.add(text_size(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        let mut items = self.begin()?;
        value
            .iter()
            .try_for_each(|byte| SerializeSeq::serialize_element(&mut items, byte))
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.no_key()?;
        self.add(4)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.no_key()?;
        self.add(3 + text_size(variant))?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        self.begin()
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, Error> {
        self.begin()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Error> {
        self.begin()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'a>, Error> {
        self.begin_variant(variant)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        self.begin()
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Items<'a>, Error> {
        let mut items = self.begin()?;
        if WRITTEN_ALREADY.contains(&name) {
            items.size.bytes -= 2;
            items.is_written = true;
        }
        Ok(items)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'a>, Error> {
        self.begin_variant(variant)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        let mut text = Text(2);
        fmt::write(&mut text, format_args!("{value}")).map_err(Error::custom)?;
        self.add(text.0)
    }
}

/// The items of a list, or the members of an object.
struct Items<'a> {
    size: &'a mut Size,
    is_first: bool,
    /// Whether the only member is JSON already and is counted as it stands.
    is_written: bool,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.size.bytes += usize::from(!std::mem::replace(&mut self.is_first, false));
        value.serialize(&mut *self.size)
    }

    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Error> {
        if self.is_written {
            let text = serde_json::to_value(value)?;
            let text = text.as_str().ok_or_else(|| Error::custom("no text"))?;
            return self.size.add(text.len());
        }
        self.item(name)?;
        self.size.bytes += 1;
        value.serialize(&mut *self.size)
    }
}

impl SerializeMap for Items<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.size.is_key = true;
        self.item(key)?;
        self.size.is_key = false;
        self.size.add(1)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.size)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

macro_rules! lists {
    ($($kind:ident $method:ident;)+) => {$(
        impl $kind for Items<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.item(value)
            }

            fn end(self) -> Result<(), Error> {
                Ok(())
            }
        }
    )+};
}

lists! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! objects {
    ($($kind:ident)+) => {$(
        impl $kind for Items<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.member(name, value)
            }

            fn end(self) -> Result<(), Error> {
                Ok(())
            }
        }
    )+};
}

objects! { SerializeStruct SerializeStructVariant }

/// Counts what is written, and keeps nothing.
struct Written(usize);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Counts the bytes of a text that is formatted piece by piece, with its escapes.
struct Text(usize);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() + escapes_size(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    #[track_caller]
    fn same(value: &impl Serialize) {
        let written = serde_json::to_string(value).map(|text| text.len());
        assert_eq!(json_size(value).ok(), written.ok());
    }

    #[derive(Clone, Debug, serde::Serialize)]
    enum Any {
        Nothing,
        Truth(bool),
        Small(i8, u8, i16, u16),
        Whole(i64),
        Large(i128, u128),
        Half(f32),
        Fraction(f64),
        Letter(char),
        Text(String),
        Bytes(#[serde(serialize_with = "as_bytes")] Vec<u8>),
        Perhaps(Option<Box<Any>>),
        Unit(()),
        List(Vec<Any>),
        Named { name: String, value: Box<Any> },
        ByText(BTreeMap<String, Any>),
        ByNumber(BTreeMap<i64, Any>),
        ByTruth(BTreeMap<bool, u64>),
        ByLetter(BTreeMap<char, u32>),
        Shown(#[serde(serialize_with = "shown")] String),
    }

    fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    fn shown<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("<{text}>"))
    }

    fn any_value() -> impl Strategy<Value = Any> {
        let text = || ".{0,80}|[\\x00-\\x7f]{0,80}";
        let leaf = prop_oneof![
            Just(Any::Nothing),
            Just(Any::Unit(())),
            any::<bool>().prop_map(Any::Truth),
            any::<(i8, u8, i16, u16)>().prop_map(|(a, b, c, d)| Any::Small(a, b, c, d)),
            any::<i64>().prop_map(Any::Whole),
            any::<(i128, u128)>().prop_map(|(a, b)| Any::Large(a, b)),
            any::<f32>().prop_map(Any::Half),
            any::<f64>().prop_map(Any::Fraction),
            any::<char>().prop_map(Any::Letter),
            text().prop_map(Any::Text),
            text().prop_map(Any::Shown),
            any::<Vec<u8>>().prop_map(Any::Bytes),
            proptest::collection::btree_map(any::<bool>(), any::<u64>(), 0..3)
                .prop_map(Any::ByTruth),
            proptest::collection::btree_map(any::<char>(), any::<u32>(), 0..3)
                .prop_map(Any::ByLetter),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                proptest::option::of(inner.clone())
                    .prop_map(|value| Any::Perhaps(value.map(Box::new))),
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Any::List),
                (text(), inner.clone()).prop_map(|(name, value)| {
                    let value = Box::new(value);
                    Any::Named { name, value }
                }),
                proptest::collection::btree_map(text(), inner.clone(), 0..4).prop_map(Any::ByText),
                proptest::collection::btree_map(any::<i64>(), inner, 0..4).prop_map(Any::ByNumber),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_takes_as_many_bytes_as_serde_json_writes(value in any_value()) {
            same(&value);
        }
    }

    #[test]
    fn whole_numbers_take_their_digits_and_their_sign() {
        let powers = (0..39).map(|power| 10_u128.pow(power));
        for number in powers.flat_map(|power| [power - 1, power, power + 1]) {
            same(&number);
        }
        same(&(u128::MAX, i128::MIN, u64::MAX, i64::MIN, i8::MIN, 0));
    }

    #[test]
    fn raw_json_is_counted_unchanged() {
        let raw = RawValue::from_string(r#"{"a" : [1, "\n"]}"#.to_owned()).unwrap();
        same(&raw);
        same(&vec![(1, raw)]);
    }

    #[test]
    fn what_serde_json_refuses_is_refused() {
        assert!(json_size(&BTreeMap::from([((1, 2), 3)])).is_err());
        for key in [None, Some(1)] {
            same(&BTreeMap::from([(key, 3)]));
        }
        #[derive(PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
        enum Key {
            Plain,
            With(u8),
        }
        same(&BTreeMap::from([(Key::Plain, 1)]));
        same(&BTreeMap::from([(Key::With(1), 1)]));
        same(&BTreeMap::from([((), 1)]));
    }
}
