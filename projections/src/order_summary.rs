//! `order_summary`: one row per order that was placed, with its payments.
//!
//! Invariant: all columns of `order_summary` except those of payments are written by the order's
//! own stream. Payments are kept by currency in a second table, since a payment may come before its
//! order. A row shows the payments in the order's currency. Deliberately absent: payments without
//! an order; they make no row here.

use domain::order::{
    OrderApproved, OrderCanceled, OrderDelivered, OrderInvoiced, OrderMarkedUnavailable,
    OrderPlaced, OrderReviewed, OrderShipped, ProcessingStarted,
};
use domain::payment::{PaymentCaptured, PaymentRefunded};
use domain::vocabulary::{Money, OrderId};
use domain::{Order, Payment};
use kernel::Decider as _;
use projector::ColumnType::{Bigint, Text, Timestamptz};
use projector::{
    Changes, Envelope, KeyIs, Row, Rules, Table, Value, View, add, asc, computed, count_of, index,
    key, set, sum_of, tally,
};

const ORDERS: Table = Table {
    name: "order_summary",
    about: "Orders that were placed, with their state, sums, payments and reviews.",
    key: &[key("order_id", Text, "The order.")],
    values: &[
        set("customer_id", Text, "The customer who placed it.").shortened(),
        set(
            "status",
            Text,
            "What became of it last: placed, approved, processing, invoiced, shipped, delivered, canceled or unavailable.",
        )
        .shortened(),
        set("placed_at", Timestamptz, "When it was placed."),
        set("approved_at", Timestamptz, "When it was approved.").nullable(),
        set("shipped_at", Timestamptz, "When it went to the carrier.").nullable(),
        set("delivered_at", Timestamptz, "When it went to the customer.").nullable(),
        set(
            "estimated_delivery_at",
            Timestamptz,
            "When it should be delivered.",
        ),
        set("canceled_at", Timestamptz, "When it was given up.").nullable(),
        set("item_count", Bigint, "How many items it has."),
        set(
            "items_minor",
            Bigint,
            "The items' prices together, in minor units.",
        ),
        set(
            "freight_minor",
            Bigint,
            "Their freights together, in minor units.",
        ),
        set("currency", Text, "The currency of its amounts (ISO 4217)."),
        tally("review_count", "How many reviews it has."),
        tally("review_score_sum", "The sum of their scores."),
        set("version", Bigint, "How many events the order has."),
    ],
    view: View {
        filter: Some("r.placed_at IS NOT NULL"),
        joins: "LEFT JOIN {order_payment} AS p ON p.tenant = r.tenant \
                AND p.order_id = r.order_id AND p.currency = r.currency",
        computed: &[
            sum_of(
                "captured_minor",
                "coalesce(p.captured_minor, 0)",
                "What was captured of its payments, in minor units.",
            ),
            sum_of(
                "refunded_minor",
                "coalesce(p.refunded_minor, 0)",
                "What was given back of it, in minor units.",
            ),
            computed(
                "payment_count",
                Bigint,
                "coalesce(p.payment_count, 0)",
                "How many payments were captured.",
            ),
        ],
        ..View::WHOLE
    },
    key_is: KeyIs::StreamId(Order::CATEGORY),
    indexes: &[
        index(&[asc("status"), asc("placed_at")]),
        index(&[asc("customer_id"), asc("placed_at")]),
        index(&[asc("placed_at")]),
    ],
    ..Table::PLAIN
};

const PAYMENTS: Table = Table {
    name: "order_payment",
    about: "Payments by order and currency.",
    key: &[
        key("order_id", Text, "The order."),
        key("currency", Text, "The amounts' currency (ISO 4217)."),
    ],
    values: &[
        add("captured_minor", "What was captured, in minor units."),
        add("refunded_minor", "What was given back, in minor units."),
        tally("payment_count", "How many payments were captured."),
    ],
    view: View::NONE,
    ..Table::PLAIN
};

pub(crate) fn rules() -> Rules {
    Rules::new("order_summary", 3, &[ORDERS, PAYMENTS])
        .on::<Order, OrderPlaced>(|placed, event, changes| {
            order(event, changes)
                .put("status", "placed")
                .put("placed_at", event.occurred_at())
                .put("customer_id", placed.customer.as_str())
                .put("estimated_delivery_at", placed.estimated_delivery)
                .put("item_count", count_of(placed.items.len()))
                .put("items_minor", placed.items_minor)
                .put("freight_minor", placed.freight_minor)
                .put("currency", placed.currency.as_str());
        })
        .on::<Order, OrderApproved>(|_, event, changes| {
            order(event, changes)
                .put("status", "approved")
                .put("approved_at", event.occurred_at());
        })
        .on::<Order, ProcessingStarted>(|_, event, changes| {
            order(event, changes).put("status", "processing");
        })
        .on::<Order, OrderInvoiced>(|_, event, changes| {
            order(event, changes).put("status", "invoiced");
        })
        .on::<Order, OrderShipped>(|_, event, changes| {
            order(event, changes)
                .put("status", "shipped")
                .put("shipped_at", event.occurred_at());
        })
        .on::<Order, OrderDelivered>(|_, event, changes| {
            order(event, changes)
                .put("status", "delivered")
                .put("delivered_at", event.occurred_at());
        })
        .on::<Order, OrderCanceled>(|_, event, changes| {
            order(event, changes)
                .put("status", "canceled")
                .put("canceled_at", event.occurred_at());
        })
        .on::<Order, OrderMarkedUnavailable>(|_, event, changes| {
            order(event, changes).put("status", "unavailable");
        })
        .on::<Order, OrderReviewed>(|reviewed, event, changes| {
            order(event, changes)
                .put("review_count", 1_i64)
                .put("review_score_sum", i64::from(reviewed.score));
        })
        .on::<Payment, PaymentCaptured>(|captured, _, changes| {
            payments(&captured.order, &captured.amount, changes)
                .put("captured_minor", captured.amount.amount_minor)
                .put("payment_count", 1_i64);
        })
        .on::<Payment, PaymentRefunded>(|refunded, _, changes| {
            payments(&refunded.order, &refunded.amount, changes)
                .put("refunded_minor", refunded.amount.amount_minor);
        })
}

/// The row of the order that an event belongs to.
fn order<'c>(event: &Envelope<'_>, changes: &'c mut Changes) -> Row<'c> {
    let mut row = changes.row(&ORDERS, [Value::from(event.stream_id())]);
    row.put("version", count_of(event.commit_version()));
    row
}

/// The row with an order's payments in the currency of `amount`.
fn payments<'c>(order: &OrderId, amount: &Money, changes: &'c mut Changes) -> Row<'c> {
    let key = [order.as_str(), amount.currency.as_str()];
    changes.row(&PAYMENTS, key.map(Value::from))
}
