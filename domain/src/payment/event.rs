//! The events of a payment.

use kernel::messages;

use super::Method;
use crate::vocabulary::{AMOUNT_MINOR_MAX, Money, OrderId, integer};

messages! {
    /// The events of a payment.
    pub enum Event {
        /// Money was taken for an order.
        #[schemars(extend("examples" = [{
            "order": "1",
            "method": "credit_card",
            "instalments": 3,
            "amount": {"amount_minor": 33202, "currency": "BRL"}
        }]))]
        PaymentCaptured {
            /// The order that is paid for.
            order: OrderId,
            /// The payment method.
            method: Method,
            /// The number of instalments; 0 if the method has none.
            #[serde(deserialize_with = "integer::<_, _, 0, AMOUNT_MINOR_MAX>")]
            #[schemars(range(min = 0, max = AMOUNT_MINOR_MAX))]
            instalments: i64,
            /// How much was taken.
            amount: Money,
        },
        /// All or a part of the captured money was given back.
        #[schemars(extend("examples" = [{
            "order": "1",
            "method": "credit_card",
            "amount": {"amount_minor": 25983, "currency": "BRL"}
        }]))]
        PaymentRefunded {
            /// The order that was paid for.
            order: OrderId,
            /// The payment method of the capture.
            method: Method,
            /// How much was given back this time.
            amount: Money,
        },
    }
}
