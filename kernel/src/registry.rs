//! The place where a domain is registered: deciders by category, without their types.
//!
//! Invariant: outside this file a program knows commands, events and states only as opaque values
//! made by their own aggregate. No panic of the domain's code gets out of this file: rules, copies,
//! serialisation and drops. Deliberately absent: any category's name.

mod guarded;
mod json_size;
mod plain_schema;

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::schemars::generate::SchemaSettings;
use crate::schemars::transform::{RecursiveTransform, Transform};
use crate::schemars::{Schema, SchemaGenerator};
use crate::{
    Context, Decider, EventObjects, Message, MessageType, RecordedRejection, Rejection,
    RejectionType, ShapeError, Timestamp, TypeName, canonical_json,
};

pub use self::guarded::RuleError;
use self::guarded::{Guarded, guarded};
use self::json_size::json_size;

/// A state, command or event whose type only its aggregate knows.
pub type Opaque = Box<dyn Any + Send + Sync>;

/// A command or event whose type only its aggregate knows, and that nobody changes.
pub type OpaqueMessage = Arc<dyn Any + Send + Sync>;

/// A decided event: its value for evolving, and its serialised form for the log.
#[derive(Clone)]
pub struct DecidedEvent {
    /// The frozen name of its type.
    pub type_name: TypeName,
    /// The number of its data's shape.
    pub schema: u16,
    /// Its data.
    pub data: Box<RawValue>,
    value: OpaqueMessage,
}

impl DecidedEvent {
    /// Replaces the value by what readers will decode from `data`, because the data is what counts.
    ///
    /// # Errors
    /// [`MessageError`] if readers could not decode the data.
    pub fn read_back(
        &mut self,
        aggregate: &dyn Aggregate,
        data: &RawValue,
    ) -> Result<(), MessageError> {
        self.value = aggregate.decode_event(&self.type_name, self.schema, data.get())?;
        Ok(())
    }
}

/// A command that has the shape that its aggregate asks for.
#[derive(Clone)]
pub struct DecodedCommand {
    /// Its data as sent, in canonical form. This form is recorded and compared.
    pub data: Box<RawValue>,
    value: OpaqueMessage,
}

impl DecodedCommand {
    /// A placeholder for a command whose data nobody needs any more.
    pub fn emptied() -> Self {
        Self {
            data: RawValue::NULL.to_owned(),
            value: Arc::new(()),
        }
    }
}

/// A command or event in the newest shape of its type.
#[derive(Clone, Debug)]
pub struct Newest {
    /// The number of that shape.
    pub schema: u16,
    /// Its data in that shape.
    pub data: Box<RawValue>,
}

/// The result of a decision: the events, or the refusal.
pub type Decided = Result<Vec<DecidedEvent>, RecordedRejection>;

