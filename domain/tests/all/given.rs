//! Helpers for the tests: days, people, goods, and "given … when … then".

use std::fmt::Debug;

use domain::order::{Item, OrderPlaced, PlaceOrder};
use domain::vocabulary::{Currency, Money};
use kernel::testing::{When, given_nothing};
use kernel::{Context, Decider, TenantId, Timestamp};

/// Noon of a day in June 2018.
pub fn day(day: u8) -> Timestamp {
    format!("2018-06-{day:02}T12:00:00Z").parse().unwrap()
}

/// The context of a command whose client gave its time.
pub fn context(occurred_at: Timestamp) -> Context {
    Context {
        occurred_at,
        is_time_given: true,
        actor: None,
        tenant: TenantId::default(),
        command_id: "a-command".parse().unwrap(),
    }
}

/// The context of a command whose client gave no time, so the time is the clock's.
pub fn by_the_clock(occurred_at: Timestamp) -> Context {
    Context {
        is_time_given: false,
        ..context(occurred_at)
    }
}

pub fn real(amount_minor: i64) -> Money {
    Money::new(amount_minor, Currency::BRL)
}

pub fn dollar(amount_minor: i64) -> Money {
    Money::new(amount_minor, "USD".parse().unwrap())
}

/// A short name for an id or a text of any type.
pub fn a<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub fn item(line: u32, price: Money, freight: Money) -> Item {
    Item {
        line,
        product: a("lamp"),
        seller: a("maria"),
        price,
        freight,
    }
}

pub fn place_order(items: Vec<Item>) -> PlaceOrder {
    PlaceOrder {
        customer: a("ana"),
        items,
        estimated_delivery: day(20),
    }
}

/// The command that orders one lamp.
pub fn place_one() -> PlaceOrder {
    place_order(vec![item(1, real(2199), real(1185))])
}

/// The event after one lamp was ordered.
pub fn placed_one() -> OrderPlaced {
    OrderPlaced {
        customer: a("ana"),
        items: vec![item(1, real(2199), real(1185))],
        items_minor: 2199,
        freight_minor: 1185,
        currency: Currency::BRL,
        estimated_delivery: day(20),
    }
}

/// A history and a command with a time given by its client, to be judged by the rules of `D`.
pub fn judge<D>(
    history: &[(D::Event, Timestamp)],
    command: impl Into<D::Command>,
    occurred_at: Timestamp,
) -> When<D>
where
    D: Decider<Event: Debug + PartialEq, Rejection: Debug + PartialEq>,
{
    judge_in::<D>(history, command, context(occurred_at))
}

/// Like [`judge`], with any context.
pub fn judge_in<D>(
    history: &[(D::Event, Timestamp)],
    command: impl Into<D::Command>,
    context: Context,
) -> When<D>
where
    D: Decider<Event: Debug + PartialEq, Rejection: Debug + PartialEq>,
{
    let events = history.iter().cloned();
    let given = events.fold(given_nothing::<D>(), |given, (event, occurred_at)| {
        given.at(occurred_at).happened([event])
    });
    given.when(command).in_context(context)
}
