//! `daily_sales`: what was ordered on each UTC day, by currency.
//!
//! Deliberately absent: what became of it; a cancelled order was placed all the same.

use domain::order;
use kernel::Decider;
use projector::{
    Changes, ColumnType, Entry, Model, ProjectError, Projection, Shown, Table, Value, add, column,
    count, count_of, key, sum, tally, too_large,
};

use crate::day_of;

const DAYS: Table = Table {
    name: "daily_sales",
    key: &[
        key("day", ColumnType::Date),
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
    name: "daily_sales",
    about: "What was ordered on each UTC day of placing, by currency.",
    table: "daily_sales",
    joins: "",
    filter: None,
    columns: &[
        column("day", ColumnType::Date),
        column("currency", ColumnType::Text),
        count("orders"),
        count("items"),
        sum("items_minor"),
        sum("freight_minor"),
        too_large(),
    ],
    shown: Shown::Everywhere,
}];

/// The rule of `daily_sales`.
#[derive(Clone, Copy, Debug)]
pub struct DailySales;

impl Projection for DailySales {
    fn name(&self) -> &'static str {
        "daily_sales"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[DAYS]
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
                order::Event::OrderPlaced(placed) => {
                    let day = Value::from(day_of(*occurred_at));
                    let currency = Value::from(placed.currency.as_str());
                    changes
                        .row(&DAYS, [day, currency])
                        .put("orders", 1_i64)
                        .put("items", count_of(placed.items.len()))
                        .put("items_minor", placed.items_minor)
                        .put("freight_minor", placed.freight_minor);
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
}
