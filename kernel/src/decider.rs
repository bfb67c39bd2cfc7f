//! The shape of an aggregate: what it decides and how it evolves.
//!
//! Deliberately absent: how commands arrive, where events go, ids, retries. The engine does these.

use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, EventObjects, Message, Rejection, Timestamp};

/// An aggregate as a pure triple: an initial state (`State::default()`), a decision, an evolution.
///
/// A command id names one intent, and the engine answers a known id without asking the rules. Under
/// a new id, `decide` returns an empty list only if the present state says exactly what the command
/// asks for, at a business time that the client gave ([`Context::is_dated`]). Otherwise it returns
/// a new event or a rejection. After Jérémie Chassaing, "Functional Event Sourcing Decider" (2021).
pub trait Decider: 'static {
    /// The category of its streams, frozen on the wire: `[a-z][a-z0-9_]*`.
    const CATEGORY: &'static str;
    /// The version of [`Decider::evolve`] and of the state's form. Raise it when the same events fold to
    /// another state: local states of another version are folded anew from the log.
    const RULES_VERSION: u32 = 1;
    /// Which objects its events are about beside their own stream, for process mining. By default none
    /// is declared. It may be changed at any time.
    const OBJECTS: &'static [EventObjects] = &[];
    /// What decisions are based on. Its serialised form is kept only in disposable checkpoints.
    type State: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The requests that the aggregate decides on.
    type Command: Message;
    /// The facts that it records.
    type Event: Message;
    /// The reasons for which it refuses a command.
    type Rejection: Rejection;

    /// Chooses the events that `command` leads to; none if what it asks for already holds.
    ///
    /// # Errors
    /// The first rule that the command breaks.
    fn decide(
        state: &Self::State,
        command: &Self::Command,
        context: &Context,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Takes up one event that happened at `occurred_at`. It never refuses.
    fn evolve(state: &mut Self::State, event: &Self::Event, occurred_at: Timestamp);

    /// The key from which a stream's partition is computed, given the stream's whole name.
    ///
    /// By default it is the name itself. A category whose streams must be consistent with those of
    /// another category declares the same key here (co-location). Frozen once streams exist.
    fn routing_key(stream: &str) -> &str {
        stream
    }

    /// The JSON Schema of the state's serialised form, which the query door shows to people and
    /// programs. By default there is none, and the state is any JSON.
    #[must_use]
    fn state_schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        let _ = generator;
        None
    }
}
