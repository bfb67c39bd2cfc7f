//! What is remembered of a payment.
//!
//! Deliberately absent: each refund by itself. The events tell them; the rules ask for their sum.

use kernel::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Event, PaymentCaptured};

/// A payment as its events tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// When and as what it was captured.
    pub captured: Option<(Timestamp, PaymentCaptured)>,
    /// What was given back so far, in minor units of the captured currency.
    pub refunded_minor: i64,
}

impl State {
    pub(super) fn evolve(&mut self, event: &Event, occurred_at: Timestamp) {
        match event {
            Event::PaymentCaptured(captured) => {
                self.captured = Some((occurred_at, captured.clone()));
            }
            Event::PaymentRefunded(refunded) => {
                let amount_minor = refunded.amount.amount_minor;
                // The rules keep the sum within what was captured; foreign history must not panic.
                self.refunded_minor = self.refunded_minor.saturating_add(amount_minor);
            }
        }
    }
}
