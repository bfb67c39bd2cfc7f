//! `daily_sales`: what was ordered on each UTC day, by currency.
//!
//! Deliberately absent: what happened to an order afterwards; a cancelled order counts, too.

use domain::Order;
use domain::order::OrderPlaced;
use projector::ColumnType::{Date, Text};
use projector::{Rules, Table, Value, View, add, count_of, key, tally};

use crate::day_of;

const DAYS: Table = Table {
    name: "daily_sales",
    about: "What was ordered on each UTC day of placing, by currency.",
    key: &[
        key("day", Date, "The UTC day on which the orders were placed."),
        key("currency", Text, "The amounts' currency (ISO 4217)."),
    ],
    values: &[
        tally("orders", "How many orders were placed."),
        tally("items", "How many items they have."),
        add("items_minor", "The items' prices together, in minor units."),
        add("freight_minor", "Their freights together, in minor units."),
    ],
    view: View::FEW_ROWS,
    ..Table::PLAIN
};

pub(crate) fn rules() -> Rules {
    Rules::new("daily_sales", 1, &[DAYS]).on::<Order, OrderPlaced>(|placed, event, changes| {
        let day = Value::from(day_of(event.occurred_at()));
        let currency = Value::from(placed.currency.as_str());
        changes
            .row(&DAYS, [day, currency])
            .put("orders", 1_i64)
            .put("items", count_of(placed.items.len()))
            .put("items_minor", placed.items_minor)
            .put("freight_minor", placed.freight_minor);
    })
}
