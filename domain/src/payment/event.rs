//! The events of a payment.

use kernel::messages;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Method;
use crate::vocabulary::{AMOUNT_MINOR_MAX, Money, OrderId, integer};

messages! {
    /// The events of a payment.
    pub enum Event {
        /// The money was taken.
        PaymentCaptured,
        /// Money was given back.
        PaymentRefunded,
    }
}

/// Money was taken for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentCaptured {
    /// The order that is paid for.
    pub order: OrderId,
    /// The payment method.
    pub method: Method,
    /// The number of instalments; 0 if the method has none.
    #[serde(deserialize_with = "integer::<_, _, 0, AMOUNT_MINOR_MAX>")]
    #[schemars(range(min = 0, max = AMOUNT_MINOR_MAX))]
    pub instalments: i64,
    /// How much was taken.
    pub amount: Money,
}

/// All or a part of the captured money was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentRefunded {
    /// The order that was paid for.
    pub order: OrderId,
    /// The payment method of the capture.
    pub method: Method,
    /// How much was given back this time.
    pub amount: Money,
}
