//! The commands of a payment.

use std::fmt;

use kernel::messages;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::vocabulary::{AMOUNT_MINOR_MAX, AMOUNT_MINOR_MIN, Money, OrderId, integer};

messages! {
    /// The commands of a payment.
    pub enum Command {
        /// Takes money for an order.
        #[schemars(extend("examples" = [{
            "order": "1",
            "method": "credit_card",
            "instalments": 3,
            "amount": {"amount_minor": 33202, "currency": "BRL"}
        }]))]
        CapturePayment {
            /// The order that is paid for.
            order: OrderId,
            /// The payment method.
            method: Method,
            /// The number of instalments; 0 if the method has none.
            #[serde(deserialize_with = "integer::<_, _, AMOUNT_MINOR_MIN, AMOUNT_MINOR_MAX>")]
            #[schemars(range(min = AMOUNT_MINOR_MIN, max = AMOUNT_MINOR_MAX))]
            instalments: i64,
            /// How much is taken.
            amount: Money,
        },
        /// Gives back all or a part of what was captured.
        #[schemars(extend("examples" = [{
            "amount": {"amount_minor": 25983, "currency": "BRL"}
        }]))]
        RefundPayment {
            /// How much is given back.
            amount: Money,
        },
    }
}

/// How people pay.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Method {
    /// By credit card.
    CreditCard,
    /// By a bank slip.
    Boleto,
    /// By a voucher.
    Voucher,
    /// By debit card.
    DebitCard,
}

impl Method {
    /// Its frozen name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreditCard => "credit_card",
            Self::Boleto => "boleto",
            Self::Voucher => "voucher",
            Self::DebitCard => "debit_card",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
