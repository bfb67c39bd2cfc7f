//! Runs a `cqrs_es::Aggregate`, unchanged, as a `Decider`.
//!
//! Invariant: whatever `handle` does to the aggregate, only the events that it wrote change the
//! state, and only through `apply`. Deliberately absent: waiting. `handle` is polled once; if it is
//! not ready then, the command is refused, because an owner that waits for one command stops all
//! others.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::pin;
use std::task::{Poll, Waker};

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use schemars::SchemaGenerator;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::{
    Context, Decider, Message, MessageType, Rejection, ShapeError, Timestamp, TypeName,
    canonical_json,
};

type CommandOf<T> = <<T as Adoption>::Aggregate as Aggregate>::Command;
type EventOf<T> = <<T as Adoption>::Aggregate as Aggregate>::Event;
type ErrorOf<T> = <<T as Adoption>::Aggregate as Aggregate>::Error;
type ServicesOf<T> = <<T as Adoption>::Aggregate as Aggregate>::Services;

/// What an adopted aggregate needs in addition to `cqrs_es::Aggregate`; implemented on a marker
/// type.
pub trait Adoption: 'static {
    /// The aggregate that is adopted.
    ///
    /// It is copied through its JSON form before each decision, so what serde skips is not in the
    /// copy.
    type Aggregate: Aggregate;

    /// The category of its streams, frozen on the wire: `[a-z][a-z0-9_]*`. (`Aggregate::TYPE` may
    /// be written otherwise.)
    const CATEGORY: &'static str;

    /// The version of `apply` and of the aggregate's form; see [`Decider::RULES_VERSION`].
    const RULES_VERSION: u32 = 1;

    /// The services that `handle` receives. Every decision asks for them, so they live as long as
    /// the program.
    fn services() -> &'static ServicesOf<Self>;

    /// Reads a command. For an enum that derives serde, [`decode_variant`](super::decode_variant)
    /// does this.
    ///
    /// # Errors
    /// [`ShapeError`] for an unknown name or schema, and for data of another shape.
    fn decode(type_name: &str, schema: u16, data: &str) -> Result<CommandOf<Self>, ShapeError>;

    /// The stable code of a refusal, frozen on the wire: `[a-z][a-z0-9_]*`.
    fn code(error: &ErrorOf<Self>) -> &str;

    /// The facts that explain a refusal; by default none.
    fn facts(error: &ErrorOf<Self>) -> Map<String, Value> {
        let _ = error;
        Map::new()
    }

    /// The schema number, from 1, for the event's version as `cqrs-es` gives it, such as "1.0".
    fn event_schema(event_version: &str) -> u16;

    /// Reads a stored event; by default from the JSON of the aggregate's event type. Override this
    /// to read the shapes of old events.
    ///
    /// # Errors
    /// [`ShapeError`] for what is not an event of the aggregate.
    fn decode_event(type_name: &str, schema: u16, data: &str) -> Result<EventOf<Self>, ShapeError> {
        let _ = schema;
        let event: EventOf<Self> =
            serde_json::from_str(data).map_err(|error| ShapeError::Data {
                pointer: String::new(),
                detail: error.to_string(),
            })?;
        if event.event_type() == type_name {
            Ok(event)
        } else {
            Err(ShapeError::UnknownType {
                name: type_name.to_owned(),
            })
        }
    }

    /// The commands with their JSON Schemas, for the API description; by default none.
    fn command_types(generator: &mut SchemaGenerator) -> Vec<MessageType> {
        let _ = generator;
        Vec::new()
    }

    /// The events with their JSON Schemas; by default none.
    fn event_types(generator: &mut SchemaGenerator) -> Vec<MessageType> {
        let _ = generator;
        Vec::new()
    }
}

/// The adopted aggregate of `T` as a [`Decider`].
pub struct Adopted<T>(PhantomData<fn() -> T>);

impl<T: Adoption> Decider for Adopted<T> {
    const CATEGORY: &'static str = T::CATEGORY;
    const RULES_VERSION: u32 = T::RULES_VERSION;
    type State = AdoptedState<T::Aggregate>;
    type Command = AdoptedCommand<T>;
    type Event = AdoptedEvent<T>;
    type Rejection = AdoptedRejection;

    fn decide(
        state: &Self::State,
        command: &Self::Command,
        _context: &Context,
    ) -> Result<Vec<Self::Event>, AdoptedRejection> {
        let mut copy = state
            .copy()
            .map_err(|detail| AdoptedRejection::NotCopied { detail })?;
        let command =
            T::decode(&command.type_name, command.schema, &command.data).map_err(|error| {
                AdoptedRejection::CommandUnreadable {
                    detail: error.to_string(),
                }
            })?;
        let sink = EventSink::default();
        match poll_once(copy.handle(command, T::services(), &sink)) {
            None => Err(AdoptedRejection::Awaited),
            Some(Err(error)) => Err(AdoptedRejection::Refused {
                code: T::code(&error).to_owned(),
                detail: error.to_string(),
                facts: T::facts(&error),
            }),
            Some(Ok(())) => match poll_once(sink.collect()) {
                Some(events) => Ok(events.into_iter().map(AdoptedEvent).collect()),
                None => Err(AdoptedRejection::Awaited),
            },
        }
    }

    fn evolve(state: &mut Self::State, event: &Self::Event, _occurred_at: Timestamp) {
        if let Held::Aggregate(aggregate) = &mut state.0 {
            aggregate.apply(event.0.clone());
        }
    }
}

/// Runs a future that has nothing to wait for; `None` if it is not ready at once.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    // Without `unconstrained`, a free lock (the sink's) returns `Pending` once the surrounding
    // tokio task has used up its budget.
    let future = pin!(tokio::task::unconstrained(future));
    match future.poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The state of an adopted aggregate: the aggregate itself.
