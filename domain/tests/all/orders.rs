//! Orders: what may be placed, and the facts of reviews and events.

use domain::Order;
use domain::order::{
    CancelOrder, DeliverOrder, Event, Item, OrderApproved, OrderCanceled, OrderDelivered,
    OrderPlaced, OrderReviewed, OrderShipped, PlaceOrder, Rejection, ReviewOrder,
};
use domain::vocabulary::{AMOUNT_MINOR_MAX, Currency, Money};
use kernel::{Rejection as _, Timestamp};
use serde_json::json;

use crate::given::{
    a, by_the_clock, day, dollar, item, judge, judge_in, place_one, place_order, placed_one, real,
};

#[track_caller]
fn refused(items: Vec<Item>, refusal: Rejection, code: &str) {
    assert_eq!(refusal.code(), code);
    judge::<Order>(&[], place_order(items), day(1)).then_refused(refusal);
}

#[test]
fn places_an_order_and_sums_it_up() {
    let items = vec![
        item(1, real(2199), real(1185)),
        item(3, real(1), real(0)),
        item(2, real(2199), real(15)),
    ];
    let placed = OrderPlaced {
        customer: a("ana"),
        items: items.clone(),
        items_minor: 4399,
        freight_minor: 1200,
        currency: Currency::BRL,
        estimated_delivery: day(20),
    };
    judge::<Order>(&[], place_order(items), day(1)).then([placed]);
}

#[test]
fn refuses_an_order_of_nothing() {
    refused(vec![], Rejection::HasNoItems, "order_has_no_items");
}

#[test]
fn refuses_a_line_number_for_two_items() {
    refused(
        vec![
            item(1, real(1), real(0)),
            item(2, real(1), real(0)),
            item(1, real(0), real(0)),
        ],
        Rejection::LinesRepeat { line: 1 },
        "order_lines_repeat",
    );
}

#[test]
fn refuses_to_mix_currencies() {
    let mixed = |line| Rejection::CurrenciesMixed {
        line,
        currency: Currency::BRL,
        other_currency: a("USD"),
    };
    let code = "order_currencies_mixed";
    refused(vec![item(7, real(1), dollar(1))], mixed(7), code);
    refused(
        vec![item(1, real(0), real(1)), item(2, dollar(0), dollar(-1))],
        mixed(2),
        code,
    );
}

#[test]
fn refuses_a_price_that_is_not_positive() {
    for price in [real(0), real(-1)] {
        refused(
            vec![item(1, real(1), real(-1)), item(2, price, real(0))],
            Rejection::PriceNotPositive { line: 2, price },
            "order_price_not_positive",
        );
    }
}

#[test]
fn refuses_a_negative_freight() {
    let freight = real(-1);
    refused(
        vec![item(1, real(1), real(0)), item(2, real(1), freight)],
        Rejection::FreightNegative { line: 2, freight },
        "order_freight_negative",
    );
}

#[test]
fn an_order_is_at_most_the_largest_amount_in_all() {
    let items = vec![item(1, real(AMOUNT_MINOR_MAX - 1), real(1))];
    let placed = OrderPlaced {
        items: items.clone(),
        items_minor: AMOUNT_MINOR_MAX - 1,
        freight_minor: 1,
        ..placed_one()
    };
    judge::<Order>(&[], place_order(items), day(1)).then([placed]);
    let refusal = Rejection::TotalTooLarge {
        total_minor_max: AMOUNT_MINOR_MAX,
    };
    let code = "order_total_too_large";
    let all = real(AMOUNT_MINOR_MAX);
    refused(vec![item(1, all, real(1))], refusal.clone(), code);
    let two_hundred = (1..=200).map(|line| item(line, all, all)).collect();
    refused(two_hundred, refusal, code);
}

#[test]
fn refuses_to_place_an_order_again() {
    let history = [(placed_one().into(), day(1))];
    let refusal = Rejection::AlreadyPlaced { placed_at: day(1) };
    assert_eq!(refusal.code(), "order_already_placed");
    assert_eq!(
        serde_json::Value::Object(refusal.facts()),
        json!({"placed_at": "2018-06-01T12:00:00Z"})
    );
    for (other, occurred_at) in [
        (place_one(), day(2)),
        (place_order(vec![]), day(1)),
        (
            PlaceOrder {
                customer: a("rui"),
                ..place_one()
            },
            day(1),
        ),
        (
            PlaceOrder {
                estimated_delivery: day(21),
                ..place_one()
            },
            day(1),
        ),
    ] {
        judge::<Order>(&history, other, occurred_at).then_refused(refusal.clone());
    }
    judge::<Order>(&history, place_one(), day(1)).then_nothing();
    judge_in::<Order>(&history, place_one(), by_the_clock(day(1))).then_refused(refusal);
}

#[test]
fn a_delivery_tells_when_the_order_was_placed_and_due() {
    let history: Vec<(Event, Timestamp)> = vec![
        (placed_one().into(), day(1)),
        (OrderApproved {}.into(), day(2)),
        (OrderShipped {}.into(), day(3)),
    ];
    let delivered = OrderDelivered {
        placed_at: day(1),
        estimated_delivery: day(20),
    };
    judge::<Order>(&history, DeliverOrder {}, day(9)).then([delivered.clone()]);
    // Business time need not be monotonic.
    judge::<Order>(&history, DeliverOrder {}, day(2)).then([delivered]);
}

