//! The shop with another rule, for tests of `annals what-if`. By default a delivered order may still
//! be cancelled; with `OTHER_RULES=strict`, an order of more than two items is refused instead.

use std::process::ExitCode;

use domain::order::{Command, Event, Rejection, State};
use domain::{Customer, Order, Payment};
use kernel::registry::Registry;
use kernel::{Context, Decider, Timestamp};

/// Orders with the other rule.
struct OtherOrder;

impl Decider for OtherOrder {
    const CATEGORY: &'static str = Order::CATEGORY;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(
        state: &State,
        command: &Command,
        context: &Context,
    ) -> Result<Vec<Event>, Rejection> {
        let is_strict = std::env::var("OTHER_RULES").as_deref() == Ok("strict");
        match command {
            Command::CancelOrder(_) if !is_strict => {
                let undelivered = State {
                    delivered_at: None,
                    ..state.clone()
                };
                Order::decide(&undelivered, command, context)
            }
            Command::PlaceOrder(place) if is_strict => {
                let events = Order::decide(state, command, context)?;
                match events.is_empty() || place.items.len() <= 2 {
                    true => Ok(events),
                    false => Err(Rejection::TotalTooLarge { total_minor_max: 2 }),
                }
            }
            _ => Order::decide(state, command, context),
        }
    }

    fn evolve(state: &mut State, event: &Event, occurred_at: Timestamp) {
        Order::evolve(state, event, occurred_at);
    }
}

fn main() -> ExitCode {
    let registry = Registry::new()
        .with::<Customer>()
        .with::<OtherOrder>()
        .with::<Payment>();
    host::app("other-rules").registry(registry).run()
}
