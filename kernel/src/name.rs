//! Names that people and programs choose: tenants, categories, streams, commands.
//!
//! Invariant: a value of these types is well formed. None of them may hold personal data.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use crate::text::deserialize_text;

/// The most characters a tenant's name may have (RFC 1035 label length).
pub const TENANT_LENGTH_MAX: usize = 63;
/// The most characters a category may have.
pub const CATEGORY_LENGTH_MAX: usize = 63;
/// The most characters the id in a stream's name may have.
pub const STREAM_ID_LENGTH_MAX: usize = 128;
/// The most characters a command id may have.
pub const COMMAND_ID_LENGTH_MAX: usize = 255;

/// Why a text is not a name of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a tenant.
    #[error("a tenant is 1 to 63 characters of a-z, 0-9 and -")]
    Tenant,
    /// Not a category.
    #[error("a category is 1 to 63 characters: a letter a-z, then a-z, 0-9 and _")]
    Category,
    /// Not a stream.
    #[error(
        "a stream is category-id: a category of a-z, 0-9 and _, a dash, and an id of 1 to 128 \
         letters, digits and . _ ~ -"
    )]
    Stream,
    /// Not a command, correlation or causation id.
    #[error("an id is 1 to 255 visible ASCII characters without quotes and backslashes")]
    CommandId,
}

/// The frozen name of a type of command or event; it is not validated here. Like all names, it is
/// cheap to copy: a short name is stored inline, a longer one is shared.
pub type TypeName = SmolStr;

/// The pattern of a stream's name in JSON Schema.
const STREAM_PATTERN: &str = r"^[a-z][a-z0-9_]{0,62}-[A-Za-z0-9._~-]{1,128}$";

/// The pattern of a command id in JSON Schema: visible ASCII without `"` and `\`.
const COMMAND_ID_PATTERN: &str = r"^[!#-\[\]-~]{1,255}$";

/// The tenant for whom a stream is kept; `main` by default.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(SmolStr);

impl TenantId {
    /// The name of the default tenant.
    pub const MAIN: &'static str = "main";

    /// Whether it is the default tenant.
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.0 == Self::MAIN
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self(SmolStr::new_static(Self::MAIN))
    }
}

/// The type name of an aggregate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Category(SmolStr);

/// The name of one aggregate instance's stream: category, dash, id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(SmolStr);

impl StreamName {
    /// The part before the first dash.
    #[must_use]
    pub fn category(&self) -> &str {
        &self.0[..self.dash()]
    }

    /// The part after the first dash.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0[self.dash() + 1..]
    }

    fn dash(&self) -> usize {
        self.0.find('-').expect("a stream name holds a dash")
    }
}

/// The client's name for one intent, scoped by tenant and stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(SmolStr);

/// The name of a whole conversation of commands and events.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CorrelationId(SmolStr);

/// The name of the direct cause of a command.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CausationId(SmolStr);

fn is_category(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= CATEGORY_LENGTH_MAX
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_tenant(text: &str) -> bool {
    (1..=TENANT_LENGTH_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_stream(text: &str) -> bool {
    text.split_once('-').is_some_and(|(category, id)| {
        is_category(category)
            && (1..=STREAM_ID_LENGTH_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
    })
}

fn is_command_id(text: &str) -> bool {
    (1..=COMMAND_ID_LENGTH_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

macro_rules! name {
    ($type:ident, $check:ident, $error:ident, $schema:tt) => {
        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if $check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError::$error)
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_text(deserializer)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

name!(TenantId, is_tenant, Tenant, {"type": "string", "pattern": "^[a-z0-9-]{1,63}$"});
name!(Category, is_category, Category, {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"});
name!(StreamName, is_stream, Stream, {"type": "string", "pattern": STREAM_PATTERN});
name!(CommandId, is_command_id, CommandId, {"type": "string", "pattern": COMMAND_ID_PATTERN});
name!(CorrelationId, is_command_id, CommandId, {"type": "string", "pattern": COMMAND_ID_PATTERN});
name!(CausationId, is_command_id, CommandId, {"type": "string", "pattern": COMMAND_ID_PATTERN});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_category_a_dash_and_an_id() {
        let stream: StreamName = "payment-0a1b-2".parse().unwrap();
        assert_eq!((stream.category(), stream.id()), ("payment", "0a1b-2"));
        let long = format!("order-{}", "x".repeat(129));
        for text in [
            "",
            "order",
            "order-",
            "-1",
            "Order-1",
            "1order-1",
            "order-a b",
            "order-ä",
            "order-a/b",
            "or.der-1",
            long.as_str(),
        ] {
            assert_eq!(text.parse::<StreamName>(), Err(NameError::Stream), "{text}");
        }
    }

    #[test]
    fn names_keep_their_limits() {
        assert!("a".repeat(63).parse::<TenantId>().is_ok());
        assert!("a".repeat(64).parse::<TenantId>().is_err());
        assert!("Main".parse::<TenantId>().is_err());
        assert!("!".repeat(255).parse::<CommandId>().is_ok());
        for text in ["", "a b", "a\"", "a\\", "ä", "\u{7f}"] {
            assert!(text.parse::<CommandId>().is_err(), "{text}");
        }
        assert!("!".repeat(256).parse::<CommandId>().is_err());
    }
}
