//! The result of every step in every state, as one table.

use domain::Order;
use domain::order::{
    ApproveOrder, CancelOrder, Command, DeliverOrder, Event, InvoiceOrder, MarkUnavailable,
    Rejection, ReviewOrder, ShipOrder, StartProcessing,
};
use kernel::{Decider, Message, Rejection as _, Timestamp};

use crate::given::{a, by_the_clock, context, day, place_one};

/// The steps, in the order of the columns of [`TABLE`].
fn steps() -> [Command; 9] {
    [
        place_one().into(),
        ApproveOrder {}.into(),
        StartProcessing {}.into(),
        InvoiceOrder {}.into(),
        ShipOrder {}.into(),
        DeliverOrder {}.into(),
        CancelOrder { reason: a("late") }.into(),
        MarkUnavailable {}.into(),
        ReviewOrder {
            review: a("r1"),
            score: 5,
            title: None,
            comment: None,
        }
        .into(),
    ]
}

/// The name of a row is the way to a state: the first letters of its steps (placed, approved,
/// processing = s for started, invoiced, shipped = h for handed over, delivered, canceled,
/// unavailable, reviewed). Each column is a further step, in the order of [`steps`]: place,
/// approve, start processing, invoice, ship, deliver, cancel, mark unavailable, review. The cell is
/// the result of that step at a time at which nothing else happened: `+` is its event; anything
/// else is a rejection code without the prefix `order_`.
#[rustfmt::skip]
const TABLE: [(&str, [&str; 9]); 27] = [
    ("",      ["+",              "not_placed",        "not_placed",         "not_placed",         "not_placed",        "not_placed",        "not_placed",        "not_placed",        "not_placed"]),
    ("p",     ["already_placed", "+",                 "not_approved",       "not_approved",       "not_approved",      "not_shipped",       "+",                 "+",                 "+"]),
    ("pr",    ["already_placed", "+",                 "not_approved",       "not_approved",       "not_approved",      "not_shipped",       "+",                 "+",                 "review_already_given"]),
    ("pa",    ["already_placed", "already_approved",  "+",                  "+",                  "+",                 "not_shipped",       "+",                 "+",                 "+"]),
    ("pas",   ["already_placed", "already_approved",  "already_processing", "+",                  "+",                 "not_shipped",       "+",                 "+",                 "+"]),
    ("pai",   ["already_placed", "already_approved",  "+",                  "already_invoiced",   "+",                 "not_shipped",       "+",                 "+",                 "+"]),
    ("pasi",  ["already_placed", "already_approved",  "already_processing", "already_invoiced",   "+",                 "not_shipped",       "+",                 "+",                 "+"]),
    ("pais",  ["already_placed", "already_approved",  "already_processing", "already_invoiced",   "+",                 "not_shipped",       "+",                 "+",                 "+"]),
    ("pah",   ["already_placed", "already_approved",  "already_shipped",    "already_shipped",    "already_shipped",   "+",                 "+",                 "already_shipped",   "+"]),
    ("pash",  ["already_placed", "already_approved",  "already_processing", "already_shipped",    "already_shipped",   "+",                 "+",                 "already_shipped",   "+"]),
    ("paih",  ["already_placed", "already_approved",  "already_shipped",    "already_invoiced",   "already_shipped",   "+",                 "+",                 "already_shipped",   "+"]),
    ("paish", ["already_placed", "already_approved",  "already_processing", "already_invoiced",   "already_shipped",   "+",                 "+",                 "already_shipped",   "+"]),
    ("pahr",  ["already_placed", "already_approved",  "already_shipped",    "already_shipped",    "already_shipped",   "+",                 "+",                 "already_shipped",   "review_already_given"]),
    ("pahd",  ["already_placed", "already_delivered", "already_delivered",  "already_delivered",  "already_delivered", "already_delivered", "already_delivered", "already_delivered", "+"]),
    ("pasihd",["already_placed", "already_delivered", "already_delivered",  "already_delivered",  "already_delivered", "already_delivered", "already_delivered", "already_delivered", "+"]),
    ("pahdr", ["already_placed", "already_delivered", "already_delivered",  "already_delivered",  "already_delivered", "already_delivered", "already_delivered", "already_delivered", "review_already_given"]),
    ("pc",    ["already_placed", "canceled",          "canceled",           "canceled",           "canceled",          "canceled",          "canceled",          "canceled",          "+"]),
    ("pac",   ["already_placed", "canceled",          "canceled",           "canceled",           "canceled",          "canceled",          "canceled",          "canceled",          "+"]),
    ("pasic", ["already_placed", "canceled",          "canceled",           "canceled",           "canceled",          "canceled",          "canceled",          "canceled",          "+"]),
    ("pahc",  ["already_placed", "canceled",          "canceled",           "canceled",           "canceled",          "canceled",          "canceled",          "canceled",          "+"]),
    ("pasihc",["already_placed", "canceled",          "canceled",           "canceled",           "canceled",          "canceled",          "canceled",          "canceled",          "+"]),
    ("pcr",   ["already_placed", "canceled",          "canceled",           "canceled",           "canceled",          "canceled",          "canceled",          "canceled",          "review_already_given"]),
    ("pu",    ["already_placed", "unavailable",       "unavailable",        "unavailable",        "unavailable",       "unavailable",       "unavailable",       "unavailable",       "+"]),
    ("pau",   ["already_placed", "unavailable",       "unavailable",        "unavailable",        "unavailable",       "unavailable",       "unavailable",       "unavailable",       "+"]),
    ("pasu",  ["already_placed", "unavailable",       "unavailable",        "unavailable",        "unavailable",       "unavailable",       "unavailable",       "unavailable",       "+"]),
    ("pasiu", ["already_placed", "unavailable",       "unavailable",        "unavailable",        "unavailable",       "unavailable",       "unavailable",       "unavailable",       "+"]),
    ("pur",   ["already_placed", "unavailable",       "unavailable",        "unavailable",        "unavailable",       "unavailable",       "unavailable",       "unavailable",       "review_already_given"]),
];

