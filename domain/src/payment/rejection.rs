//! Why a command to a payment is refused, in order of precedence.

use kernel::{Timestamp, rejections};

use crate::vocabulary::{Currency, Money};

rejections! {
    /// The rules of payments that a command may break.
    #[derive(Eq)]
    pub enum Rejection {
        /// A refund needs captured money.
        NotCaptured => "payment_not_captured", "nothing was captured by this payment",
        /// A payment is captured once.
        AlreadyCaptured {
            /// When it was captured.
            captured_at: Timestamp,
        } => "payment_already_captured", "the payment was already captured at {captured_at}",
        /// No amount is below zero.
        AmountNegative {
            /// The amount of the command.
            amount: Money,
        } => "payment_amount_negative", "the amount, {amount}, is negative",
        /// No number of instalments is below zero.
        InstalmentsNegative {
            /// The number in the command.
            instalments: i64,
        } =>
            "payment_instalments_negative",
            "the number of instalments, {instalments}, is negative",
        /// A refund has the currency of the captured money.
        CurrencyDiffers {
            /// The currency of the captured money.
            captured_currency: Currency,
            /// The currency of the command.
            currency: Currency,
        } =>
            "payment_currency_differs",
            "the payment was captured in {captured_currency}, not in {currency}",
        /// Refunds never exceed the captured money.
        RefundExceeds {
            /// The amount of the command.
            amount: Money,
            /// What was captured, in minor units.
            captured_minor: i64,
            /// What was refunded before, in minor units.
            refunded_minor: i64,
        } =>
            "payment_refund_exceeds",
            "a refund of {amount} exceeds what is left: {captured_minor} captured, {refunded_minor} \
             already refunded",
    }
}