/// A decider without its types. A panic in the domain's code comes back as [`RuleError`].
pub trait Aggregate: Send + Sync + 'static {
    /// The category of its streams.
    fn category(&self) -> &'static str;
    /// The version of its rules: [`Decider::RULES_VERSION`].
    fn rules_version(&self) -> u32;
    /// Which objects its events are about: [`Decider::OBJECTS`].
    fn objects(&self) -> &'static [EventObjects];
    /// The routing key of one of its streams.
    ///
    /// # Errors
    /// [`RuleError`].
    fn routing_key<'a>(&self, stream: &'a str) -> Result<&'a str, RuleError>;
    /// The state before any event.
    ///
    /// # Errors
    /// [`RuleError`].
    fn initial(&self) -> Result<Opaque, RuleError>;
    /// A copy of a state.
    ///
    /// # Errors
    /// [`RuleError`].
    fn copy(&self, state: &Opaque) -> Result<Opaque, RuleError>;
    /// Reads a command. If `schema` is absent, the command has the aggregate's current shape.
    ///
    /// # Errors
    /// [`MessageError`].
    fn decode_command(
        &self,
        type_name: &str,
        schema: Option<u16>,
        data: &str,
    ) -> Result<DecodedCommand, MessageError>;
    /// Decides on a command.
    ///
    /// # Errors
    /// [`RuleError`].
    fn decide(
        &self,
        state: &Opaque,
        command: &DecodedCommand,
        context: &Context,
    ) -> Result<Decided, RuleError>;
    /// Reads an event from the log, as every reader does.
    ///
    /// # Errors
    /// [`MessageError`] if the data cannot be read. If the event is in the log already, a program
    /// with this aggregate freezes the event's stream.
    fn decode_event(
        &self,
        type_name: &str,
        schema: u16,
        data: &str,
    ) -> Result<OpaqueMessage, MessageError>;
    /// A recorded event in the newest shape of its type. In that shape already, its data stays as it
    /// is, byte for byte.
    ///
    /// # Errors
    /// [`MessageError`] as for [`Aggregate::decode_event`].
    fn newest_event(
        &self,
        type_name: &str,
        schema: u16,
        data: &RawValue,
    ) -> Result<Newest, MessageError>;
    /// A command in the newest shape of its type, as for [`Aggregate::newest_event`].
    ///
    /// # Errors
    /// [`MessageError`] as for [`Aggregate::decode_command`].
    fn newest_command(
        &self,
        type_name: &str,
        schema: u16,
        data: &RawValue,
    ) -> Result<Newest, MessageError>;
    /// Applies an event that was just decided to the state.
    ///
    /// # Errors
    /// [`RuleError`]: the state may be half changed; throw it away.
    fn evolve(
        &self,
        state: &mut Opaque,
        event: &DecidedEvent,
        occurred_at: Timestamp,
    ) -> Result<(), RuleError>;
    /// Applies an event from the log to the state.
    ///
    /// # Errors
    /// [`MessageError`]: the state may be half changed; throw it away.
    fn evolve_recorded(
        &self,
        state: &mut Opaque,
        type_name: &str,
        schema: u16,
        data: &str,
        occurred_at: Timestamp,
    ) -> Result<(), MessageError>;
    /// A state as JSON, for checkpoints and for people.
    ///
    /// # Errors
    /// [`RuleError`].
    fn encode_state(&self, state: &Opaque) -> Result<String, RuleError>;
    /// The size of a state as JSON, in bytes.
    ///
    /// # Errors
    /// [`RuleError`].
    fn measure_state(&self, state: &Opaque) -> Result<usize, RuleError>;
    /// Reads a state of an earlier checkpoint. Absent if the state has another form now; then it
    /// must be folded again.
    fn decode_state(&self, json: &[u8]) -> Option<Opaque>;
    /// The types of its commands, with schemas that use `generator`'s definitions.
    fn command_types(&self, generator: &mut SchemaGenerator) -> Vec<MessageType>;
    /// The types of its events.
    fn event_types(&self, generator: &mut SchemaGenerator) -> Vec<MessageType>;
    /// The rules that its commands may break.
    fn rejection_types(&self, generator: &mut SchemaGenerator) -> Vec<RejectionType>;
    /// The schema of its state as JSON; absent if the state has no declared form.
    fn state_schema(&self, generator: &mut SchemaGenerator) -> Option<Schema>;
}

/// Why a command or event could not be read or applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It does not have the shape of its type.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The domain's code failed on it.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

/// All aggregates that an engine runs.
#[derive(Clone, Default)]
pub struct Registry {
    aggregates: BTreeMap<&'static str, Arc<dyn Aggregate>>,
}

impl Registry {
    /// A registry without aggregates.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a decider.
    ///
    /// # Panics
    /// If the category is malformed or already registered: a bug of the program.
    #[must_use]
    pub fn with<D: Decider>(mut self) -> Self {
        let category = D::CATEGORY;
        assert!(
            category.parse::<crate::Category>().is_ok(),
            "malformed category {category:?}"
        );
        let aggregate = Arc::new(Erased::<D>(PhantomData));
        let earlier = self.aggregates.insert(category, aggregate);
        assert!(
            earlier.is_none(),
            "category {category:?} is registered twice"
        );
        self
    }

