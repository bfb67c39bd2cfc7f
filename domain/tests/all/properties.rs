//! What holds whatever is asked, in any order.

use std::fmt::Debug;

use domain::order::State;
use domain::payment::Event as PaymentEvent;
use domain::{Customer, Order, Payment};
use kernel::{Decider, Timestamp};
use proptest::prelude::*;

use crate::given::context;
use crate::strategies::{
    any_moment, customer_command, customer_event, moment, order_command, order_event,
    payment_command, payment_event,
};

const STEPS_MAX: usize = 24;

/// What became of a list of requests.
struct Outcome<D: Decider> {
    state: D::State,
    accepted: Vec<(D::Command, Timestamp)>,
    history: Vec<(D::Event, Timestamp)>,
}

fn run<D: Decider>(requests: Vec<(D::Command, Timestamp)>) -> Outcome<D> {
    let mut outcome = Outcome::<D> {
        state: D::State::default(),
        accepted: vec![],
        history: vec![],
    };
    for (command, occurred_at) in requests {
        if let Ok(events) = D::decide(&outcome.state, &command, &context(occurred_at)) {
            for event in events {
                D::evolve(&mut outcome.state, &event, occurred_at);
                outcome.history.push((event, occurred_at));
            }
            outcome.accepted.push((command, occurred_at));
        }
    }
    outcome
}

fn fold<D: Decider>(history: &[(D::Event, Timestamp)]) -> D::State {
    let mut state = D::State::default();
    for (event, occurred_at) in history {
        D::evolve(&mut state, event, *occurred_at);
    }
    state
}

/// Deciding an accepted request once more adds nothing, whatever has come since; the history folds
/// to the same state; and the state survives a checkpoint.
fn check<D>(requests: Vec<(D::Command, Timestamp)>) -> Result<Outcome<D>, TestCaseError>
where
    D: Decider<State: PartialEq + Debug, Rejection: PartialEq, Event: PartialEq + Debug>,
{
    let outcome = run::<D>(requests);
    for (command, occurred_at) in &outcome.accepted {
        let again = D::decide(&outcome.state, command, &context(*occurred_at));
        prop_assert_eq!(again, Ok(vec![]));
    }
    prop_assert_eq!(&fold::<D>(&outcome.history), &outcome.state);
    let checkpoint = serde_json::to_string(&outcome.state).unwrap();
    let read: D::State = serde_json::from_str(&checkpoint).unwrap();
    prop_assert_eq!(&read, &outcome.state);
    Ok(outcome)
}

/// Neither a history that no rule would have made, nor a request after it, stops anything.
fn survive<D: Decider>(history: &[(D::Event, Timestamp)], command: &D::Command, at: Timestamp) {
    let state = fold::<D>(history);
    // Accepted or refused, but judged.
    let _ = D::decide(&state, command, &context(at));
}

fn minor(event: &PaymentEvent) -> (i64, i64) {
    match event {
        PaymentEvent::PaymentCaptured(captured) => (captured.amount.amount_minor, 0),
        PaymentEvent::PaymentRefunded(refunded) => (0, refunded.amount.amount_minor),
    }
}

proptest! {
    #[test]
    fn deciding_a_customers_request_twice_adds_nothing(
        requests in prop::collection::vec((customer_command(), moment()), 0..STEPS_MAX),
    ) {
        check::<Customer>(requests)?;
    }

    #[test]
    fn deciding_an_orders_request_twice_adds_nothing(
        requests in prop::collection::vec((order_command(), moment()), 0..STEPS_MAX),
    ) {
        let State { canceled, unavailable_at, delivered_at, shipped_at, approved_at, placed, .. } =
            check::<Order>(requests)?.state;
        let ends = [canceled.is_some(), unavailable_at.is_some(), delivered_at.is_some()];
        prop_assert!(ends.iter().filter(|reached| **reached).count() <= 1);
        prop_assert!(delivered_at.is_none() || shipped_at.is_some());
        prop_assert!(shipped_at.is_none() || approved_at.is_some());
        prop_assert!(approved_at.is_none() || placed.is_some());
    }

    #[test]
    fn refunds_never_exceed_what_was_captured(
        requests in prop::collection::vec((payment_command(), moment()), 0..STEPS_MAX),
    ) {
        let (mut captured_minor, mut refunded_minor) = (0, 0);
        for (event, _) in &check::<Payment>(requests)?.history {
            let (captured, refunded) = minor(event);
            captured_minor += captured;
            refunded_minor += refunded;
            prop_assert!((0..=captured_minor).contains(&refunded_minor));
        }
    }

    #[test]
    fn no_history_stops_a_customer(
        history in prop::collection::vec((customer_event(), any_moment()), 0..STEPS_MAX),
        command in customer_command(), at in any_moment(),
    ) {
        survive::<Customer>(&history, &command, at);
    }

    #[test]
    fn no_history_stops_an_order(
        history in prop::collection::vec((order_event(), any_moment()), 0..STEPS_MAX),
        command in order_command(), at in any_moment(),
    ) {
        survive::<Order>(&history, &command, at);
    }

    #[test]
    fn no_history_stops_a_payment(
        history in prop::collection::vec((payment_event(), any_moment()), 0..STEPS_MAX),
        command in payment_command(), at in any_moment(),
    ) {
        survive::<Payment>(&history, &command, at);
    }
}