/// The event of each step, in the order of the columns.
const EVENTS: [&str; 9] = [
    "OrderPlaced",
    "OrderApproved",
    "ProcessingStarted",
    "OrderInvoiced",
    "OrderShipped",
    "OrderDelivered",
    "OrderCanceled",
    "OrderMarkedUnavailable",
    "OrderReviewed",
];

type Judged = Result<Vec<Event>, Rejection>;

fn judge(state: &domain::order::State, step: &Command, occurred_at: Timestamp) -> Judged {
    Order::decide(state, step, &context(occurred_at))
}

/// Takes the steps of a way, one per day; returns the state and the steps.
fn walk(way: &str) -> (domain::order::State, Vec<(Command, Timestamp)>) {
    let steps = steps();
    let mut state = domain::order::State::default();
    let mut taken = Vec::new();
    for (letter, today) in way.chars().zip(1..) {
        let column = "pasihdcur".find(letter).unwrap();
        let events = judge(&state, &steps[column], day(today)).unwrap();
        assert_eq!(events.len(), 1, "{way}");
        for event in &events {
            assert_eq!(event.type_name(), EVENTS[column], "{way}");
            Order::evolve(&mut state, event, day(today));
        }
        taken.push((steps[column].clone(), day(today)));
    }
    (state, taken)
}

#[test]
fn every_step_in_every_state_is_taken_or_refused_as_the_table_says() {
    for (way, row) in TABLE {
        let (state, _) = walk(way);
        for ((step, expected), event) in steps().iter().zip(row).zip(EVENTS) {
            let name = step.type_name();
            match judge(&state, step, day(30)) {
                Ok(events) => {
                    let types: Vec<_> = events.iter().map(Message::type_name).collect();
                    assert_eq!(
                        (expected, types),
                        ("+", vec![event.into()]),
                        "{way:?} {name}"
                    );
                }
                Err(refusal) => {
                    let code = refusal.code();
                    let code = code.strip_prefix("order_").unwrap_or(code);
                    assert_eq!(code, expected, "{way:?} {name}");
                }
            }
        }
    }
}

#[test]
fn by_the_clock_a_step_that_was_taken_is_refused_whatever_has_come_since() {
    for (way, row) in TABLE {
        let (state, taken) = walk(way);
        for (step, occurred_at) in taken {
            let column = steps().iter().position(|other| *other == step).unwrap();
            let refusal = Order::decide(&state, &step, &by_the_clock(occurred_at)).unwrap_err();
            let code = refusal.code();
            let code = code.strip_prefix("order_").unwrap_or(code);
            assert_eq!(code, row[column], "{way:?} {}", step.type_name());
        }
    }
}

#[test]
fn a_step_as_it_was_taken_adds_nothing_whatever_has_come_since() {
    for (way, _) in TABLE {
        let (state, taken) = walk(way);
        for (step, occurred_at) in taken {
            assert_eq!(
                judge(&state, &step, occurred_at),
                Ok(vec![]),
                "{way:?} {}",
                step.type_name()
            );
        }
    }
}

#[test]
fn the_table_reaches_every_state_that_steps_can_reach() {
    // The next steps depend only on the set of steps taken and on the final step. So ways that
    // differ only in order or in reviews count as the same.
    let essence = |way: &str| {
        let mut letters: Vec<_> = way.chars().filter(|letter| *letter != 'r').collect();
        letters.sort_unstable();
        letters
    };
    // A final state depends on nothing else, so one way into each is enough.
    let listed: Vec<_> = TABLE.iter().map(|(way, _)| essence(way)).collect();
    for (way, row) in TABLE {
        if ["canceled", "unavailable", "already_delivered"].contains(&row[1]) {
            continue;
        }
        for (letter, expected) in "pasihd".chars().zip(row) {
            let next = essence(&format!("{way}{letter}"));
            let is_final = letter == 'd';
            assert!(
                expected != "+" || is_final || listed.contains(&next),
                "{way} then {letter} is not in the table"
            );
        }
    }
}
