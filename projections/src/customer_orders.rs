//! `customer_orders`: one row per registered customer, with what they ordered.
//!
//! Invariant: address columns are written by the customer's own stream, the sums by the streams of
//! their orders. Deliberately absent: orders of people who never registered; their sums are kept
//! and shown once they do.

use domain::{customer, order};
use kernel::Decider;
use projector::{
    Changes, ColumnType, Entry, Model, ProjectError, Projection, Shown, Table, Value, add, column,
    count, key, max, min, nullable, set, sum, tally, too_large,
};

const CUSTOMERS: Table = Table {
    name: "customer_orders",
    key: &[key("customer_id", ColumnType::Text)],
    values: &[
        set("city", ColumnType::Text),
        set("state", ColumnType::Text),
        set("registered_at", ColumnType::Timestamptz),
        tally("orders"),
        add("spent_minor"),
        min("first_order_at", ColumnType::Timestamptz),
        max("last_order_at", ColumnType::Timestamptz),
    ],
};

const MODELS: &[Model] = &[Model {
    name: "customer_orders",
    about: "Registered customers, where they live, and what they ordered.",
    table: "customer_orders",
    joins: "",
    filter: Some("r.registered_at IS NOT NULL"),
    columns: &[
        column("customer_id", ColumnType::Text),
        column("city", ColumnType::Text),
        column("state", ColumnType::Text),
        count("orders"),
        sum("spent_minor"),
        nullable("first_order_at", ColumnType::Timestamptz),
        nullable("last_order_at", ColumnType::Timestamptz),
        too_large(),
    ],
    shown: Shown::Everywhere,
}];

/// The rule of `customer_orders`.
#[derive(Clone, Copy, Debug)]
pub struct CustomerOrders;

impl Projection for CustomerOrders {
    fn name(&self) -> &'static str {
        "customer_orders"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[CUSTOMERS]
    }

    fn models(&self) -> &'static [Model] {
        MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        if entry.category() == domain::Customer::CATEGORY {
            project_customer(entry, changes)
        } else if entry.category() == domain::Order::CATEGORY {
            project_order(entry, changes)
        } else {
            Ok(())
        }
    }
}

fn project_customer(entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
    for (event, occurred_at) in entry.events::<customer::Event>()?.iter() {
        let mut row = changes.row(&CUSTOMERS, [Value::from(entry.stream_id())]);
        match event {
            customer::Event::CustomerRegistered(registered) => row
                .put("city", registered.city.as_str())
                .put("state", registered.state.as_str())
                .put("registered_at", *occurred_at),
            customer::Event::AddressCorrected(corrected) => row
                .put("city", corrected.city.as_str())
                .put("state", corrected.state.as_str()),
        };
    }
    Ok(())
}

fn project_order(entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
    for (event, occurred_at) in entry.events::<order::Event>()?.iter() {
        match event {
            order::Event::OrderPlaced(placed) => {
                changes
                    .row(&CUSTOMERS, [Value::from(placed.customer.as_str())])
                    .put("orders", 1_i64)
                    .put("spent_minor", placed.items_minor)
                    .put("spent_minor", placed.freight_minor)
                    .put("first_order_at", *occurred_at)
                    .put("last_order_at", *occurred_at);
            }
            order::Event::OrderApproved(_)
            | order::Event::ProcessingStarted(_)
            | order::Event::OrderInvoiced(_)
            | order::Event::OrderShipped(_)
            | order::Event::OrderDelivered(_)
            | order::Event::OrderCanceled(_)
            | order::Event::OrderMarkedUnavailable(_)
            | order::Event::OrderReviewed(_) => {}
        }
    }
    Ok(())
}
