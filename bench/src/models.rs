//! Two small read models for measuring: one with a row for each order, one with rows that many orders
//! share.
//!
//! Deliberately absent: the loops that make the same rows by hand (`rows::projection`).

use std::rc::Rc;

use domain::order::{self, OrderPlaced};
use kernel::Timestamp;
use projector::{
    Changes, ColumnType, Entry, Model, ProjectError, Projection, Shown, Table, Value, add, column,
    count, key, set, sum, tally, too_large,
};

/// The tables of [`Orders`].
pub const ORDERS: &[Table] = &[Table {
    name: "bench_orders",
    key: &[key("order_id", ColumnType::Text)],
    values: &[
        set("customer", ColumnType::Text),
        set("placed_at", ColumnType::Timestamptz),
        set("items_minor", ColumnType::Bigint),
        set("freight_minor", ColumnType::Bigint),
    ],
}];

const ORDER_MODELS: &[Model] = &[Model {
    name: ORDERS[0].name,
    about: "Orders.",
    table: ORDERS[0].name,
    joins: "",
    filter: None,
    columns: &[
        column("order_id", ColumnType::Text),
        column("customer", ColumnType::Text),
    ],
    shown: Shown::Everywhere,
}];

/// The tables of [`Customers`].
pub const CUSTOMERS: &[Table] = &[Table {
    name: "bench_customers",
    key: &[key("customer", ColumnType::Text)],
    values: &[tally("orders"), add("spent_minor")],
}];

const CUSTOMER_MODELS: &[Model] = &[Model {
    name: CUSTOMERS[0].name,
    about: "Customers.",
    table: CUSTOMERS[0].name,
    joins: "",
    filter: None,
    columns: &[
        column("customer", ColumnType::Text),
        count("orders"),
        sum("spent_minor"),
        too_large(),
    ],
    shown: Shown::Everywhere,
}];

/// One row for each order.
pub struct Orders;

impl Projection for Orders {
    fn name(&self) -> &'static str {
        ORDERS[0].name
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        ORDERS
    }

    fn models(&self) -> &'static [Model] {
        ORDER_MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        for (placed, placed_at) in placed(&entry.events()?) {
            changes
                .row(&ORDERS[0], [Value::from(entry.stream_id())])
                .put("customer", placed.customer.as_str())
                .put("placed_at", placed_at)
                .put("items_minor", placed.items_minor)
                .put("freight_minor", placed.freight_minor);
        }
        Ok(())
    }
}

/// One row for each customer, with sums over their orders.
pub struct Customers;

impl Projection for Customers {
    fn name(&self) -> &'static str {
        CUSTOMERS[0].name
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        CUSTOMERS
    }

    fn models(&self) -> &'static [Model] {
        CUSTOMER_MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        for (placed, _) in placed(&entry.events()?) {
            changes
                .row(&CUSTOMERS[0], [Value::from(placed.customer.as_str())])
                .put("orders", 1_i64)
                .put("spent_minor", placed.items_minor + placed.freight_minor);
        }
        Ok(())
    }
}

fn placed(
    events: &Rc<Vec<(order::Event, Timestamp)>>,
) -> impl Iterator<Item = (&OrderPlaced, Timestamp)> {
    events.iter().filter_map(|(event, at)| match event {
        order::Event::OrderPlaced(placed) => Some((placed, *at)),
        _ => None,
    })
}
