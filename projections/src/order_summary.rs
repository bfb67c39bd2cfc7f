//! `order_summary`: one row per order that was placed, with its payments.
//!
//! Invariant: all columns of `order_summary` but those of reviews are written by the order's own
//! stream. Payments are kept by currency beside it, since they may come before their order does;
//! a row shows those in the order's currency. Deliberately absent: payments of orders that never
//! were; they make no row here.

use domain::{order, payment};
use kernel::{Decider, Timestamp};
use projector::{
    Changes, ColumnType, Entry, Model, ModelColumn, ProjectError, Projection, Row, Shown, Table,
    Value, add, column, computed, count, count_of, key, nullable, set, sum_of, tally, too_large,
};

const ORDERS: Table = Table {
    name: "order_summary",
    key: &[key("order_id", ColumnType::Text)],
    values: &[
        set("customer_id", ColumnType::Text),
        set("status", ColumnType::Text),
        set("placed_at", ColumnType::Timestamptz),
        set("approved_at", ColumnType::Timestamptz),
        set("shipped_at", ColumnType::Timestamptz),
        set("delivered_at", ColumnType::Timestamptz),
        set("estimated_delivery_at", ColumnType::Timestamptz),
        set("canceled_at", ColumnType::Timestamptz),
        set("item_count", ColumnType::Bigint),
        set("items_minor", ColumnType::Bigint),
        set("freight_minor", ColumnType::Bigint),
        set("currency", ColumnType::Text),
        tally("review_count"),
        tally("review_score_sum"),
        set("version", ColumnType::Bigint),
    ],
};

const PAYMENTS: Table = Table {
    name: "order_payment",
    key: &[
        key("order_id", ColumnType::Text),
        key("currency", ColumnType::Text),
    ],
    values: &[
        add("captured_minor"),
        add("refunded_minor"),
        tally("payment_count"),
    ],
};

const COLUMNS: &[ModelColumn] = &[
    column("order_id", ColumnType::Text),
    column("customer_id", ColumnType::Text),
    column("status", ColumnType::Text),
    column("placed_at", ColumnType::Timestamptz),
    nullable("approved_at", ColumnType::Timestamptz),
    nullable("shipped_at", ColumnType::Timestamptz),
    nullable("delivered_at", ColumnType::Timestamptz),
    column("estimated_delivery_at", ColumnType::Timestamptz),
    nullable("canceled_at", ColumnType::Timestamptz),
    column("item_count", ColumnType::Bigint),
    column("items_minor", ColumnType::Bigint),
    column("freight_minor", ColumnType::Bigint),
    column("currency", ColumnType::Text),
    sum_of("captured_minor", "coalesce(p.captured_minor, 0)"),
    sum_of("refunded_minor", "coalesce(p.refunded_minor, 0)"),
    computed("payment_count", "coalesce(p.payment_count, 0)"),
    count("review_count"),
    count("review_score_sum"),
    column("version", ColumnType::Bigint),
    too_large(),
];

const MODELS: &[Model] = &[Model {
    name: "order_summary",
    about: "Orders that were placed, with their state, sums, payments and reviews.",
    table: "order_summary",
    joins: "LEFT JOIN {order_payment} AS p ON p.tenant = r.tenant \
            AND p.order_id = r.order_id AND p.currency = r.currency",
    filter: Some("r.placed_at IS NOT NULL"),
    columns: COLUMNS,
    shown: Shown::Everywhere,
}];

/// The rule of `order_summary`.
#[derive(Clone, Copy, Debug)]
pub struct OrderSummary;

impl Projection for OrderSummary {
    fn name(&self) -> &'static str {
        "order_summary"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[ORDERS, PAYMENTS]
    }

    fn models(&self) -> &'static [Model] {
        MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        if entry.category() == domain::Order::CATEGORY {
            project_order(entry, changes)
        } else if entry.category() == domain::Payment::CATEGORY {
            project_payment(entry, changes)
        } else {
            Ok(())
        }
    }
}

fn project_order(entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
    let events = entry.events::<order::Event>()?;
    if events.is_empty() {
        return Ok(());
    }
    let mut row = changes.row(&ORDERS, [Value::from(entry.stream_id())]);
    for (event, occurred_at) in events.iter() {
        contribute(&mut row, event, *occurred_at);
    }
    row.put("version", count_of(entry.commit().version()));
    Ok(())
}

fn contribute(row: &mut Row<'_>, event: &order::Event, occurred_at: Timestamp) {
    match event {
        order::Event::OrderPlaced(placed) => row
            .put("status", "placed")
            .put("placed_at", occurred_at)
            .put("customer_id", placed.customer.as_str())
            .put("estimated_delivery_at", placed.estimated_delivery)
            .put("item_count", count_of(placed.items.len()))
            .put("items_minor", placed.items_minor)
            .put("freight_minor", placed.freight_minor)
            .put("currency", placed.currency.as_str()),
        order::Event::OrderApproved(_) => row
            .put("status", "approved")
            .put("approved_at", occurred_at),
        order::Event::ProcessingStarted(_) => row.put("status", "processing"),
        order::Event::OrderInvoiced(_) => row.put("status", "invoiced"),
        order::Event::OrderShipped(_) => {
            row.put("status", "shipped").put("shipped_at", occurred_at)
        }
        order::Event::OrderDelivered(_) => row
            .put("status", "delivered")
            .put("delivered_at", occurred_at),
        order::Event::OrderCanceled(_) => row
            .put("status", "canceled")
            .put("canceled_at", occurred_at),
        order::Event::OrderMarkedUnavailable(_) => row.put("status", "unavailable"),
        order::Event::OrderReviewed(reviewed) => row
            .put("review_count", 1_i64)
            .put("review_score_sum", i64::from(reviewed.score)),
    };
}

fn project_payment(entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
    for (event, _) in entry.events::<payment::Event>()?.iter() {
        let (order, amount) = match event {
            payment::Event::PaymentCaptured(captured) => (&captured.order, captured.amount),
            payment::Event::PaymentRefunded(refunded) => (&refunded.order, refunded.amount),
        };
        let key = [
            Value::from(order.as_str()),
            Value::from(amount.currency.as_str()),
        ];
        let mut row = changes.row(&PAYMENTS, key);
        match event {
            payment::Event::PaymentCaptured(_) => row
                .put("captured_minor", amount.amount_minor)
                .put("payment_count", 1_i64),
            payment::Event::PaymentRefunded(_) => row.put("refunded_minor", amount.amount_minor),
        };
    }
    Ok(())
}
