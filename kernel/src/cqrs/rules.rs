//! A `Decider` presented as a `cqrs_es::Aggregate`.
//!
//! Invariant: the aggregate handles and applies exactly what the decider decides and evolves.
//! Deliberately absent: services, which rules do not have.

use std::fmt::Debug;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Context, Decider, Message, Timestamp};

/// The rules of `D` as an aggregate of `cqrs-es`.
///
/// ```text
/// TestFramework::<Rules<Order>>::with(())
///     .given(vec![Happened::new(OrderPlaced { … }, monday)])
///     .when(Asked::new(ShipOrder {}, on(tuesday)))
///     .then_expect_error(Rejection::NotApproved { placed_at: monday });
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "", transparent)]
pub struct Rules<D: Decider> {
    state: D::State,
}

/// A command with its circumstances.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked<C> {
    /// What is asked for.
    pub command: C,
    /// What the rules may know about the circumstances.
    pub context: Context,
}

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happened<E> {
    /// What happened.
    pub event: E,
    /// When it happened.
    pub occurred_at: Timestamp,
}

impl<C> Asked<C> {
    /// A command, asked for in these circumstances.
    pub fn new(command: impl Into<C>, context: Context) -> Self {
        Self {
            command: command.into(),
            context,
        }
    }
}

impl<E> Happened<E> {
    /// An event that happened at `occurred_at`.
    pub fn new(event: impl Into<E>, occurred_at: Timestamp) -> Self {
        Self {
            event: event.into(),
            occurred_at,
        }
    }
}

impl<D: Decider> Default for Rules<D> {
    fn default() -> Self {
        Self {
            state: D::State::default(),
        }
    }
}

impl<E> DomainEvent for Happened<E>
where
    E: Message + Serialize + DeserializeOwned + PartialEq + Debug,
{
    fn event_type(&self) -> String {
        self.event.type_name().into()
    }

    fn event_version(&self) -> String {
        self.event.schema().to_string()
    }
}

impl<D> Aggregate for Rules<D>
where
    D: Decider,
    D::Event: Serialize + DeserializeOwned + PartialEq + Debug,
{
    const TYPE: &'static str = D::CATEGORY;
    type Command = Asked<D::Command>;
    type Event = Happened<D::Event>;
    type Error = D::Rejection;
    type Services = ();

    async fn handle(
        &mut self,
        asked: Asked<D::Command>,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), D::Rejection> {
        let occurred_at = asked.context.occurred_at;
        for event in D::decide(&self.state, &asked.command, &asked.context)? {
            sink.write(Happened { event, occurred_at }, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, happened: Happened<D::Event>) {
        D::evolve(&mut self.state, &happened.event, happened.occurred_at);
    }
}
