//! An aggregate that was written for `cqrs-es` 0.4, as one of 0.5.
//!
//! Between these versions `handle` changed: it returned its events, and now writes them into a sink.
//! Deliberately absent: the aggregate's name; Annals takes it from `Adoption::CATEGORY`.

use cqrs_es::event_sink::EventSink;
use cqrs_es_04 as old;
use serde::{Deserialize, Serialize};

/// The aggregate `A` of version 0.4.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(bound = "", transparent)]
pub struct Raised<A: old::Aggregate>(A);

/// An event of version 0.4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "", transparent)]
pub struct RaisedEvent<E: old::DomainEvent>(E);

impl<E: old::DomainEvent> cqrs_es::DomainEvent for RaisedEvent<E> {
    fn event_type(&self) -> String {
        self.0.event_type()
    }

    fn event_version(&self) -> String {
        self.0.event_version()
    }
}

impl<A> cqrs_es::Aggregate for Raised<A>
where
    A: old::Aggregate<Command: Send>,
{
    const TYPE: &'static str = "raised";
    type Command = A::Command;
    type Event = RaisedEvent<A::Event>;
    type Error = A::Error;
    type Services = A::Services;

    async fn handle(
        &mut self,
        command: A::Command,
        services: &A::Services,
        sink: &EventSink<Self>,
    ) -> Result<(), A::Error> {
        let events = self.0.handle(command, services).await?;
        for event in events {
            sink.write(RaisedEvent(event), self).await;
        }
        Ok(())
    }

    fn apply(&mut self, RaisedEvent(event): RaisedEvent<A::Event>) {
        self.0.apply(event);
    }
}
