//! `payment_mix`: how people pay, by method and currency.
//!
//! Invariant: every payment counts, even if its order was never placed.

use domain::Payment;
use domain::payment::{PaymentCaptured, PaymentRefunded};
use projector::ColumnType::{Bigint, Text};
use projector::{Rules, Table, Value, View, add, key, max, tally};

const METHODS: Table = Table {
    name: "payment_mix",
    about: "Payments by method and currency, with what was given back.",
    key: &[
        key("method", Text, "How it was paid."),
        key("currency", Text, "The amounts' currency (ISO 4217)."),
    ],
    values: &[
        tally("payments", "How many payments were captured."),
        add("captured_minor", "What was captured, in minor units."),
        add("refunded_minor", "What was given back, in minor units."),
        max(
            "instalments_max",
            Bigint,
            "The most instalments of a payment.",
        )
        .or_zero(),
    ],
    view: View::FEW_ROWS,
    ..Table::PLAIN
};

pub(crate) fn rules() -> Rules {
    Rules::new("payment_mix", 1, &[METHODS])
        .on::<Payment, PaymentCaptured>(|captured, _, changes| {
            let key = [captured.method.as_str(), captured.amount.currency.as_str()];
            changes
                .row(&METHODS, key.map(Value::from))
                .put("payments", 1_i64)
                .put("captured_minor", captured.amount.amount_minor)
                .put("instalments_max", captured.instalments);
        })
        .on::<Payment, PaymentRefunded>(|refunded, _, changes| {
            let key = [refunded.method.as_str(), refunded.amount.currency.as_str()];
            changes
                .row(&METHODS, key.map(Value::from))
                .put("refunded_minor", refunded.amount.amount_minor);
        })
}
