//! `seller_sales`: what was ordered from each seller, by currency; an order counts once.
//!
//! Deliberately absent: what became of it; a cancelled order was placed all the same.

use std::collections::BTreeSet;

use domain::order;
use kernel::Decider;
use projector::{
    Changes, ColumnType, Entry, Model, ProjectError, Projection, Shown, Table, Value, add, column,
    count, key, sum, tally, too_large,
};

const SELLERS: Table = Table {
    name: "seller_sales",
    key: &[
        key("seller_id", ColumnType::Text),
        key("currency", ColumnType::Text),
    ],
    values: &[
        tally("orders"),
        tally("items"),
        add("items_minor"),
        add("freight_minor"),
    ],
};

const MODELS: &[Model] = &[Model {
    name: "seller_sales",
    about: "What was ordered from each seller, by currency; an order counts once.",
    table: "seller_sales",
    joins: "",
    filter: None,
    columns: &[
        column("seller_id", ColumnType::Text),
        column("currency", ColumnType::Text),
        count("orders"),
        count("items"),
        sum("items_minor"),
        sum("freight_minor"),
        too_large(),
    ],
    shown: Shown::Everywhere,
}];

/// The rule of `seller_sales`.
#[derive(Clone, Copy, Debug)]
pub struct SellerSales;

impl Projection for SellerSales {
    fn name(&self) -> &'static str {
        "seller_sales"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[SELLERS]
    }

    fn models(&self) -> &'static [Model] {
        MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        if entry.category() != domain::Order::CATEGORY {
            return Ok(());
        }
        for (event, _) in entry.events::<order::Event>()?.iter() {
            match event {
                order::Event::OrderPlaced(placed) => count_items(placed, changes),
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
}

fn count_items(placed: &order::OrderPlaced, changes: &mut Changes) {
    let mut counted = BTreeSet::new();
    for item in &placed.items {
        let key = [
            Value::from(item.seller.as_str()),
            Value::from(placed.currency.as_str()),
        ];
        let mut row = changes.row(&SELLERS, key);
        row.put("items", 1_i64)
            .put("items_minor", item.price.amount_minor)
            .put("freight_minor", item.freight.amount_minor);
        if counted.insert(&item.seller) {
            row.put("orders", 1_i64);
        }
    }
}
