//! Why a command to an order is refused, in order of precedence.

use kernel::{Timestamp, rejections};

use crate::vocabulary::{Currency, Money, ReviewId};

rejections! {
    /// The rules of orders that a command may break.
    #[derive(Eq)]
    pub enum Rejection {
        /// An order takes no step before it is placed.
        NotPlaced => "order_not_placed", "the order was never placed",
        /// An order is placed once.
        AlreadyPlaced {
            /// When it was placed.
            placed_at: Timestamp,
        } => "order_already_placed", "the order was already placed at {placed_at}",
        /// An order has at least one item.
        HasNoItems => "order_has_no_items", "the order has no items",
        /// Each item has a line number of its own.
        LinesRepeat {
            /// The first line number that repeats.
            line: u32,
        } => "order_lines_repeat", "the order has two items with line number {line}",
        /// An order has one currency.
        CurrenciesMixed {
            /// The first line with another currency than the order's first price.
            line: u32,
            /// The currency of the order's first price.
            currency: Currency,
            /// The other currency.
            other_currency: Currency,
        } =>
            "order_currencies_mixed",
            "the order mixes the currencies {currency} and {other_currency}",
        /// Each price is above zero.
        PriceNotPositive {
            /// The first such line.
            line: u32,
            /// Its price.
            price: Money,
        } => "order_price_not_positive", "the price of line {line}, {price}, is not positive",
        /// No freight is below zero.
        FreightNegative {
            /// The first such line.
            line: u32,
            /// Its freight.
            freight: Money,
        } => "order_freight_negative", "the freight of line {line}, {freight}, is negative",
        /// The sum of items and freight is an amount, too, and has the same limit.
        TotalTooLarge {
            /// The largest amount, in minor units.
            total_minor_max: i64,
        } =>
            "order_total_too_large",
            "items and freight together exceed {total_minor_max} minor units",
        /// A cancelled order takes no further step.
        Canceled {
            /// When it was cancelled.
            canceled_at: Timestamp,
        } => "order_canceled", "the order was canceled at {canceled_at}",
        /// An unavailable order takes no further step.
        Unavailable {
            /// When it became unavailable.
            unavailable_at: Timestamp,
        } => "order_unavailable", "the order was marked unavailable at {unavailable_at}",
        /// A delivered order takes no further step.
        AlreadyDelivered {
            /// When it was delivered.
            delivered_at: Timestamp,
        } => "order_already_delivered", "the order was already delivered at {delivered_at}",
        /// An order is approved once.
        AlreadyApproved {
            /// When it was approved.
            approved_at: Timestamp,
        } => "order_already_approved", "the order was already approved at {approved_at}",
        /// Processing starts once.
        AlreadyProcessing {
            /// When it started.
            processing_at: Timestamp,
        } => "order_already_processing", "processing already started at {processing_at}",
        /// An order is invoiced once.
        AlreadyInvoiced {
            /// When it was invoiced.
            invoiced_at: Timestamp,
        } => "order_already_invoiced", "the order was already invoiced at {invoiced_at}",
        /// An order is shipped once. Processing, invoicing and unavailability must come before it.
        AlreadyShipped {
            /// When it was shipped.
            shipped_at: Timestamp,
        } => "order_already_shipped", "the order was already shipped at {shipped_at}",
        /// An order must be approved before it is processed, invoiced or shipped.
        NotApproved {
            /// When it was placed.
            placed_at: Timestamp,
        } => "order_not_approved", "the order is not approved",
        /// An order must be shipped before it is delivered.
        NotShipped {
            /// When it was placed.
            placed_at: Timestamp,
        } => "order_not_shipped", "the order is not shipped",
        /// A review id is used once per order.
        ReviewAlreadyGiven {
            /// The review's id.
            review: ReviewId,
            /// When it was given.
            reviewed_at: Timestamp,
        } => "review_already_given", "the review {review} was already given at {reviewed_at}",
    }
}