    /// The aggregate of a category.
    #[must_use]
    pub fn get(&self, category: &str) -> Option<&Arc<dyn Aggregate>> {
        self.aggregates.get(category)
    }

    /// All aggregates in order of category.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Aggregate>> {
        self.aggregates.values()
    }

    /// The categories, separated by commas, for messages.
    #[must_use]
    pub fn categories(&self) -> String {
        self.aggregates
            .keys()
            .copied()
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// A generator of JSON Schema 2020-12 whose definitions are placed under `definitions_path`. A
    /// choice of values is an `enum`, and integers have the formats `int32` or `int64`, as client
    /// generators need it.
    #[must_use]
    pub fn schema_generator(definitions_path: &'static str) -> SchemaGenerator {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = definitions_path.into();
        settings.meta_schema = None;
        settings
            .with_transform(RecursiveTransform(plain_schema::plain))
            .into_generator()
    }
}

/// The definitions that a generator collected, by name.
#[must_use]
pub fn definitions_of(mut generator: SchemaGenerator) -> BTreeMap<String, Schema> {
    generator
        .take_definitions(true)
        .into_iter()
        .filter_map(|(name, schema)| Some((name, Schema::try_from(schema).ok()?)))
        .collect()
}

struct Erased<D>(PhantomData<fn() -> D>);

/// A message of the set `S` in the newest shape of its type.
fn newest<S: Message>(name: &str, schema: u16, data: &RawValue) -> Result<Newest, MessageError> {
    guarded("reading an old shape", || {
        let message = S::decode(name, schema, data.get())?;
        let newest = message.schema();
        let data = if newest == schema {
            data.to_owned()
        } else {
            message.encode().map_err(RuleError::from)?
        };
        Ok(Newest {
            schema: newest,
            data,
        })
    })
}

fn own<T: 'static>(value: &(dyn Any + Send + Sync)) -> &T {
    let value: &Guarded<T> = value
        .downcast_ref()
        .expect("the engine gives back only what this aggregate made");
    value
}

fn own_mut<T: 'static>(value: &mut Opaque) -> &mut T {
    let value: &mut Guarded<T> = value
        .downcast_mut()
        .expect("the engine gives back only what this aggregate made");
    value
}

