//! Customers: registered once, corrected as often as they move.

use domain::Customer;
use domain::customer::{
    AddressCorrected, CorrectAddress, CustomerRegistered, Event, RegisterCustomer, Rejection,
};
use kernel::{Rejection as _, Timestamp};
use serde_json::json;

use crate::given::{a, day, events, judge};

fn register(city: &str) -> RegisterCustomer {
    RegisterCustomer {
        name: None,
        city: a(city),
        state: a("PR"),
        postcode_prefix: a("82820"),
    }
}

fn registered(city: &str) -> CustomerRegistered {
    CustomerRegistered {
        name: None,
        city: a(city),
        state: a("PR"),
        postcode_prefix: a("82820"),
    }
}

fn correct(city: &str) -> CorrectAddress {
    CorrectAddress {
        city: a(city),
        state: a("PR"),
        postcode_prefix: a("82820"),
    }
}

fn corrected(city: &str) -> AddressCorrected {
    AddressCorrected {
        city: a(city),
        state: a("PR"),
        postcode_prefix: a("82820"),
    }
}

fn history() -> Vec<(Event, Timestamp)> {
    vec![
        (registered("curitiba").into(), day(1)),
        (corrected("londrina").into(), day(2)),
        (corrected("curitiba").into(), day(3)),
    ]
}

#[test]
fn registers_a_customer() {
    judge::<Customer>(&[], register("curitiba"), day(1))
        .then_expect_events(events(registered("curitiba"), day(1)));
}

#[test]
fn registering_again_with_the_same_facts_adds_nothing_whatever_has_come_since() {
    judge::<Customer>(&history(), register("curitiba"), day(1)).then_expect_events(vec![]);
}

#[test]
fn refuses_to_register_again_with_other_facts() {
    let refusal = Rejection::AlreadyRegistered {
        registered_at: day(1),
    };
    assert_eq!(refusal.code(), "customer_already_registered");
    assert_eq!(
        serde_json::Value::Object(refusal.facts()),
        json!({"registered_at": "2018-06-01T12:00:00Z"})
    );
    judge::<Customer>(&history(), register("londrina"), day(1)).then_expect_error(refusal.clone());
    judge::<Customer>(&history(), register("curitiba"), day(2)).then_expect_error(refusal.clone());
    let named = RegisterCustomer {
        name: Some(a("Ana")),
        ..register("curitiba")
    };
    judge::<Customer>(&history(), named, day(1)).then_expect_error(refusal);
}

#[test]
fn corrects_the_address_also_back_and_also_in_the_past() {
    judge::<Customer>(&history(), correct("londrina"), day(4))
        .then_expect_events(events(corrected("londrina"), day(4)));
    judge::<Customer>(
        &history()[..1],
        correct("londrina"),
        "1999-01-01T00:00:00Z".parse().unwrap(),
    )
    .then_expect_events(events(
        corrected("londrina"),
        "1999-01-01T00:00:00Z".parse().unwrap(),
    ));
}

#[test]
fn confirming_the_address_at_another_time_is_a_fact() {
    judge::<Customer>(&history(), correct("curitiba"), day(4))
        .then_expect_events(events(corrected("curitiba"), day(4)));
}

#[test]
fn the_same_correction_adds_nothing_whatever_has_come_since() {
    judge::<Customer>(&history(), correct("londrina"), day(2)).then_expect_events(vec![]);
    judge::<Customer>(&history(), correct("curitiba"), day(3)).then_expect_events(vec![]);
}

#[test]
fn refuses_to_correct_the_address_of_a_stranger() {
    judge::<Customer>(&[], correct("londrina"), day(1)).then_expect_error(Rejection::NotRegistered);
    assert_eq!(Rejection::NotRegistered.code(), "customer_not_registered");
    assert!(Rejection::NotRegistered.facts().is_empty());
}
