//! Reads a command that is a variant of an enum, which is how users of `cqrs-es` write commands.
//!
//! Deliberately absent: enums with another tagging than serde's default; their decoder is written
//! by hand.

use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use crate::{ShapeError, decode_json};

/// Reads `data` as the variant `type_name` of an enum in serde's default (externally tagged) form.
/// The data of a variant without fields is `{}`. The only schema is 1.
///
/// # Errors
/// [`ShapeError`] for an unknown variant name, another schema, and data of another shape.
pub fn decode_variant<C: DeserializeOwned>(
    type_name: &str,
    schema: u16,
    data: &str,
) -> Result<C, ShapeError> {
    let name = type_name.to_owned();
    if !variants_of::<C>().contains(&type_name) {
        return Err(ShapeError::UnknownType { name });
    }
    if schema != 1 {
        let newest = 1;
        return Err(ShapeError::UnknownSchema {
            name,
            schema,
            newest,
        });
    }
    // A variant's name is a Rust identifier or any text from `serde(rename)`: escape it.
    let tag = serde_json::Value::from(name);
    if data.trim() == "{}"
        && let Ok(command) = decode_json(&tag.to_string())
    {
        return Ok(command);
    }
    decode_json(&format!("{{{tag}:{data}}}"))
}

/// The names of an enum's variants. Its `Deserialize` passes them to the deserializer.
fn variants_of<C: DeserializeOwned>() -> &'static [&'static str] {
    struct Listener<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Listener<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
            Err(Error::custom("nothing to read"))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _name: &'static str,
            variants: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, Error> {
            *self.0 = variants;
            Err(Error::custom("nothing to read"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier
            ignored_any
        }
    }

    let mut variants: &'static [&'static str] = &[];
    // This always fails. Only the names that the listener received count.
    let _ = C::deserialize(Listener(&mut variants));
    variants
}
