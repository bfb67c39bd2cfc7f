//! A payment: money taken for an order, and given back (`payment-<order id>-<sequence>`).
//!
//! Deliberately absent: a check that the order exists. A payment is its own consistency boundary,
//! and real payments were captured for orders that never existed.

mod command;
mod decide;
mod event;
mod rejection;
mod state;

use kernel::{Context, Decider, EventObjects, Timestamp, objects_of, relates, sets};
use schemars::{Schema, SchemaGenerator};

pub use command::{CapturePayment, Command, Method, RefundPayment};
pub use event::{Event, PaymentCaptured, PaymentRefunded};
pub use rejection::Rejection;
pub use state::State;

/// The rules of payments.
#[derive(Clone, Copy, Debug)]
pub struct Payment;

impl Decider for Payment {
    const CATEGORY: &'static str = "payment";
    const OBJECTS: &'static [EventObjects] = &[
        objects_of(
            "PaymentCaptured",
            &[relates("order", "order", "pays for")],
            &[
                sets("method", "method"),
                sets("amount/amount_minor", "amount_minor"),
                sets("amount/currency", "currency"),
            ],
        ),
        objects_of(
            "PaymentRefunded",
            &[relates("order", "order", "refunds")],
            &[],
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
