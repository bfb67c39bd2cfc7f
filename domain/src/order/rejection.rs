//! Why a command to an order is refused, in order of precedence.

use kernel::{Timestamp, facts_of};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::vocabulary::{Currency, Money, ReviewId};

/// The rules of orders that a command may break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(untagged)]
pub enum Rejection {
    /// An order takes no step before it is placed.
    #[error("the order was never placed")]
    NotPlaced,
    /// An order is placed once.
    #[error("the order was already placed at {placed_at}")]
    AlreadyPlaced {
        /// When it was placed.
        placed_at: Timestamp,
    },
    /// An order has at least one item.
    #[error("the order has no items")]
    HasNoItems,
    /// Each item has a line number of its own.
    #[error("the order has two items with line number {line}")]
    LinesRepeat {
        /// The first line number that repeats.
        line: u32,
    },
    /// An order has one currency.
    #[error("the order mixes the currencies {currency} and {other_currency}")]
    CurrenciesMixed {
        /// The first line with another currency than the order's first price.
        line: u32,
        /// The currency of the order's first price.
        currency: Currency,
        /// The other currency.
        other_currency: Currency,
    },
    /// Each price is above zero.
    #[error("the price of line {line}, {price}, is not positive")]
    PriceNotPositive {
        /// The first such line.
        line: u32,
        /// Its price.
        price: Money,
    },
    /// No freight is below zero.
    #[error("the freight of line {line}, {freight}, is negative")]
    FreightNegative {
        /// The first such line.
        line: u32,
        /// Its freight.
        freight: Money,
    },
    /// The sum of items and freight is an amount, too, and has the same limit.
    #[error("items and freight together exceed {total_minor_max} minor units")]
    TotalTooLarge {
        /// The largest amount, in minor units.
        total_minor_max: i64,
    },
    /// A cancelled order takes no further step.
    #[error("the order was canceled at {canceled_at}")]
    Canceled {
        /// When it was cancelled.
        canceled_at: Timestamp,
    },
    /// An unavailable order takes no further step.
    #[error("the order was marked unavailable at {unavailable_at}")]
    Unavailable {
        /// When it became unavailable.
        unavailable_at: Timestamp,
    },
    /// A delivered order takes no further step.
    #[error("the order was already delivered at {delivered_at}")]
    AlreadyDelivered {
        /// When it was delivered.
        delivered_at: Timestamp,
    },
    /// An order is approved once.
    #[error("the order was already approved at {approved_at}")]
    AlreadyApproved {
        /// When it was approved.
        approved_at: Timestamp,
    },
    /// Processing starts once.
    #[error("processing already started at {processing_at}")]
    AlreadyProcessing {
        /// When it started.
        processing_at: Timestamp,
    },
    /// An order is invoiced once.
    #[error("the order was already invoiced at {invoiced_at}")]
    AlreadyInvoiced {
        /// When it was invoiced.
        invoiced_at: Timestamp,
    },
    /// An order is shipped once. Processing, invoicing and unavailability must come before it.
    #[error("the order was already shipped at {shipped_at}")]
    AlreadyShipped {
        /// When it was shipped.
        shipped_at: Timestamp,
    },
    /// An order must be approved before it is processed, invoiced or shipped.
    #[error("the order is not approved")]
    NotApproved {
        /// When it was placed.
        placed_at: Timestamp,
    },
    /// An order must be shipped before it is delivered.
    #[error("the order is not shipped")]
    NotShipped {
        /// When it was placed.
        placed_at: Timestamp,
    },
    /// A review id is used once per order.
    #[error("the review {review} was already given at {reviewed_at}")]
    ReviewAlreadyGiven {
        /// The review's id.
        review: ReviewId,
        /// When it was given.
        reviewed_at: Timestamp,
    },
}

impl kernel::Rejection for Rejection {
    fn code(&self) -> &str {
        match self {
            Self::NotPlaced => "order_not_placed",
            Self::AlreadyPlaced { .. } => "order_already_placed",
            Self::HasNoItems => "order_has_no_items",
            Self::LinesRepeat { .. } => "order_lines_repeat",
            Self::CurrenciesMixed { .. } => "order_currencies_mixed",
            Self::PriceNotPositive { .. } => "order_price_not_positive",
            Self::FreightNegative { .. } => "order_freight_negative",
            Self::TotalTooLarge { .. } => "order_total_too_large",
            Self::Canceled { .. } => "order_canceled",
            Self::Unavailable { .. } => "order_unavailable",
            Self::AlreadyDelivered { .. } => "order_already_delivered",
            Self::AlreadyApproved { .. } => "order_already_approved",
            Self::AlreadyProcessing { .. } => "order_already_processing",
            Self::AlreadyInvoiced { .. } => "order_already_invoiced",
            Self::AlreadyShipped { .. } => "order_already_shipped",
            Self::NotApproved { .. } => "order_not_approved",
            Self::NotShipped { .. } => "order_not_shipped",
            Self::ReviewAlreadyGiven { .. } => "review_already_given",
        }
    }

    fn facts(&self) -> Map<String, Value> {
        facts_of(self)
    }
}
