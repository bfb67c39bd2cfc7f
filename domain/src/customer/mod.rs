//! A customer: a person who places orders, and that person's address (`customer-<id>`).
//!
//! Deliberately absent: the customer's orders; an order names its customer, not the reverse.

mod command;
mod decide;
mod event;
mod rejection;
mod state;

use kernel::{Context, Decider, EventObjects, Timestamp, objects_of, sets};
use schemars::{Schema, SchemaGenerator};

pub use command::{Command, CorrectAddress, RegisterCustomer};
pub use event::{AddressCorrected, CustomerRegistered, Event};
pub use rejection::Rejection;
pub use state::{Address, State};

/// The rules of customers.
#[derive(Clone, Copy, Debug)]
pub struct Customer;

impl Decider for Customer {
    const CATEGORY: &'static str = "customer";
    const OBJECTS: &'static [EventObjects] = &[
        objects_of(
            "CustomerRegistered",
            &[],
            &[sets("city", "city"), sets("state", "state")],
        ),
        objects_of(
            "AddressCorrected",
            &[],
            &[sets("city", "city"), sets("state", "state")],
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
