//! Properties that hold for any commands in any order.

use std::fmt::Debug;

use domain::customer::{Address, AddressCorrected, Command as CustomerCommand, CustomerRegistered};
use domain::order::{OrderApproved, ShipOrder, State};
use domain::payment::{CapturePayment, Command as PaymentCommand, Event as PaymentEvent};
use domain::payment::{Method, PaymentCaptured, PaymentRefunded, RefundPayment};
use domain::vocabulary::Dated;
use domain::{Customer, Order, Payment};
use kernel::{Context, Decider, Rejection as _, Timestamp};
use proptest::prelude::*;

use crate::given::{a, by_the_clock, context, day, placed_one, real};
use crate::strategies::{
    any_moment, customer_command, customer_event, moment, order_command, order_event,
    payment_command, payment_event, request,
};

const STEPS_MAX: usize = 24;

/// The result of a list of commands, each with an id of its own.
struct Outcome<D: Decider> {
    state: D::State,
    accepted: Vec<Accepted<D>>,
    history: Vec<(D::Event, Timestamp)>,
}

/// An accepted command, with its events.
struct Accepted<D: Decider> {
    command: D::Command,
    context: Context,
    events: Vec<D::Event>,
}

fn run<D: Decider<Event: Clone>>(requests: Vec<(D::Command, Context)>) -> Outcome<D> {
    let mut outcome = Outcome::<D> {
        state: D::State::default(),
        accepted: vec![],
        history: vec![],
    };
    for (number, (command, context)) in requests.into_iter().enumerate() {
        let context = Context {
            command_id: a(&format!("command-{number}")),
            ..context
        };
        if let Ok(events) = D::decide(&outcome.state, &command, &context) {
            for event in &events {
                D::evolve(&mut outcome.state, event, context.occurred_at);
                outcome.history.push((event.clone(), context.occurred_at));
            }
            outcome.accepted.push(Accepted {
                command,
                context,
                events,
            });
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

/// Every accepted command counts: it leaves an event, or the client gave the exact time at which
/// the same had happened. Folding the history gives the same state, and the state survives a
/// checkpoint.
fn check<D>(requests: Vec<(D::Command, Context)>) -> Result<Outcome<D>, TestCaseError>
where
    D: Decider<State: PartialEq + Debug, Event: Clone + PartialEq>,
{
    let outcome = run::<D>(requests);
    for accepted in &outcome.accepted {
        if accepted.events.is_empty() {
            let at = accepted.context.occurred_at;
            prop_assert!(accepted.context.is_time_given);
            prop_assert!(outcome.history.iter().any(|(_, then)| *then == at));
        }
    }
    prop_assert_eq!(&fold::<D>(&outcome.history), &outcome.state);
    let checkpoint = serde_json::to_string(&outcome.state).unwrap();
    let read: D::State = serde_json::from_str(&checkpoint).unwrap();
    prop_assert_eq!(&read, &outcome.state);
    Ok(outcome)
}

/// In an aggregate that takes each step once, an accepted command is sent again later under another
/// id. It adds nothing if the client gives the first time, and is refused if the client gives none.
fn takes_each_step_once<D>(outcome: &Outcome<D>) -> Result<(), TestCaseError>
where
    D: Decider<Rejection: PartialEq, Event: PartialEq + Debug>,
{
    for Accepted {
        command, context, ..
    } in &outcome.accepted
    {
        let again = D::decide(
            &outcome.state,
            command,
            &crate::given::context(context.occurred_at),
        );
        prop_assert_eq!(again, Ok(vec![]));
        let again = D::decide(&outcome.state, command, &by_the_clock(context.occurred_at));
        prop_assert!(again.is_err());
    }
    Ok(())
}

/// Neither a history that the rules would not have made nor a command after it causes a panic.
fn survive<D: Decider>(history: &[(D::Event, Timestamp)], command: &D::Command, at: Timestamp) {
    let state = fold::<D>(history);
    // Accepted or refused: only a panic would be wrong.
    let _ = D::decide(&state, command, &context(at));
}

fn minor(event: &PaymentEvent) -> (i64, i64) {
    match event {
        PaymentEvent::PaymentCaptured(captured) => (captured.amount.amount_minor, 0),
        PaymentEvent::PaymentRefunded(refunded) => (0, refunded.amount.amount_minor),
    }
}

/// The address that a customer's command gives.
fn told(command: &CustomerCommand) -> Address {
    match command {
        CustomerCommand::RegisterCustomer(told) => Address {
            city: told.city.clone(),
            state: told.state.clone(),
            postcode_prefix: told.postcode_prefix.clone(),
        },
        CustomerCommand::CorrectAddress(told) => Address {
            city: told.city.clone(),
            state: told.state.clone(),
            postcode_prefix: told.postcode_prefix.clone(),
        },
    }
}

proptest! {
    #[test]
    fn every_request_of_a_customer_counts(
        requests in prop::collection::vec(request(customer_command()), 0..STEPS_MAX),
    ) {
        let outcome = check::<Customer>(requests)?;
        // The last accepted address is the present one, and no client dated an address before the
        // previous.
        let last = outcome.accepted.last().map(|last| (last.context.occurred_at, told(&last.command)));
        let last_event = outcome.accepted.iter().rfind(|accepted| !accepted.events.is_empty());
        prop_assert_eq!(outcome.state.address.is_some(), last.is_some());
        if let (Some(address), Some(last)) = (&outcome.state.address, last_event) {
            prop_assert_eq!((address.at, &address.facts), (last.context.occurred_at, &told(&last.command)));
        }
        let counted: Vec<_> = outcome.accepted.iter().filter(|it| !it.events.is_empty()).collect();
        for pair in counted.windows(2) {
            let (before, after) = (&pair[0].context, &pair[1].context);
            prop_assert!(!after.is_time_given || after.occurred_at >= before.occurred_at);
        }
    }

    #[test]
    fn addresses_by_the_clock_end_as_the_last_one_whatever_the_clock_says(
        requests in prop::collection::vec((customer_command(), moment()), 1..STEPS_MAX),
    ) {
        let is_first = |command: &CustomerCommand| {
            matches!(command, CustomerCommand::RegisterCustomer(_))
        };
        let first = requests.iter().position(|(command, _)| is_first(command));
        let mut counted: Vec<_> = requests[first.unwrap_or(requests.len())..].to_vec();
        let mut number = 0;
        counted.retain(|(command, _)| {
            number += 1;
            number == 1 || !is_first(command)
        });
        let requests = requests.into_iter().map(|(command, at)| (command, by_the_clock(at)));
        let outcome = check::<Customer>(requests.collect())?;
        prop_assert_eq!(outcome.history.len(), counted.len());
        let last = counted.last().map(|(command, at)| Dated::new(*at, told(command)));
        prop_assert_eq!(outcome.state.address, last);
    }

    #[test]
    fn an_order_takes_each_step_once(
        requests in prop::collection::vec(request(order_command()), 0..STEPS_MAX),
    ) {
        let outcome = check::<Order>(requests)?;
        takes_each_step_once(&outcome)?;
        let State { canceled, unavailable_at, delivered_at, shipped_at, approved_at, placed, .. } =
            outcome.state;
        let ends = [canceled.is_some(), unavailable_at.is_some(), delivered_at.is_some()];
        prop_assert!(ends.iter().filter(|reached| **reached).count() <= 1);
        prop_assert!(delivered_at.is_none() || shipped_at.is_some());
        prop_assert!(shipped_at.is_none() || approved_at.is_some());
        prop_assert!(approved_at.is_none() || placed.is_some());
    }

    #[test]
    fn of_all_who_ship_an_order_one_does(
        workers in prop::collection::vec(request(Just(ShipOrder {})), 1..STEPS_MAX),
    ) {
        let mut state = fold::<Order>(&[
            (placed_one().into(), day(1)),
            (OrderApproved {}.into(), day(1)),
        ]);
        let mut shipped_at = None;
        for (ship, context) in workers {
            match (Order::decide(&state, &ship.into(), &context), shipped_at) {
                (Ok(events), None) => {
                    prop_assert_eq!(events.len(), 1);
                    shipped_at = Some(context.occurred_at);
                    Order::evolve(&mut state, &events[0], context.occurred_at);
                }
                (Ok(events), Some(at)) => {
                    // The same step at the same time adds nothing.
                    prop_assert_eq!(events, vec![]);
                    prop_assert!(context.is_time_given && context.occurred_at == at);
                }
                (Err(refusal), shipped_at) => {
                    prop_assert_eq!(refusal.code(), "order_already_shipped");
                    let says_so = context.is_time_given && shipped_at == Some(context.occurred_at);
                    prop_assert!(shipped_at.is_some() && !says_so);
                }
            }
        }
        prop_assert!(shipped_at.is_some());
    }

    #[test]
    fn every_accepted_refund_counts_and_none_exceeds_what_was_captured(
        requests in prop::collection::vec(request(payment_command()), 0..STEPS_MAX),
    ) {
        let outcome = check::<Payment>(requests)?;
        let (mut captured_minor, mut refunded_minor) = (0, 0);
        for (event, _) in &outcome.history {
            let (captured, refunded) = minor(event);
            captured_minor += captured;
            refunded_minor += refunded;
            prop_assert!((0..=captured_minor).contains(&refunded_minor));
        }
        let asked_minor = |it: &Accepted<Payment>| match &it.command {
            PaymentCommand::RefundPayment(refund) => refund.amount.amount_minor,
            PaymentCommand::CapturePayment(_) => 0,
        };
        let asked_minor: i64 = outcome.accepted.iter().map(asked_minor).sum();
        prop_assert_eq!(refunded_minor, asked_minor);
        prop_assert_eq!(outcome.state.refunded_minor, asked_minor);
    }

    #[test]
    fn as_many_refunds_are_made_as_there_is_money_for(
        refunds in prop::collection::vec(request(0..20i64), 0..STEPS_MAX),
    ) {
        let capture = CapturePayment {
            order: a("o-1"), method: Method::Voucher, instalments: 1, amount: real(100),
        };
        let mut requests = vec![(PaymentCommand::from(capture), by_the_clock(day(1)))];
        let mut left_minor = 100;
        for (amount_minor, context) in refunds {
            let amount = real(amount_minor);
            requests.push((RefundPayment { amount }.into(), context));
            if amount_minor <= left_minor {
                left_minor -= amount_minor;
            }
        }
        prop_assert_eq!(check::<Payment>(requests)?.state.refunded_minor, 100 - left_minor);
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

/// How many bytes the state takes as JSON.
fn size<D: Decider<State: serde::Serialize>>(history: &[(D::Event, Timestamp)]) -> usize {
    serde_json::to_string(&fold::<D>(history)).unwrap().len()
}

/// Facts that may repeat without limit and are no longer needed take no room in a state: earlier
/// addresses and single refunds.
#[test]
fn past_facts_take_no_room_in_a_state() {
    let moves = |count: usize| {
        let registered = CustomerRegistered {
            name: None,
            city: a("curitiba"),
            state: a("PR"),
            postcode_prefix: a("82820"),
        };
        let cities = ["londrina", "curitiba"];
        let corrected = (0..count).map(|number| AddressCorrected {
            city: a(cities[number % 2]),
            state: a("PR"),
            postcode_prefix: a("82820"),
        });
        let corrected = corrected.map(|corrected| (corrected.into(), day(2)));
        let history: Vec<_> = std::iter::once((registered.into(), day(1)))
            .chain(corrected)
            .collect();
        size::<Customer>(&history)
    };
    assert_eq!(moves(2), moves(1_000));
    let refunds = |count: usize| {
        let captured = PaymentCaptured {
            order: a("o-1"),
            method: Method::Voucher,
            instalments: 1,
            amount: real(9_000),
        };
        let refunded = (0..count).map(|_| PaymentRefunded {
            order: a("o-1"),
            method: Method::Voucher,
            amount: real(9_000 / i64::try_from(count).unwrap()),
        });
        let refunded = refunded.map(|refunded| (refunded.into(), day(2)));
        let history: Vec<_> = std::iter::once((captured.into(), day(1)))
            .chain(refunded)
            .collect();
        size::<Payment>(&history)
    };
    assert_eq!(refunds(1), refunds(1_000));
}
