//! Why a request to a payment is refused, in order of precedence.

use kernel::{Timestamp, facts_of};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::vocabulary::{Currency, Money};

/// The rules of payments that a command may break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(untagged)]
pub enum Rejection {
    /// Only captured money can be given back.
    #[error("nothing was captured by this payment")]
    NotCaptured,
    /// A payment is captured once.
    #[error("the payment was already captured at {captured_at}")]
    AlreadyCaptured {
        /// When it was captured.
        captured_at: Timestamp,
    },
    /// Nobody takes or gives back less than nothing.
    #[error("an amount of {amount} is negative")]
    AmountNegative {
        /// What was asked for.
        amount: Money,
    },
    /// There is no number of instalments below none.
    #[error("{instalments} instalments are less than none")]
    InstalmentsNegative {
        /// What was asked for.
        instalments: i64,
    },
    /// Money goes back in the currency in which it came.
    #[error("the payment was captured in {captured_currency}, not in {currency}")]
    CurrencyDiffers {
        /// The currency of what was captured.
        captured_currency: Currency,
        /// The currency that was asked for.
        currency: Currency,
    },
    /// No more is given back than was taken.
    #[error(
        "a refund of {amount} exceeds what is left: {captured_minor} captured, {refunded_minor} \
         already refunded"
    )]
    RefundExceeds {
        /// What was asked for.
        amount: Money,
        /// What was captured, in minor units.
        captured_minor: i64,
        /// What had been given back before, in minor units.
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
