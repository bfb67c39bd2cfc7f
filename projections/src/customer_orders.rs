//! `customer_orders`: one row per registered customer, with what they ordered.
//!
//! Invariant: address columns are written by the customer's own stream, the sums by the streams of
//! the customer's orders. Deliberately absent: orders of people who are not registered; their sums
//! are kept, and are shown once they register.

use domain::customer::{AddressCorrected, CustomerRegistered};
use domain::order::OrderPlaced;
use domain::{Customer, Order};
use kernel::Decider as _;
use projector::ColumnType::{Text, Timestamptz};
use projector::{KeyIs, Rules, Table, Value, View, add, key, max, min, set, tally};

const CUSTOMERS: Table = Table {
    name: "customer_orders",
    about: "Registered customers, where they live, and what they ordered.",
    key: &[key("customer_id", Text, "The customer.")],
    values: &[
        set("city", Text, "The city of the present address."),
        set("state", Text, "The state of the present address."),
        set("registered_at", Timestamptz, "When they were registered."),
        tally("orders", "How many orders they placed."),
        add("spent_minor", "Prices and freights, in minor units."),
        min("first_order_at", Timestamptz, "When the first was placed.").nullable(),
        max("last_order_at", Timestamptz, "When the last was placed.").nullable(),
    ],
    view: View {
        filter: Some("r.registered_at IS NOT NULL"),
        ..View::WHOLE
    },
    key_is: KeyIs::StreamId(Customer::CATEGORY),
    ..Table::PLAIN
};

pub(crate) fn rules() -> Rules {
    Rules::new("customer_orders", 2, &[CUSTOMERS])
        .on::<Customer, CustomerRegistered>(|registered, event, changes| {
            changes
                .row(&CUSTOMERS, [Value::from(event.stream_id())])
                .put("city", registered.city.as_str())
                .put("state", registered.state.as_str())
                .put("registered_at", event.occurred_at());
        })
        .on::<Customer, AddressCorrected>(|corrected, event, changes| {
            changes
                .row(&CUSTOMERS, [Value::from(event.stream_id())])
                .put("city", corrected.city.as_str())
                .put("state", corrected.state.as_str());
        })
        .on::<Order, OrderPlaced>(|placed, event, changes| {
            changes
                .row(&CUSTOMERS, [Value::from(placed.customer.as_str())])
                .put("orders", 1_i64)
                .put("spent_minor", placed.items_minor)
                .put("spent_minor", placed.freight_minor)
                .put("first_order_at", event.occurred_at())
                .put("last_order_at", event.occurred_at());
        })
}
