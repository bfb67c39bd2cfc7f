//! cqrs-es on postgres-es: the framework loads the aggregate, lets it handle the command, and
//! inserts its event in a transaction. The primary key refuses a second first event.

use std::sync::Arc;

use anyhow::Result;
use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use postgres_es::{PostgresCqrs, postgres_cqrs};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::load::{self, Client};
use crate::order::{Order, Refusal};
use crate::{Arguments, Outcome, rows, version_of};

/// The table of events in `db/init.sql` of postgres-es.
const TABLE: &str = "CREATE TABLE events
(
    aggregate_type text                         NOT NULL,
    aggregate_id   text                         NOT NULL,
    sequence       bigint CHECK (sequence >= 0) NOT NULL,
    event_type     text                         NOT NULL,
    event_version  text                         NOT NULL,
    payload        json                         NOT NULL,
    metadata       json                         NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence)
)";

/// Whether an order was placed.
#[derive(Default, Serialize, Deserialize)]
struct PlacedOrder {
    placed: bool,
}

/// The commands of an order.
enum OrderCommand {
    Place(Order),
}

/// The events of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum OrderEvent {
    Placed(Order),
}

impl DomainEvent for OrderEvent {
    fn event_type(&self) -> String {
        "Placed".to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

impl Aggregate for PlacedOrder {
    const TYPE: &'static str = "order";
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = Refusal;
    type Services = ();

    async fn handle(
        &mut self,
        command: Self::Command,
        (): &Self::Services,
        sink: &EventSink<Self>,
    ) -> Result<(), Self::Error> {
        let OrderCommand::Place(order) = command;
        if self.placed {
            return Err(Refusal::PlacedAlready);
        }
        sink.write(OrderEvent::Placed(order), self).await;
        Ok(())
    }

    fn apply(&mut self, event: Self::Event) {
        let OrderEvent::Placed(_) = event;
        self.placed = true;
    }
}

/// Measures this peer.
pub async fn run(arguments: &Arguments) -> Result<Outcome> {
    let pool = arguments.pool().await?;
    sqlx::query(TABLE).execute(&pool).await?;
    let cqrs = Arc::new(postgres_cqrs::<PlacedOrder>(pool.clone(), vec![], ()));
    let clients = vec![cqrs; arguments.clients as usize];
    let load = load::run(arguments, clients).await?;
    Ok(Outcome {
        version: version_of("postgres-es"),
        load,
        stored: rows(&pool, "events").await?,
    })
}

impl Client for Arc<PostgresCqrs<PlacedOrder>> {
    async fn place(&mut self, order: Order) -> Result<()> {
        let id = Uuid::new_v4().to_string();
        self.execute(&id, OrderCommand::Place(order)).await?;
        Ok(())
    }
}
