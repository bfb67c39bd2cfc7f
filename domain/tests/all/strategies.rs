//! Strategies for the properties: any command, any event, any amount.

use domain::customer;
use std::fmt::Debug;
use std::str::FromStr;

use domain::order::{self, *};
use domain::payment::{self, *};
use domain::vocabulary::{AMOUNT_MINOR_MAX, AMOUNT_MINOR_MIN, Money, Text};
use kernel::{Context, Timestamp};
use proptest::prelude::*;

use crate::given::{a, day};

/// An amount in one of two currencies: often small, zero, negative, or the largest possible.
pub fn money() -> impl Strategy<Value = Money> {
    let amount = prop_oneof![
        4 => -2..5i64,
        1 => Just(AMOUNT_MINOR_MAX),
        1 => AMOUNT_MINOR_MIN..=AMOUNT_MINOR_MAX,
    ];
    let currency = prop_oneof![9 => Just("BRL"), 1 => Just("USD")];
    (amount, currency).prop_map(|(amount, currency)| Money::new(amount, a(currency)))
}

/// One of a few moments, so that moments often coincide.
pub fn moment() -> impl Strategy<Value = Timestamp> {
    (1..4u8).prop_map(day)
}

/// A command at one of a few moments, given by the client or by the clock.
pub fn request<C: Debug>(command: impl Strategy<Value = C>) -> impl Strategy<Value = (C, Context)> {
    let context = (moment(), any::<bool>()).prop_map(|(at, is_time_given)| Context {
        is_time_given,
        ..crate::given::context(at)
    });
    (command, context)
}

/// Any moment that can be stored.
pub fn any_moment() -> impl Strategy<Value = Timestamp> {
    let (first, last) = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z");
    let micros = |text: &str| text.parse::<Timestamp>().unwrap().micros();
    (micros(first)..=micros(last)).prop_map(|micros| Timestamp::from_micros(micros).unwrap())
}

pub fn text<const MAX: usize>() -> impl Strategy<Value = Text<MAX>> {
    "[^\u{0}]{0,12}".prop_map(|text| a(&text))
}

/// One of a few ids.
fn id<T: FromStr<Err: Debug> + Debug>() -> impl Strategy<Value = T> {
    (0..3u8).prop_map(|number| a(&format!("x{number}")))
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = (1..6u32, id(), id(), money(), money()).prop_map(
        |(line, product, seller, price, freight)| Item {
            line,
            product,
            seller,
            price,
            freight,
        },
    );
    prop::collection::vec(item, 0..4)
}

/// A small order that the rules accept.
fn good_items() -> impl Strategy<Value = Vec<Item>> {
    prop::collection::vec((1..3000i64, 0..100i64), 1..3).prop_map(|amounts| {
        amounts
            .iter()
            .zip(1..)
            .map(|((price, freight), line)| {
                crate::given::item(
                    line,
                    crate::given::real(*price),
                    crate::given::real(*freight),
                )
            })
            .collect()
    })
}

pub fn order_command() -> impl Strategy<Value = order::Command> {
    let place = (id(), prop_oneof![items(), good_items()], moment()).prop_map(
        |(customer, items, estimated_delivery)| PlaceOrder {
            customer,
            items,
            estimated_delivery,
        },
    );
    let review = (
        id(),
        1..=5u8,
        prop::option::of(text()),
        prop::option::of(text()),
    )
        .prop_map(|(review, score, title, comment)| ReviewOrder {
            review,
            score,
            title,
            comment,
        });
    prop_oneof![
        4 => place.prop_map(order::Command::from),
        2 => Just(ApproveOrder {}.into()),
        1 => Just(StartProcessing {}.into()),
        1 => Just(InvoiceOrder {}.into()),
        2 => Just(ShipOrder {}.into()),
        1 => Just(DeliverOrder {}.into()),
        1 => text().prop_map(|reason| CancelOrder { reason }.into()),
        1 => Just(MarkUnavailable {}.into()),
        2 => review.prop_map(order::Command::from),
    ]
}

pub fn order_event() -> impl Strategy<Value = order::Event> {
    let total = 0..=AMOUNT_MINOR_MAX;
    let placed = (id(), items(), total.clone(), total, money(), any_moment()).prop_map(
        |(customer, items, items_minor, freight_minor, money, estimated_delivery)| OrderPlaced {
            customer,
            items,
            items_minor,
            freight_minor,
            currency: money.currency,
            estimated_delivery,
        },
    );
    let delivered =
        (any_moment(), any_moment()).prop_map(|(placed_at, estimated_delivery)| OrderDelivered {
            placed_at,
            estimated_delivery,
        });
    let reviewed = (
        id(),
        1..=5u8,
        prop::option::of(text()),
        prop::option::of(text()),
    )
        .prop_map(|(review, score, title, comment)| OrderReviewed {
            review,
            score,
            title,
            comment,
        });
    prop_oneof![
        placed.prop_map(order::Event::from),
        Just(OrderApproved {}.into()),
        Just(ProcessingStarted {}.into()),
        Just(OrderInvoiced {}.into()),
        Just(OrderShipped {}.into()),
        delivered.prop_map(order::Event::from),
        text().prop_map(|reason| OrderCanceled { reason }.into()),
        Just(OrderMarkedUnavailable {}.into()),
        reviewed.prop_map(order::Event::from),
    ]
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::CreditCard),
        Just(Method::Boleto),
        Just(Method::Voucher),
        Just(Method::DebitCard),
    ]
}

pub fn payment_command() -> impl Strategy<Value = payment::Command> {
    prop_oneof![
        (id(), method(), -1..3i64, money()).prop_map(|(order, method, instalments, amount)| {
            CapturePayment {
                order,
                method,
                instalments,
                amount,
            }
            .into()
        }),
        money().prop_map(|amount| RefundPayment { amount }.into()),
    ]
}

pub fn payment_event() -> impl Strategy<Value = payment::Event> {
    prop_oneof![
        (id(), method(), 0..3i64, money()).prop_map(|(order, method, instalments, amount)| {
            PaymentCaptured {
                order,
                method,
                instalments,
                amount,
            }
            .into()
        }),
        (id(), method(), money()).prop_map(|(order, method, amount)| {
            PaymentRefunded {
                order,
                method,
                amount,
            }
            .into()
        }),
    ]
}

pub fn customer_command() -> impl Strategy<Value = customer::Command> {
    prop_oneof![
        (prop::option::of(text()), text(), text(), text()).prop_map(
            |(name, city, state, postcode_prefix)| customer::RegisterCustomer {
                name,
                city,
                state,
                postcode_prefix,
            }
            .into()
        ),
        (id(), id(), id()).prop_map(|(city, state, postcode_prefix)| {
            customer::CorrectAddress {
                city,
                state,
                postcode_prefix,
            }
            .into()
        }),
    ]
}

pub fn customer_event() -> impl Strategy<Value = customer::Event> {
    prop_oneof![
        (prop::option::of(text()), text(), text(), text()).prop_map(
            |(name, city, state, postcode_prefix)| customer::CustomerRegistered {
                name,
                city,
                state,
                postcode_prefix,
            }
            .into()
        ),
        (text(), text(), text()).prop_map(|(city, state, postcode_prefix)| {
            customer::AddressCorrected {
                city,
                state,
                postcode_prefix,
            }
            .into()
        }),
    ]
}
