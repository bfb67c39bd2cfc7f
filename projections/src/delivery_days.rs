//! `delivery_days`: how long deliveries took, by month of delivery.
//!
//! Invariant: the event holds the time at which the order was placed and the time at which delivery
//! was due, so that no other event is needed.

use domain::Order;
use domain::order::OrderDelivered;
use kernel::Timestamp;
use projector::ColumnType::Date;
use projector::{Rules, Table, Value, View, key, tally};

use crate::month_of;

/// Microseconds in 86,400 seconds.
const DAY_MICROS: i64 = 86_400_000_000;

const MONTHS: Table = Table {
    name: "delivery_days",
    about: "Deliveries by month, the whole days they took, and how many were late.",
    key: &[key("month", Date, "The first UTC day of the month.")],
    values: &[
        tally("delivered", "How many orders were delivered."),
        tally("days_sum", "Whole days from placing to delivery."),
        tally("late", "Deliveries after the estimated time."),
    ],
    view: View::FEW_ROWS,
    ..Table::PLAIN
};

pub(crate) fn rules() -> Rules {
    Rules::new("delivery_days", 1, &[MONTHS]).on::<Order, OrderDelivered>(
        |delivered, event, changes| {
            let delivered_at = event.occurred_at();
            let late = delivered_at > delivered.estimated_delivery;
            changes
                .row(&MONTHS, [Value::from(month_of(delivered_at))])
                .put("delivered", 1_i64)
                .put("days_sum", whole_days(delivered.placed_at, delivered_at))
                .put("late", i64::from(late));
        },
    )
}

/// Elapsed seconds / 86,400, rounded down; negative if the business times are in the wrong order.
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