impl<D: Decider> Aggregate for Erased<D> {
    fn category(&self) -> &'static str {
        D::CATEGORY
    }

    fn rules_version(&self) -> u32 {
        D::RULES_VERSION
    }

    fn objects(&self) -> &'static [EventObjects] {
        D::OBJECTS
    }

    fn routing_key<'a>(&self, stream: &'a str) -> Result<&'a str, RuleError> {
        guarded("routing_key", || Ok(D::routing_key(stream)))
    }

    fn initial(&self) -> Result<Opaque, RuleError> {
        guarded("the state's Default", || {
            Ok(Box::new(Guarded::new(D::State::default())) as Opaque)
        })
    }

    fn copy(&self, state: &Opaque) -> Result<Opaque, RuleError> {
        guarded("the state's Clone", || {
            let copy = own::<D::State>(&**state).clone();
            Ok(Box::new(Guarded::new(copy)) as Opaque)
        })
    }

    fn decode_command(
        &self,
        type_name: &str,
        schema: Option<u16>,
        data: &str,
    ) -> Result<DecodedCommand, MessageError> {
        let decode = || {
            let data = canonical_json(data)?;
            let schema = schema.unwrap_or_else(|| D::Command::current_schema(type_name));
            // Decode the recorded form, in which an integer is written with digits alone.
            let command = D::Command::decode(type_name, schema, &data)?;
            let unreadable = |error: serde_json::Error| ShapeError::Data {
                pointer: String::new(),
                detail: error.to_string(),
            };
            Ok(DecodedCommand {
                data: RawValue::from_string(data).map_err(unreadable)?,
                value: Arc::new(Guarded::new(command)),
            })
        };
        guarded("reading a command", decode)
    }

    fn decide(
        &self,
        state: &Opaque,
        command: &DecodedCommand,
        context: &Context,
    ) -> Result<Decided, RuleError> {
        let decide = || {
            let state = own::<D::State>(&**state);
            let events = match D::decide(state, own::<D::Command>(&*command.value), context) {
                Ok(events) => events,
                Err(rejection) => {
                    return Ok(Err(RecordedRejection {
                        code: rejection.code().to_owned(),
                        detail: rejection.to_string(),
                        facts: rejection.facts(),
                    }));
                }
            };
            let mut decided = Vec::with_capacity(events.len());
            for event in events {
                decided.push(DecidedEvent {
                    type_name: event.type_name(),
                    schema: event.schema(),
                    data: event.encode()?,
                    value: Arc::new(Guarded::new(event)),
                });
            }
            Ok(Ok(decided))
        };
        guarded("decide", decide)
    }

    fn decode_event(
        &self,
        type_name: &str,
        schema: u16,
        data: &str,
    ) -> Result<OpaqueMessage, MessageError> {
        guarded("reading an event", || {
            let event = D::Event::decode(type_name, schema, data)?;
            Ok(Arc::new(Guarded::new(event)) as OpaqueMessage)
        })
    }

    fn newest_event(
        &self,
        type_name: &str,
        schema: u16,
        data: &RawValue,
    ) -> Result<Newest, MessageError> {
        newest::<D::Event>(type_name, schema, data)
    }

    fn newest_command(
        &self,
        type_name: &str,
        schema: u16,
        data: &RawValue,
    ) -> Result<Newest, MessageError> {
        newest::<D::Command>(type_name, schema, data)
    }

    fn evolve(
        &self,
        state: &mut Opaque,
        event: &DecidedEvent,
        occurred_at: Timestamp,
    ) -> Result<(), RuleError> {
        guarded("evolve", || {
            D::evolve(own_mut(state), own::<D::Event>(&*event.value), occurred_at);
            Ok(())
        })
    }

    fn evolve_recorded(
        &self,
        state: &mut Opaque,
        type_name: &str,
        schema: u16,
        data: &str,
        occurred_at: Timestamp,
    ) -> Result<(), MessageError> {
        guarded("evolve", || {
            let event = D::Event::decode(type_name, schema, data)?;
            D::evolve(own_mut(state), &event, occurred_at);
            Ok(())
        })
    }

    fn encode_state(&self, state: &Opaque) -> Result<String, RuleError> {
        guarded("the state's Serialize", || {
            Ok(serde_json::to_string(own::<D::State>(&**state))?)
        })
    }

    fn measure_state(&self, state: &Opaque) -> Result<usize, RuleError> {
        guarded("the state's Serialize", || {
            Ok(json_size(own::<D::State>(&**state))?)
        })
    }

    fn decode_state(&self, json: &[u8]) -> Option<Opaque> {
        let read = || -> Result<Opaque, RuleError> {
            let state: D::State = serde_json::from_slice(json)?;
            Ok(Box::new(Guarded::new(state)))
        };
        guarded("the state's Deserialize", read).ok()
    }

    fn command_types(&self, generator: &mut SchemaGenerator) -> Vec<MessageType> {
        D::Command::types(generator)
    }

    fn event_types(&self, generator: &mut SchemaGenerator) -> Vec<MessageType> {
        D::Event::types(generator)
    }

    fn rejection_types(&self, generator: &mut SchemaGenerator) -> Vec<RejectionType> {
        let mut rules = D::Rejection::types(generator);
        for (_, schema) in rules.iter_mut().flat_map(|rule| &mut rule.facts) {
            RecursiveTransform(plain_schema::plain).transform(schema);
        }
        rules
    }

    fn state_schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        D::state_schema(generator)
    }
}
