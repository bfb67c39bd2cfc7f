//! What the rules need to know of a payment.
//!
//! Deliberately absent: the single refunds. The events hold them; the rules need only their sum.

use kernel::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Event, PaymentCaptured};
use crate::vocabulary::Dated;

/// The state of a payment after the events so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PaymentState")]
pub struct State {
    /// When it was captured, and with which facts.
    pub captured: Option<Dated<PaymentCaptured>>,
    /// What has been refunded, in minor units of the captured currency.
    pub refunded_minor: i64,
}

impl State {
    pub(super) fn evolve(&mut self, event: &Event, occurred_at: Timestamp) {
        match event {
            Event::PaymentCaptured(captured) => {
                self.captured = Some(Dated::new(occurred_at, captured.clone()));
            }
            Event::PaymentRefunded(refunded) => {
                let amount_minor = refunded.amount.amount_minor;
                // The rules keep the sum within what was captured; a history from elsewhere must
                // not panic.
                self.refunded_minor = self.refunded_minor.saturating_add(amount_minor);
            }
        }
    }
}