pub struct AdoptedState<A>(Held<A>);

enum Held<A> {
    Aggregate(A),
    /// The aggregate could not be copied through serde, for this reason. It decides nothing more.
    NotCopied(String),
}

impl<A: Aggregate> AdoptedState<A> {
    /// The aggregate; absent if serde could not copy it.
    #[must_use]
    pub fn aggregate(&self) -> Option<&A> {
        match &self.0 {
            Held::Aggregate(aggregate) => Some(aggregate),
            Held::NotCopied(_) => None,
        }
    }

    fn copy(&self) -> Result<A, String> {
        match &self.0 {
            Held::Aggregate(aggregate) => serde_json::to_vec(aggregate)
                .and_then(|json| serde_json::from_slice(&json))
                .map_err(|error| error.to_string()),
            Held::NotCopied(detail) => Err(detail.clone()),
        }
    }
}

impl<A: Aggregate> Default for AdoptedState<A> {
    fn default() -> Self {
        Self(Held::Aggregate(A::default()))
    }
}

impl<A: Aggregate> Clone for AdoptedState<A> {
    fn clone(&self) -> Self {
        Self(match self.copy() {
            Ok(aggregate) => Held::Aggregate(aggregate),
            Err(detail) => Held::NotCopied(detail),
        })
    }
}

impl<A: Aggregate> Serialize for AdoptedState<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Held::Aggregate(aggregate) => aggregate.serialize(serializer),
            Held::NotCopied(detail) => Err(ser::Error::custom(detail)),
        }
    }
}

impl<'de, A: Aggregate> Deserialize<'de> for AdoptedState<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        A::deserialize(deserializer).map(|aggregate| Self(Held::Aggregate(aggregate)))
    }
}

/// A command for an adopted aggregate; it was readable when it came.
///
/// It holds the JSON and is decoded again at each decision, because the aggregate's own command
/// type need not be `Clone` or `Serialize`, and `handle` consumes it.
pub struct AdoptedCommand<T> {
    type_name: TypeName,
    schema: u16,
    data: Box<str>,
    adoption: PhantomData<fn() -> T>,
}

impl<T> Clone for AdoptedCommand<T> {
    fn clone(&self) -> Self {
        Self {
            type_name: self.type_name.clone(),
            schema: self.schema,
            data: self.data.clone(),
            adoption: PhantomData,
        }
    }
}

impl<T: Adoption> Message for AdoptedCommand<T> {
    fn type_name(&self) -> TypeName {
        self.type_name.clone()
    }

    fn schema(&self) -> u16 {
        self.schema
    }

    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        RawValue::from_string(self.data.to_string())
    }

    fn decode(type_name: &str, schema: u16, data: &str) -> Result<Self, ShapeError> {
        let data = canonical_json(data)?;
        T::decode(type_name, schema, &data)?;
        Ok(Self {
            type_name: type_name.into(),
            schema,
            data: data.into(),
            adoption: PhantomData,
        })
    }

    fn types(generator: &mut SchemaGenerator) -> Vec<MessageType> {
        T::command_types(generator)
    }
}

/// An event of an adopted aggregate.
pub struct AdoptedEvent<T: Adoption>(pub EventOf<T>);

impl<T: Adoption> Clone for AdoptedEvent<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Adoption> fmt::Debug for AdoptedEvent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Adoption> PartialEq for AdoptedEvent<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: Adoption> Message for AdoptedEvent<T> {
    fn type_name(&self) -> TypeName {
        self.0.event_type().into()
    }

    fn schema(&self) -> u16 {
        T::event_schema(&self.0.event_version())
    }

    fn encode(&self) -> Result<Box<RawValue>, serde_json::Error> {
        to_raw_value(&self.0)
    }

    fn decode(type_name: &str, schema: u16, data: &str) -> Result<Self, ShapeError> {
        T::decode_event(type_name, schema, data).map(Self)
    }

    fn types(generator: &mut SchemaGenerator) -> Vec<MessageType> {
        T::event_types(generator)
    }
}

/// Why an adopted aggregate refuses a command, or cannot decide on it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdoptedRejection {
    /// The aggregate cannot be copied through serde, so no decision can be tried on it.
    #[error("the aggregate's state cannot be copied through JSON: {detail}")]
    NotCopied {
        /// The error of serde.
        detail: String,
    },
    /// The command was readable when it came and no longer is: its decoder is not deterministic.
    #[error("the aggregate's command cannot be read twice: {detail}")]
    CommandUnreadable {
        /// The error of the decoder.
        detail: String,
    },
    /// The aggregate awaits something. Look it up beforehand and put it into the command.
    #[error(
        "the aggregate waits for something while it decides; put what it needs into the command"
    )]
    Awaited,
    /// The aggregate's own refusal.
    #[error("{detail}")]
    Refused {
        /// Its code, from [`Adoption::code`].
        code: String,
        /// Its sentence: the error's `Display`.
        detail: String,
        /// Its facts, from [`Adoption::facts`].
        facts: Map<String, Value>,
    },
}

impl Rejection for AdoptedRejection {
    fn code(&self) -> &str {
        match self {
            Self::NotCopied { .. } => "aggregate_not_copied",
            Self::CommandUnreadable { .. } => "aggregate_command_unreadable",
            Self::Awaited => "aggregate_awaited",
            Self::Refused { code, .. } => code,
        }
    }

    fn facts(&self) -> Map<String, Value> {
        match self {
            Self::NotCopied { .. } | Self::CommandUnreadable { .. } | Self::Awaited => Map::new(),
            Self::Refused { facts, .. } => facts.clone(),
        }
    }
}
