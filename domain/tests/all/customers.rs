//! Customers: registered once; the address may be corrected any number of times.

use domain::Customer;
use domain::customer::{
    AddressCorrected, CorrectAddress, CustomerRegistered, Event, RegisterCustomer, Rejection,
};
use kernel::{Rejection as _, Timestamp};
use serde_json::json;

use crate::given::{a, by_the_clock, day, judge, judge_in};

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
    judge::<Customer>(&[], register("curitiba"), day(1)).then([registered("curitiba")]);
}

#[test]
fn registering_again_as_it_is_adds_nothing_whatever_has_come_since() {
    judge::<Customer>(&history(), register("curitiba"), day(1)).then_nothing();
}

#[test]
fn refuses_to_register_again() {
    let refusal = Rejection::AlreadyRegistered {
        registered_at: day(1),
    };
    assert_eq!(refusal.code(), "customer_already_registered");
    assert_eq!(
        serde_json::Value::Object(refusal.facts()),
        json!({"registered_at": "2018-06-01T12:00:00Z"})
    );
    judge::<Customer>(&history(), register("londrina"), day(1)).then_refused(refusal.clone());
    judge::<Customer>(&history(), register("curitiba"), day(2)).then_refused(refusal.clone());
    let named = RegisterCustomer {
        name: Some(a("Ana")),
        ..register("curitiba")
    };
    judge::<Customer>(&history(), named, day(1)).then_refused(refusal.clone());
    judge_in::<Customer>(&history(), register("curitiba"), by_the_clock(day(1)))
        .then_refused(refusal);
}

#[test]
fn corrects_the_address_also_back() {
    judge::<Customer>(&history(), correct("londrina"), day(4)).then([corrected("londrina")]);
    // Two people may give different addresses for the same moment.
    judge::<Customer>(&history(), correct("londrina"), day(3)).then([corrected("londrina")]);
}

#[test]
fn confirming_the_address_is_a_fact() {
    judge::<Customer>(&history(), correct("curitiba"), day(4)).then([corrected("curitiba")]);
    judge_in::<Customer>(&history(), correct("curitiba"), by_the_clock(day(3)))
        .then([corrected("curitiba")]);
}

#[test]
fn the_present_address_adds_nothing_where_the_client_dates_it_alike() {
    judge::<Customer>(&history(), correct("curitiba"), day(3)).then_nothing();
    judge::<Customer>(&history()[..1], correct("curitiba"), day(1)).then_nothing();
}

#[test]
fn refuses_an_address_that_is_older_than_the_present_one() {
    let refusal = Rejection::AddressSuperseded {
        address_since: day(3),
    };
    assert_eq!(refusal.code(), "customer_address_superseded");
    assert_eq!(
        serde_json::Value::Object(refusal.facts()),
        json!({"address_since": "2018-06-03T12:00:00Z"})
    );
    assert_eq!(
        refusal.to_string(),
        "the customer has had another address since 2018-06-03T12:00:00Z"
    );
    for city in ["londrina", "curitiba", "santos"] {
        judge::<Customer>(&history(), correct(city), day(2)).then_refused(refusal.clone());
    }
    let refusal = Rejection::AddressSuperseded {
        address_since: day(1),
    };
    let long_ago = "1999-01-01T00:00:00Z".parse().unwrap();
    judge::<Customer>(&history()[..1], correct("santos"), long_ago).then_refused(refusal);
}

#[test]
fn a_clock_that_was_set_back_holds_up_no_new_address() {
    judge_in::<Customer>(&history(), correct("londrina"), by_the_clock(day(2)))
        .then([corrected("londrina")]);
}

#[test]
fn refuses_to_correct_the_address_of_a_stranger() {
    judge::<Customer>(&[], correct("londrina"), day(1)).then_refused(Rejection::NotRegistered);
    assert_eq!(Rejection::NotRegistered.code(), "customer_not_registered");
    assert!(Rejection::NotRegistered.facts().is_empty());
}
