//! An order: what a customer bought, and its way to them (`order-<id>`).
//!
//! It goes placed → approved → (processing) → (invoiced) → shipped → delivered; processing and
//! invoiced may be skipped or come in either order. It may be cancelled until delivered and become
//! unavailable until shipped. Deliberately absent: its payments, which are streams of their own.

mod command;
mod decide;
mod event;
mod rejection;
mod state;

use kernel::{Context, Decider, Timestamp};

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
}
