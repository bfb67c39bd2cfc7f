//! `delivery_days`: how long deliveries took, by month of delivery.
//!
//! Invariant: the event carries when the order was placed and when it was due, so that no other
//! event is needed.

use domain::order;
use kernel::{Decider, Timestamp};
use projector::{
    Changes, ColumnType, Entry, Model, ProjectError, Projection, Shown, Table, Value, column,
    count, key, tally,
};

use crate::month_of;

/// Microseconds in 86,400 seconds.
const DAY_MICROS: i64 = 86_400_000_000;

const MONTHS: Table = Table {
    name: "delivery_days",
    key: &[key("month", ColumnType::Date)],
    values: &[tally("delivered"), tally("days_sum"), tally("late")],
};

const MODELS: &[Model] = &[Model {
    name: "delivery_days",
    about: "Deliveries by month, the whole days they took, and how many were late.",
    table: "delivery_days",
    joins: "",
    filter: None,
    columns: &[
        column("month", ColumnType::Date),
        count("delivered"),
        count("days_sum"),
        count("late"),
    ],
    shown: Shown::Everywhere,
}];

/// The rule of `delivery_days`.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryDays;

impl Projection for DeliveryDays {
    fn name(&self) -> &'static str {
        "delivery_days"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[MONTHS]
    }

    fn models(&self) -> &'static [Model] {
        MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        if entry.category() != domain::Order::CATEGORY {
            return Ok(());
        }
        for (event, occurred_at) in entry.events::<order::Event>()?.iter() {
            match event {
                order::Event::OrderDelivered(delivered) => {
                    let delivered_at = *occurred_at;
                    let late = delivered_at > delivered.estimated_delivery;
                    changes
                        .row(&MONTHS, [Value::from(month_of(delivered_at))])
                        .put("delivered", 1_i64)
                        .put("days_sum", whole_days(delivered.placed_at, delivered_at))
                        .put("late", i64::from(late));
                }
                order::Event::OrderPlaced(_)
                | order::Event::OrderApproved(_)
                | order::Event::ProcessingStarted(_)
                | order::Event::OrderInvoiced(_)
                | order::Event::OrderShipped(_)
                | order::Event::OrderCanceled(_)
                | order::Event::OrderMarkedUnavailable(_)
                | order::Event::OrderReviewed(_) => {}
            }
        }
        Ok(())
    }
}

/// Elapsed seconds / 86,400, rounded down; below zero where business time went back.
fn whole_days(from: Timestamp, to: Timestamp) -> i64 {
    (to.micros() - from.micros()).div_euclid(DAY_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_elapsed_seconds_rounded_down() {
        for (from, to, days) in [
            ("2018-01-01T10:00:00Z", "2018-01-02T09:59:59Z", 0),
            ("2018-01-01T10:00:00Z", "2018-01-02T10:00:00Z", 1),
            ("2018-01-02T10:00:00Z", "2018-01-02T09:59:59.999999Z", -1),
            ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 3_652_058),
        ] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(whole_days(from, to), days);
        }
    }
}