#[test]
fn the_reason_of_a_cancellation_is_one_of_its_facts() {
    let history: Vec<(Event, Timestamp)> = vec![
        (placed_one().into(), day(1)),
        (OrderCanceled { reason: a("late") }.into(), day(2)),
    ];
    judge::<Order>(&history, CancelOrder { reason: a("late") }, day(2)).then_nothing();
    let refusal = Rejection::Canceled {
        canceled_at: day(2),
    };
    judge::<Order>(&history, CancelOrder { reason: a("lost") }, day(2))
        .then_refused(refusal.clone());
    judge_in::<Order>(
        &history,
        CancelOrder { reason: a("late") },
        by_the_clock(day(2)),
    )
    .then_refused(refusal);
}

fn review(review: &str, score: u8) -> ReviewOrder {
    ReviewOrder {
        review: a(review),
        score,
        title: None,
        comment: Some(a("não \"chegou\"\r\n")),
    }
}

fn reviewed(review: &str, score: u8) -> OrderReviewed {
    OrderReviewed {
        review: a(review),
        score,
        title: None,
        comment: Some(a("não \"chegou\"\r\n")),
    }
}

#[test]
fn takes_a_review_id_once_per_order() {
    let history: Vec<(Event, Timestamp)> = vec![
        (placed_one().into(), day(1)),
        (reviewed("r1", 1).into(), day(2)),
        (reviewed("r2", 5).into(), day(2)),
    ];
    judge::<Order>(&history, review("r3", 1), day(2)).then([reviewed("r3", 1)]);
    judge::<Order>(&history, review("r1", 1), day(2)).then_nothing();
    let refusal = Rejection::ReviewAlreadyGiven {
        review: a("r1"),
        reviewed_at: day(2),
    };
    assert_eq!(refusal.code(), "review_already_given");
    judge::<Order>(&history, review("r1", 2), day(2)).then_refused(refusal.clone());
    judge::<Order>(&history, review("r1", 1), day(3)).then_refused(refusal.clone());
    let silent = ReviewOrder {
        comment: None,
        ..review("r1", 1)
    };
    judge::<Order>(&history, silent, day(2)).then_refused(refusal.clone());
    judge_in::<Order>(&history, review("r1", 1), by_the_clock(day(2))).then_refused(refusal);
}

#[test]
fn every_refusal_is_a_sentence_with_a_code_of_its_own() {
    let money: Money = real(-5);
    let refusals = [
        Rejection::NotPlaced,
        Rejection::AlreadyPlaced { placed_at: day(1) },
        Rejection::HasNoItems,
        Rejection::LinesRepeat { line: 1 },
        Rejection::CurrenciesMixed {
            line: 1,
            currency: a("BRL"),
            other_currency: a("USD"),
        },
        Rejection::PriceNotPositive {
            line: 1,
            price: money,
        },
        Rejection::FreightNegative {
            line: 1,
            freight: money,
        },
        Rejection::TotalTooLarge { total_minor_max: 1 },
        Rejection::Canceled {
            canceled_at: day(1),
        },
        Rejection::Unavailable {
            unavailable_at: day(1),
        },
        Rejection::AlreadyDelivered {
            delivered_at: day(1),
        },
        Rejection::AlreadyApproved {
            approved_at: day(1),
        },
        Rejection::AlreadyProcessing {
            processing_at: day(1),
        },
        Rejection::AlreadyInvoiced {
            invoiced_at: day(1),
        },
        Rejection::AlreadyShipped { shipped_at: day(1) },
        Rejection::NotApproved { placed_at: day(1) },
        Rejection::NotShipped { placed_at: day(1) },
        Rejection::ReviewAlreadyGiven {
            review: a("r"),
            reviewed_at: day(1),
        },
    ];
    let codes: std::collections::BTreeSet<_> = refusals.iter().map(|r| r.code()).collect();
    assert_eq!(codes.len(), refusals.len());
    for refusal in &refusals {
        let sentence = refusal.to_string();
        assert!(sentence.starts_with(char::is_lowercase) && !sentence.ends_with('.'));
        let fields = refusal.facts().len();
        let expected = match refusal {
            Rejection::NotPlaced | Rejection::HasNoItems => 0,
            Rejection::CurrenciesMixed { .. } => 3,
            Rejection::PriceNotPositive { .. }
            | Rejection::FreightNegative { .. }
            | Rejection::ReviewAlreadyGiven { .. } => 2,
            Rejection::AlreadyPlaced { .. }
            | Rejection::LinesRepeat { .. }
            | Rejection::TotalTooLarge { .. }
            | Rejection::Canceled { .. }
            | Rejection::Unavailable { .. }
            | Rejection::AlreadyDelivered { .. }
            | Rejection::AlreadyApproved { .. }
            | Rejection::AlreadyProcessing { .. }
            | Rejection::AlreadyInvoiced { .. }
            | Rejection::AlreadyShipped { .. }
            | Rejection::NotApproved { .. }
            | Rejection::NotShipped { .. } => 1,
        };
        assert_eq!(fields, expected, "{sentence}");
    }
}
