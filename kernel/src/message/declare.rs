//! The macro that declares a set of messages.
//!
//! Invariant: it works under whatever name a program knows this crate. Deliberately absent: what the
//! set can do then ([`Message`](crate::Message)).

/// Declares a [`Message`](crate::Message) set: an enum of payload types, each of which stands here
/// once, with its fields.
///
/// A variant's name is its frozen name on the wire and the name of the struct that is made of it; the
/// struct derives `Clone`, `Debug`, `PartialEq`, `Serialize`, `Deserialize` (with
/// `deny_unknown_fields`) and `JsonSchema`. Doc comments become the descriptions in the schemas, and
/// attributes of variants and fields become those of the struct. A variant without braces names a
/// struct that stands elsewhere and derives the same.
///
/// The schema number is 1 unless given. When a shape changes, its number is raised, and the old shape
/// stays as a type of its own, from which the new one is made (an upcaster):
/// `DoorOpened { … } = 2 from [1: DoorOpenedV1]`, with `impl From<DoorOpenedV1> for DoorOpened`.
///
/// The crate that declares messages depends on `serde` and `schemars`, whose derives are used.
///
/// ```
/// kernel::messages! {
///     /// The commands of a door.
///     pub enum Command {
///         /// Opens the door.
///         OpenDoor {
///             /// How far, in degrees.
///             degrees: u16,
///         },
///         /// Closes the door.
///         CloseDoor {},
///     }
/// }
/// use kernel::Message as _;
/// let open = Command::from(OpenDoor { degrees: 90 });
/// assert_eq!(open.type_name(), "OpenDoor");
/// assert_eq!(open.encode()?.get(), r#"{"degrees":90}"#);
/// # Ok::<(), kernel::serde_json::Error>(())
/// ```
#[macro_export]
macro_rules! messages {
    (
        $(#[$meta:meta])*
        $vis:vis enum $set:ident {
            $(
                $(#[$about:meta])*
                $type:ident $({ $($fields:tt)* })?
                $(= $schema:literal $(from [$($old:literal : $old_type:ty),+ $(,)?])?)?
            ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $vis enum $set {
            $(
                #[doc = concat!("See [`", stringify!($type), "`].")]
                $type($type)
            ),+
        }

        $($crate::messages!(@payload $vis [$(#[$about])*] $type $({ $($fields)* })?);)+

        impl $crate::Message for $set {
            fn type_name(&self) -> $crate::TypeName {
                match self { $(Self::$type(_) => $crate::TypeName::new_static(stringify!($type))),+ }
            }

            fn schema(&self) -> u16 {
                match self { $(Self::$type(_) => $crate::messages!(@schema $($schema)?)),+ }
            }

            fn current_schema(type_name: &str) -> u16 {
                match type_name {
                    $(stringify!($type) => $crate::messages!(@schema $($schema)?),)+
                    _ => 1,
                }
            }

            fn encode(
                &self,
            ) -> Result<Box<$crate::serde_json::value::RawValue>, $crate::serde_json::Error> {
                match self { $(Self::$type(data) => $crate::serde_json::value::to_raw_value(data)),+ }
            }

            fn decode(name: &str, schema: u16, data: &str) -> Result<Self, $crate::ShapeError> {
                match (name, schema) {
                    $((stringify!($type), $crate::messages!(@schema $($schema)?)) =>
                        $crate::decode_json(data).map(Self::$type),
                    $($($((stringify!($type), $old) => $crate::decode_json::<$old_type>(data)
                        .map(|old| Self::$type($type::from(old))),)+)?)?)+
                    $((stringify!($type), _) => Err($crate::ShapeError::UnknownSchema {
                        name: name.to_owned(),
                        schema,
                        newest: $crate::messages!(@schema $($schema)?),
                    }),)+
                    _ => Err($crate::ShapeError::UnknownType { name: name.to_owned() }),
                }
            }

            fn types(generator: &mut $crate::schemars::SchemaGenerator) -> Vec<$crate::MessageType> {
                vec![$($crate::MessageType {
                    name: stringify!($type),
                    schema_version: $crate::messages!(@schema $($schema)?),
                    older_versions: vec![$($($($old),+)?)?],
                    schema: generator.subschema_for::<$type>(),
                }),+]
            }
        }

        // Serde's derives take the path of their crate as a text, in which `$crate` means nothing:
        // hence a name for it.
        const _: () = {
            use $crate as messages_crate;

            #[derive(messages_crate::serde::Serialize)]
            #[serde(crate = "messages_crate::serde")]
            #[allow(non_camel_case_types, reason = "no payload has such a name")]
            enum __Written<'a> { $($type(&'a $type)),+ }

            #[derive(messages_crate::serde::Deserialize)]
            #[serde(crate = "messages_crate::serde")]
            #[allow(non_camel_case_types, reason = "no payload has such a name")]
            enum __Read { $($type($type)),+ }

            impl messages_crate::serde::Serialize for $set {
                fn serialize<S: messages_crate::serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> Result<S::Ok, S::Error> {
                    let written = match self { $(Self::$type(data) => __Written::$type(data)),+ };
                    messages_crate::serde::Serialize::serialize(&written, serializer)
                }
            }

            impl<'de> messages_crate::serde::Deserialize<'de> for $set {
                fn deserialize<D: messages_crate::serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> Result<Self, D::Error> {
                    let read = <__Read as messages_crate::serde::Deserialize>::deserialize(deserializer)?;
                    Ok(match read { $(__Read::$type(data) => Self::$type(data)),+ })
                }
            }
        };

        $(impl From<$type> for $set {
            fn from(data: $type) -> Self {
                Self::$type(data)
            }
        }

        impl $crate::Payload<$set> for $type {
            const NAME: &'static str = stringify!($type);

            fn of(message: &$set) -> Option<&Self> {
                match message {
                    $set::$type(data) => Some(data),
                    #[allow(unreachable_patterns, reason = "a set may have one type")]
                    _ => None,
                }
            }
        })+
    };
    (@payload $vis:vis [$($about:tt)*] $type:ident) => {};
    (
        @payload $vis:vis [$($about:tt)*] $type:ident {
            $($(#[$attribute:meta])* $field:ident : $field_type:ty),* $(,)?
        }
    ) => {
        #[derive(
            Clone,
            Debug,
            PartialEq,
            $crate::serde::Serialize,
            $crate::serde::Deserialize,
            $crate::schemars::JsonSchema,
        )]
        #[serde(deny_unknown_fields)]
        $($about)*
        $vis struct $type {
            $($(#[$attribute])* pub $field: $field_type),*
        }
    };
    (@schema) => { 1 };
    (@schema $schema:literal) => { $schema };
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::{Message as _, ShapeError};

    messages! {
        enum Event {
            /// It was opened.
            DoorOpened {
                /// How far.
                degrees: u16,
                /// By whom, if that was noticed.
                by: Option<u32>,
            } = 3 from [1: DoorOpenedV1, 2: DoorOpenedV2],
            /// It was closed.
            DoorClosed {},
        }
    }

    /// At first a door was open or not.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct DoorOpenedV1 {}

    /// Then it was noticed how far.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct DoorOpenedV2 {
        degrees: u16,
    }

    impl From<DoorOpenedV1> for DoorOpened {
        fn from(_: DoorOpenedV1) -> Self {
            Self {
                degrees: 90,
                by: None,
            }
        }
    }

    impl From<DoorOpenedV2> for DoorOpened {
        fn from(old: DoorOpenedV2) -> Self {
            Self {
                degrees: old.degrees,
                by: None,
            }
        }
    }

    #[test]
    fn an_old_shape_is_read_as_the_present_one() {
        let opened = |degrees, by| Event::from(DoorOpened { degrees, by });
        for (schema, data, read) in [
            (1, "{}", opened(90, None)),
            (2, r#"{"degrees":45}"#, opened(45, None)),
            (3, r#"{"degrees":45,"by":7}"#, opened(45, Some(7))),
        ] {
            assert_eq!(
                Event::decode("DoorOpened", schema, data),
                Ok(read),
                "{schema}"
            );
        }
        assert_eq!(opened(1, None).schema(), 3);
        assert_eq!(Event::current_schema("DoorOpened"), 3);
    }

    #[test]
    fn a_shape_that_is_not_listed_is_not_read() {
        let name = "DoorOpened".to_owned();
        let (schema, newest) = (4, 3);
        let unknown = ShapeError::UnknownSchema {
            name,
            schema,
            newest,
        };
        assert!(unknown.is_newer());
        assert_eq!(Event::decode("DoorOpened", 4, "{}"), Err(unknown));
        let is_newer = |name, schema| Event::decode(name, schema, "{}").unwrap_err().is_newer();
        assert!(is_newer("DoorPainted", 1));
        assert!(!is_newer("DoorOpened", 0));
        assert!(!is_newer("DoorOpened", 2));
        assert!(Event::decode("DoorOpened", 2, "{}").is_err());
        assert!(Event::decode("DoorClosed", 2, "{}").is_err());
    }

    #[test]
    fn a_set_is_written_as_serde_writes_an_enum() {
        let opened = Event::from(DoorOpened {
            degrees: 1,
            by: Some(2),
        });
        let text = r#"{"DoorOpened":{"degrees":1,"by":2}}"#;
        assert_eq!(serde_json::to_string(&opened).unwrap(), text);
        assert_eq!(serde_json::from_str::<Event>(text).unwrap(), opened);
    }
}
