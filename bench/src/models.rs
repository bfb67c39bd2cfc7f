//! Two small read models for measuring: one has a row for each order; in the other, many orders
//! share a row.
//!
//! Deliberately absent: the hand-written loops that make the same rows (`rows::projection`).

use domain::Order;
use domain::order::OrderPlaced;
use projector::{ColumnType, History, Rules, Table, Value, add, key, set, tally};

/// The tables of [`orders`].
pub const ORDERS: &[Table] = &[Table {
    name: "bench_orders",
    about: "Orders.",
    key: &[key("order_id", ColumnType::Text, "The order.")],
    values: &[
        set("customer", ColumnType::Text, "Who placed it."),
        set("placed_at", ColumnType::Timestamptz, "When."),
        set("items_minor", ColumnType::Bigint, "Prices."),
        set("freight_minor", ColumnType::Bigint, "Freights."),
    ],
    ..Table::PLAIN
}];

/// The tables of [`customers`].
pub const CUSTOMERS: &[Table] = &[Table {
    name: "bench_customers",
    about: "Customers.",
    key: &[key("customer", ColumnType::Text, "The customer.")],
    values: &[
        tally("orders", "Orders."),
        add("spent_minor", "Prices and freights."),
    ],
    ..Table::PLAIN
}];

/// One row for each order.
#[must_use]
pub fn orders(history: History) -> Rules {
    let rules = Rules::new(ORDERS[0].name, 1, ORDERS).history(history);
    rules.on::<Order, OrderPlaced>(|placed, event, changes| {
        changes
            .row(&ORDERS[0], [Value::from(event.stream_id())])
            .put("customer", placed.customer.as_str())
            .put("placed_at", event.occurred_at())
            .put("items_minor", placed.items_minor)
            .put("freight_minor", placed.freight_minor);
    })
}

/// One row for each customer, with sums over their orders.
#[must_use]
pub fn customers(history: History) -> Rules {
    let rules = Rules::new(CUSTOMERS[0].name, 1, CUSTOMERS).history(history);
    rules.on::<Order, OrderPlaced>(|placed, _, changes| {
        changes
            .row(&CUSTOMERS[0], [Value::from(placed.customer.as_str())])
            .put("orders", 1_i64)
            .put("spent_minor", placed.items_minor + placed.freight_minor);
    })
}
