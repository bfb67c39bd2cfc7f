//! `seller_sales`: what was ordered from each seller, by currency; an order counts once.
//!
//! Deliberately absent: what happened to an order afterwards; a cancelled order counts, too.

use std::collections::BTreeSet;

use domain::Order;
use domain::order::OrderPlaced;
use projector::ColumnType::Text;
use projector::{Rules, Table, Value, add, key, tally};

const SELLERS: Table = Table {
    name: "seller_sales",
    about: "What was ordered from each seller, by currency; an order counts once.",
    key: &[
        key("seller_id", Text, "The seller."),
        key("currency", Text, "The amounts' currency (ISO 4217)."),
    ],
    values: &[
        tally("orders", "Orders with an item of the seller."),
        tally("items", "Items ordered from the seller."),
        add("items_minor", "Their prices together, in minor units."),
        add("freight_minor", "Their freights together, in minor units."),
    ],
    ..Table::PLAIN
};

pub(crate) fn rules() -> Rules {
    Rules::new("seller_sales", 1, &[SELLERS]).on::<Order, OrderPlaced>(|placed, _, changes| {
        let mut counted = BTreeSet::new();
        for item in &placed.items {
            let key = [item.seller.as_str(), placed.currency.as_str()].map(Value::from);
            let mut row = changes.row(&SELLERS, key);
            row.put("items", 1_i64)
                .put("items_minor", item.price.amount_minor)
                .put("freight_minor", item.freight.amount_minor);
            if counted.insert(&item.seller) {
                row.put("orders", 1_i64);
            }
        }
    })
}
