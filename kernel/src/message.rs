//! Commands and events as typed payloads with frozen names, and how they are read from JSON.
//!
//! Invariant: errors of shape (types, sizes, unknown fields) are found here, each with a JSON
//! pointer (RFC 6901) to its place. Deliberately absent: business rules.

mod declare;
mod strict;

use schemars::{Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use strict::Strict;

use crate::TypeName;

/// A set of payload types that travel under frozen names, such as all commands of an aggregate.
pub trait Message: Sized + Clone + Send + Sync + 'static {
    /// The frozen name of this payload's type.
    fn type_name(&self) -> TypeName;

    /// The number of this payload's shape, from 1.
    fn schema(&self) -> u16;

    /// The current shape number of messages of this name. It applies to a message that names no
    /// schema. 1 if the set does not list the name.
    #[must_use]
    fn current_schema(type_name: &str) -> u16 {
        let _ = type_name;
        1
    }

    /// Its data as compact JSON.
    ///
    /// # Errors
    /// The error of the payload's own serialisation.
    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error>;

    /// Reads the data of the named type.
    ///
    /// # Errors
    /// [`ShapeError`] for an unknown name or schema, and for data of another shape.
    fn decode(type_name: &str, schema: u16, data: &str) -> Result<Self, ShapeError>;

    /// Every type of the set, in the order of declaration; empty if the set is open.
    fn types(generator: &mut SchemaGenerator) -> Vec<MessageType>;
}

/// A payload type of the set `S`; [`messages!`](crate::messages) implements it for each of them.
pub trait Payload<S: Message>: Sized {
    /// The frozen name of the type.
    const NAME: &'static str;

    /// The payload of a message, if it is of this type.
    fn of(message: &S) -> Option<&Self>;
}

/// One payload type of a [`Message`] set.
#[derive(Clone, Debug)]
pub struct MessageType {
    /// Its frozen name.
    pub name: &'static str,
    /// The number of its shape.
    pub schema_version: u16,
    /// The numbers of older shapes that are still read.
    pub older_versions: Vec<u16>,
    /// Its JSON Schema.
    pub schema: Schema,
}

/// Why data does not have the shape that its type asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The set has no type with this name.
    #[error("no type is named {name:?}")]
    UnknownType {
        /// The name asked for.
        name: String,
    },
    /// The type has no shape with this number.
    #[error("{name} has no schema {schema}")]
    UnknownSchema {
        /// The type's name.
        name: String,
        /// The schema number asked for.
        schema: u16,
        /// The number of its newest shape.
        newest: u16,
    },
    /// The data does not have the type's shape.
    #[error("{detail}")]
    Data {
        /// Where, as a JSON pointer (RFC 6901); empty for the whole.
        pointer: String,
        /// What is wrong there.
        detail: String,
    },
}

impl ShapeError {
    /// Whether a newer program may know the type or shape. Then the data is not damaged: this program
    /// is too old for it.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        match self {
            Self::UnknownType { .. } => true,
            Self::UnknownSchema { schema, newest, .. } => schema > newest,
            Self::Data { .. } => false,
        }
    }
}

/// Reads a value from JSON text, exactly as its derived JSON Schema describes it. An error names
/// the place that does not fit.
///
/// # Errors
/// [`ShapeError::Data`] with the pointer to the first place that does not fit.
pub fn decode_json<T: DeserializeOwned>(data: &str) -> Result<T, ShapeError> {
    let mut reader = serde_json::Deserializer::from_str(data);
    let read = T::deserialize(Strict(&mut reader)).and_then(|value| {
        reader.end()?;
        Ok(value)
    });
    // Tracking the path costs time, so the path is searched only after an error.
    read.map_err(|error| locate::<T>(data).unwrap_or_else(|| whole(&error)))
}

fn locate<T: DeserializeOwned>(data: &str) -> Option<ShapeError> {
    let mut reader = serde_json::Deserializer::from_str(data);
    let error = serde_path_to_error::deserialize::<_, T>(Strict(&mut reader)).err()?;
    Some(ShapeError::Data {
        pointer: pointer_of(error.path()),
        detail: error.into_inner().to_string(),
    })
}

fn whole(error: &serde_json::Error) -> ShapeError {
    ShapeError::Data {
        pointer: String::new(),
        detail: error.to_string(),
    }
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            // The variant is the type's name, not a place in the data.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parcel {
        size: Size,
        #[serde(default)]
        inside: Vec<Parcel>,
        weights: Option<BTreeMap<u8, (u8, u8)>>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Size {
        Small,
        Sized(u32),
        Measured { width: u32 },
        Pair(u32, u32),
    }

    #[track_caller]
    fn refused_at(data: &str, place: &str) {
        match decode_json::<Parcel>(data) {
            Err(ShapeError::Data { pointer, .. }) => assert_eq!(pointer, place, "{data}"),
            other => panic!("{data}: {other:?}"),
        }
    }

    #[test]
    fn reads_what_the_schema_says() {
        for data in [
            r#"{"size":"Small"}"#,
            r#"{"size":{"Sized":3}}"#,
            r#"{"size":{"Measured":{"width":3}},"weights":null}"#,
            r#"{"size":{"Pair":[1,2]},"weights":{"7":[1,2]},"inside":[{"size":"Small"}]} "#,
        ] {
            decode_json::<Parcel>(data).unwrap();
        }
    }

    #[test]
    fn refuses_what_serde_would_read_beyond_the_schema() {
        refused_at(r#"["Small",[],null]"#, "");
        refused_at(r#"{"size":{"Small":null}}"#, "/size");
        refused_at(r#"{"size":{"Measured":[3]}}"#, "/size");
        refused_at(r#"{"size":"Small","inside":[["Small"]]}"#, "/inside/0");
    }

    #[test]
    fn points_at_the_place_that_does_not_fit() {
        refused_at(r#"{"size":"Huge"}"#, "/size");
        refused_at(r#"{"size":"Sized"}"#, "/size");
        refused_at(r#"{"size":{"Sized":3,"Pair":[1,2]}}"#, "/size");
        refused_at(
            r#"{"size":"Small","inside":[{"size":"Small"},{"size":7}]}"#,
            "/inside/1/size",
        );
        refused_at(r#"{"size":"Small","a/b~c":1}"#, "/a~1b~0c");
        refused_at(r#"{"size":"Small"} {}"#, "");
        refused_at(r#"{"size":"Small"#, "/size");
        refused_at("", "");
    }
}
