//! `payment_mix`: how people pay, by method and currency.
//!
//! Invariant: every payment counts, whether its order was ever placed or not.

use domain::payment;
use kernel::Decider;
use projector::{
    Changes, ColumnType, Entry, Model, ProjectError, Projection, Shown, Table, Value, add, column,
    count, key, max, sum, tally, too_large,
};

const METHODS: Table = Table {
    name: "payment_mix",
    key: &[
        key("method", ColumnType::Text),
        key("currency", ColumnType::Text),
    ],
    values: &[
        tally("payments"),
        add("captured_minor"),
        add("refunded_minor"),
        max("instalments_max", ColumnType::Bigint),
    ],
};

const MODELS: &[Model] = &[Model {
    name: "payment_mix",
    about: "Payments by method and currency, with what was given back.",
    table: "payment_mix",
    joins: "",
    filter: None,
    columns: &[
        column("method", ColumnType::Text),
        column("currency", ColumnType::Text),
        count("payments"),
        sum("captured_minor"),
        sum("refunded_minor"),
        count("instalments_max"),
        too_large(),
    ],
    shown: Shown::Everywhere,
}];

/// The rule of `payment_mix`.
#[derive(Clone, Copy, Debug)]
pub struct PaymentMix;

impl Projection for PaymentMix {
    fn name(&self) -> &'static str {
        "payment_mix"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[METHODS]
    }

    fn models(&self) -> &'static [Model] {
        MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        if entry.category() != domain::Payment::CATEGORY {
            return Ok(());
        }
        for (event, _) in entry.events::<payment::Event>()?.iter() {
            match event {
                payment::Event::PaymentCaptured(captured) => {
                    let key = [
                        Value::from(captured.method.as_str()),
                        Value::from(captured.amount.currency.as_str()),
                    ];
                    changes
                        .row(&METHODS, key)
                        .put("payments", 1_i64)
                        .put("captured_minor", captured.amount.amount_minor)
                        .put("instalments_max", captured.instalments);
                }
                payment::Event::PaymentRefunded(refunded) => {
                    let key = [
                        Value::from(refunded.method.as_str()),
                        Value::from(refunded.amount.currency.as_str()),
                    ];
                    changes
                        .row(&METHODS, key)
                        .put("refunded_minor", refunded.amount.amount_minor);
                }
            }
        }
        Ok(())
    }
}
