//! esrs on its Postgres store, as its README creates a new aggregate: from the default state,
//! without a load. A unique index refuses a second first event.

use std::sync::Arc;

use anyhow::Result;
use esrs::Aggregate;
use esrs::manager::AggregateManager;
use esrs::store::postgres::{PgStore, PgStoreBuilder};
use serde::{Deserialize, Serialize};

use crate::load::{self, Client};
use crate::order::{Order, Refusal};
use crate::{Arguments, Outcome, rows, version_of};

/// The aggregate.
struct PlacedOrder;

/// Whether an order was placed.
#[derive(Default)]
struct OrderState {
    placed: bool,
}

/// The commands of an order.
enum OrderCommand {
    Place(Order),
}

/// The events of an order.
#[derive(Serialize, Deserialize)]
enum OrderEvent {
    Placed(Order),
}

impl Aggregate for PlacedOrder {
    const NAME: &'static str = "order";
    type State = OrderState;
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = Refusal;

    fn handle_command(
        state: &Self::State,
        command: Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Error> {
        let OrderCommand::Place(order) = command;
        if state.placed {
            return Err(Refusal::PlacedAlready);
        }
        Ok(vec![OrderEvent::Placed(order)])
    }

    fn apply_event(_: Self::State, event: Self::Event) -> Self::State {
        let OrderEvent::Placed(_) = event;
        OrderState { placed: true }
    }
}

/// Measures this peer.
pub async fn run(arguments: &Arguments) -> Result<Outcome> {
    let pool = arguments.pool().await?;
    let store: PgStore<PlacedOrder> = PgStoreBuilder::new(pool.clone()).try_build().await?;
    let table = store.table_name().to_owned();
    let manager = Arc::new(AggregateManager::new(store));
    let clients = vec![manager; arguments.clients as usize];
    let load = load::run(arguments, clients).await?;
    Ok(Outcome {
        version: version_of("esrs"),
        load,
        stored: rows(&pool, &table).await?,
    })
}

impl Client for Arc<AggregateManager<PgStore<PlacedOrder>>> {
    async fn place(&mut self, order: Order) -> Result<()> {
        // The default state gets a new random id.
        let command = OrderCommand::Place(order);
        self.handle_command(Default::default(), command).await??;
        Ok(())
    }
}
