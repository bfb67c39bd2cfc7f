//! Why a command to a payment is refused, in order of precedence.

use kernel::{Timestamp, facts_of};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::vocabulary::{Currency, Money};

/// The rules of payments that a command may break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(untagged)]
pub enum Rejection {
    /// A refund needs captured money.
    #[error("nothing was captured by this payment")]
    NotCaptured,
    /// A payment is captured once.
    #[error("the payment was already captured at {captured_at}")]
    AlreadyCaptured {
        /// When it was captured.
        captured_at: Timestamp,
    },
    /// No amount is below zero.
    #[error("the amount, {amount}, is negative")]
    AmountNegative {
        /// The amount of the command.
        amount: Money,
    },
    /// No number of instalments is below zero.
    #[error("the number of instalments, {instalments}, is negative")]
    InstalmentsNegative {
        /// The number in the command.
        instalments: i64,
    },
    /// A refund has the currency of the captured money.
    #[error("the payment was captured in {captured_currency}, not in {currency}")]
    CurrencyDiffers {
        /// The currency of the captured money.
        captured_currency: Currency,
        /// The currency of the command.
        currency: Currency,
    },
    /// Refunds never exceed the captured money.
    #[error(
        "a refund of {amount} exceeds what is left: {captured_minor} captured, {refunded_minor} \
         already refunded"
    )]
    RefundExceeds {
        /// The amount of the command.
        amount: Money,
        /// What was captured, in minor units.
        captured_minor: i64,
        /// What was refunded before, in minor units.
        refunded_minor: i64,
    },
}

impl kernel::Rejection for Rejection {
    fn code(&self) -> &str {
        match self {
            Self::NotCaptured => "payment_not_captured",
            Self::AlreadyCaptured { .. } => "payment_already_captured",
            Self::AmountNegative { .. } => "payment_amount_negative",
            Self::InstalmentsNegative { .. } => "payment_instalments_negative",
            Self::CurrencyDiffers { .. } => "payment_currency_differs",
            Self::RefundExceeds { .. } => "payment_refund_exceeds",
        }
    }

    fn facts(&self) -> Map<String, Value> {
        facts_of(self)
    }
}
