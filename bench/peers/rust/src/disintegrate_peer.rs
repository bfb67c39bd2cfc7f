//! disintegrate on Postgres: the decision maker reads the events of the order and decides. It then
//! appends in a serializable transaction, if no other event of the order came in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use disintegrate::serde::json::Json;
use disintegrate::{
    BoxDynError, Decision, DecisionError, Event, NoSnapshot, StateMutate, StateQuery,
};
use disintegrate_postgres::{Error, PgDecisionMaker, PgEventStore, decision_maker};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::load::{self, Client};
use crate::order::{Order, Refusal};
use crate::{Arguments, Outcome, rows, version_of};

/// The events of an order.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
enum OrderEvent {
    OrderPlaced {
        #[id]
        order_id: String,
        order: Order,
    },
}

/// Whether an order was placed.
#[derive(Clone, Default, StateQuery, Serialize, Deserialize)]
#[state_query(OrderEvent)]
struct PlacedOrder {
    #[id]
    order_id: String,
    placed: bool,
}

impl StateMutate for PlacedOrder {
    fn mutate(&mut self, event: Self::Event) {
        let OrderEvent::OrderPlaced { .. } = event;
        self.placed = true;
    }
}

/// The decision to place an order.
#[derive(Clone)]
struct Place {
    order_id: String,
    order: Order,
}

impl Decision for Place {
    type Event = OrderEvent;
    type StateQuery = PlacedOrder;
    type Error = Refusal;

    fn state_query(&self) -> Self::StateQuery {
        PlacedOrder {
            order_id: self.order_id.clone(),
            ..PlacedOrder::default()
        }
    }

    fn process(&self, state: &Self::StateQuery) -> Result<Vec<Self::Event>, Self::Error> {
        if state.placed {
            return Err(Refusal::PlacedAlready);
        }
        Ok(vec![OrderEvent::OrderPlaced {
            order_id: self.order_id.clone(),
            order: self.order.clone(),
        }])
    }
}

/// Replaces the one hexadecimal number in the library's functions by a decimal one: Postgres before
/// version 16 cannot read hexadecimal numbers.
const IN_DECIMAL: &str = "DO $$ BEGIN
    EXECUTE replace(
        pg_get_functiondef('event_store_begin_epoch()'::regprocedure), '0xFFFFFFFF', '4294967295'
    );
END $$";

/// A client that decides again if Postgres could not serialize its transaction.
#[derive(Clone)]
struct Maker {
    maker: PgDecisionMaker<OrderEvent, Json<OrderEvent>, NoSnapshot>,
    again: Arc<AtomicU64>,
}

/// Measures this peer.
pub async fn run(arguments: &Arguments) -> Result<Outcome> {
    let pool = arguments.pool().await?;
    prepare(arguments).await?;
    let store = PgEventStore::new_uninitialized(pool.clone(), Json::<OrderEvent>::default());
    let again = Arc::new(AtomicU64::new(0));
    let maker = Maker {
        maker: decision_maker(store, NoSnapshot),
        again: Arc::clone(&again),
    };
    let load = load::run(arguments, vec![maker; arguments.clients as usize]).await?;
    let again = again.load(Ordering::Relaxed);
    eprintln!("{again} times a decision was made again");
    Ok(Outcome {
        version: version_of("disintegrate-postgres"),
        load,
        stored: rows(&pool, "event").await?,
    })
}

/// Lets the library create its tables and functions.
async fn prepare(arguments: &Arguments) -> Result<()> {
    let unchecked = [("check_function_bodies", "off")];
    let connection = arguments.connection()?.options(unchecked);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(connection)
        .await?;
    PgEventStore::try_new(pool.clone(), Json::<OrderEvent>::default()).await?;
    sqlx::query(IN_DECIMAL).execute(&pool).await?;
    pool.close().await;
    Ok(())
}

impl Client for Maker {
    async fn place(&mut self, order: Order) -> Result<()> {
        let decision = Place {
            order_id: Uuid::new_v4().to_string(),
            order,
        };
        loop {
            match self.maker.make(decision.clone()).await {
                Ok(_) => return Ok(()),
                Err(DecisionError::StateStore(error)) if is_conflict(&error) => {
                    self.again.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => bail!(error),
            }
        }
    }
}

/// Whether Postgres gave up a transaction because of another one.
fn is_conflict(error: &BoxDynError) -> bool {
    match error.downcast_ref::<Error>() {
        Some(Error::Concurrency) => true,
        Some(Error::Database(sqlx::Error::Database(error))) => {
            error.code().as_deref() == Some("40001")
        }
        _ => false,
    }
}
