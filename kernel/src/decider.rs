//! The shape of an aggregate: what it decides and how it evolves.
//!
//! Deliberately absent: how commands arrive, where events go, ids, retries; the engine's business.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, Message, Rejection, Timestamp};

/// An aggregate as a pure triple: an initial state (`State::default()`), a decision, an evolution.
///
/// An intent is its command id, and the engine answers an id that it knows without asking the rules.
/// Under another id a step returns an empty list only where the present state says exactly that, at
/// a business time that the client gave ([`Context::is_dated`]); else it is a new event or a
/// rejection. After Jérémie Chassaing, "Functional Event Sourcing Decider" (2021).
pub trait Decider: 'static {
    /// The category of its streams, frozen on the wire: `[a-z][a-z0-9_]*`.
    const CATEGORY: &'static str;
    /// What decisions are made upon. Its serialised form is kept only in disposable checkpoints.
    type State: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The requests it judges.
    type Command: Message;
    /// The facts it states.
    type Event: Message;
    /// The reasons for which it refuses.
    type Rejection: Rejection;

    /// Chooses the events that `command` leads to, none where what it says is already so.
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
    /// Its default is the name itself. A category whose streams must be consistent with those of
    /// another declares the same key here (co-location). Frozen once streams exist.
    fn routing_key(stream: &str) -> &str {
        stream
    }
}
