//! A refusal by the business.
//!
//! Deliberately absent: technical failures, which are errors, and bugs, which are assertions.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The reason for which a rule refuses a command. It is recorded in the log.
///
/// Its `Display` is the sentence that people read. Neither the sentence nor the facts hold personal
/// data. [`rejections!`](crate::rejections) declares an enum of such reasons.
pub trait Rejection: std::error::Error + Send + Sync + 'static {
    /// The stable code of the broken rule, frozen on the wire: `[a-z][a-z0-9_]*`.
    fn code(&self) -> &str;

    /// The facts that explain the refusal, as members of one JSON object.
    fn facts(&self) -> Map<String, Value>;

    /// Every rule, in the order of declaration; empty if the set is open. The facts' schemas use
    /// `generator`'s definitions.
    fn types(generator: &mut SchemaGenerator) -> Vec<RejectionType>
    where
        Self: Sized,
    {
        let _ = generator;
        Vec::new()
    }
}

/// One rule that a command may break.
#[derive(Clone, Debug)]
pub struct RejectionType {
    /// Its frozen code.
    pub code: &'static str,
    /// What the rule says.
    pub about: String,
    /// Its facts, by name, with a JSON Schema each. A refusal has all of them.
    pub facts: Vec<(&'static str, Schema)>,
}

/// The reason of a refusal as it stands in the log: a [`Rejection`] without its type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordedRejection {
    /// The stable code of the broken rule.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
    /// The facts that explain the refusal.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
}

/// Declares a set of [`Rejection`]s: an enum whose variants have facts as fields, each with its
/// frozen code and its sentence for people, which may name facts in braces.
///
/// The types of facts implement `Serialize`, `JsonSchema` and `Display`. The doc comments become
/// descriptions in the schemas.
///
/// ```
/// kernel::rejections! {
///     /// The rules of a door.
///     pub enum Rejection {
///         /// A closed door stays closed.
///         Closed {
///             /// How often somebody knocked.
///             knocks: u32,
///         } => "door_closed", "the door is closed, after {knocks} knocks",
///         /// There is a door.
///         Absent => "door_absent", "there is no door",
///     }
/// }
/// use kernel::Rejection as _;
/// let closed = Rejection::Closed { knocks: 3 };
/// assert_eq!(closed.code(), "door_closed");
/// assert_eq!(closed.to_string(), "the door is closed, after 3 knocks");
/// assert_eq!(closed.facts()["knocks"], 3);
/// ```
#[macro_export]
macro_rules! rejections {
    (
        $(#[$meta:meta])*
        $vis:vis enum $set:ident {
            $(
                $(#[doc = $about:literal])+
                $variant:ident $({
                    $($(#[doc = $meaning:literal])+ $fact:ident : $type:ty),+ $(,)?
                })? => $code:literal, $sentence:literal
            ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $vis enum $set {
            $(
                $(#[doc = $about])+
                $variant $({ $($(#[doc = $meaning])+ $fact: $type),+ })?
            ),+
        }

        impl ::std::fmt::Display for $set {
            fn fmt(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                match self {
                    $(
                        #[allow(unused_variables, reason = "a sentence need not name every fact")]
                        Self::$variant $({ $($fact),+ })? => write!(formatter, $sentence)
                    ),+
                }
            }
        }

        impl ::std::error::Error for $set {}

        impl $crate::Rejection for $set {
            fn code(&self) -> &str {
                match self { $(Self::$variant { .. } => $code),+ }
            }

            fn facts(&self) -> $crate::serde_json::Map<String, $crate::serde_json::Value> {
                #[allow(unused_mut, reason = "some rules have no facts")]
                let mut facts = $crate::serde_json::Map::new();
                match self {
                    $(Self::$variant $({ $($fact),+ })? => {
                        $($(
                            let fact = $crate::serde_json::to_value($fact).unwrap_or_default();
                            facts.insert(stringify!($fact).to_owned(), fact);
                        )+)?
                    })+
                }
                facts
            }

            fn types(
                generator: &mut $crate::schemars::SchemaGenerator,
            ) -> Vec<$crate::RejectionType> {
                vec![$($crate::RejectionType {
                    code: $code,
                    about: $crate::doc_text(&[$($about),+]),
                    facts: vec![$($((stringify!($fact), {
                        let schema = generator.subschema_for::<$type>();
                        $crate::described(schema, &[$($meaning),+])
                    })),+)?],
                }),+]
            }
        }
    };
}

/// The text of a doc comment, given its lines.
#[doc(hidden)]
#[must_use]
pub fn doc_text(lines: &[&str]) -> String {
    lines
        .join("\n")
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A schema with this doc comment as its description.
#[doc(hidden)]
#[must_use]
pub fn described(mut schema: Schema, doc: &[&str]) -> Schema {
    schema.insert("description".to_owned(), doc_text(doc).into());
    schema
}
