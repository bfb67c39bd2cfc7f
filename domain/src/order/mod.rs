//! An order: what a customer bought, and its delivery (`order-<id>`).
//!
//! The steps are placed → approved → (processing) → (invoiced) → shipped → delivered. Processing
//! and invoiced may be skipped or happen in either order. An order may be cancelled until it is
//! delivered and become unavailable until it is shipped. Deliberately absent: its payments, which
//! are streams of their own.

mod command;
mod decide;
mod event;
mod rejection;
mod state;

use kernel::{Context, Decider, EventObjects, Timestamp, objects_of, relates, sets};
use schemars::{Schema, SchemaGenerator};

pub use command::{
    ApproveOrder, CancelOrder, Command, DeliverOrder, ITEMS_MAX, InvoiceOrder, Item, LINE_MAX,
    MarkUnavailable, PlaceOrder, ReviewOrder, ShipOrder, StartProcessing,
};
pub use event::{
    Event, OrderApproved, OrderCanceled, OrderDelivered, OrderInvoiced, OrderMarkedUnavailable,
    OrderPlaced, OrderReviewed, OrderShipped, ProcessingStarted,
};
pub use rejection::Rejection;
pub use state::State;

/// The rules of orders.
#[derive(Clone, Copy, Debug)]
pub struct Order;

impl Decider for Order {
    const CATEGORY: &'static str = "order";
    const OBJECTS: &'static [EventObjects] = &[
        objects_of(
            "OrderPlaced",
            &[
                relates("customer", "customer", "placed by"),
                relates("items/*/product", "product", "contains"),
                relates("items/*/seller", "seller", "sold by"),
            ],
            &[
                sets("currency", "currency"),
                sets("items_minor", "items_minor"),
                sets("freight_minor", "freight_minor"),
                sets("estimated_delivery", "estimated_delivery"),
            ],
        ),
        objects_of(
            "OrderReviewed",
            &[relates("review", "review", "has review")],
            &[sets("score", "score")],
        ),
    ];
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command, ctx: &Context) -> Result<Vec<Event>, Rejection> {
        decide::decide(state, command, ctx)
    }

    fn evolve(state: &mut State, event: &Event, occurred_at: Timestamp) {
        state.evolve(event, occurred_at);
    }

    fn state_schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<State>())
    }
}
