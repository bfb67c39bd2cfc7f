//! The events of an order.
//!
//! An event holds the facts that projections will need later: they cannot be added to old events.

use kernel::{Timestamp, messages};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ITEMS_MAX, Item};
use crate::vocabulary::{
    AMOUNT_MINOR_MAX, Currency, CustomerId, Reason, ReviewComment, ReviewId, ReviewTitle, integer,
    list,
};

messages! {
    /// The events of an order.
    pub enum Event {
        /// Goods were ordered.
        OrderPlaced,
        /// The order was approved: it will be paid for.
        OrderApproved,
        /// The goods are being gathered.
        ProcessingStarted,
        /// The invoice was written.
        OrderInvoiced,
        /// The goods went to the carrier.
        OrderShipped,
        /// The goods went to the customer.
        OrderDelivered,
        /// The order was canceled.
        OrderCanceled,
        /// The goods were not available.
        OrderMarkedUnavailable,
        /// The customer reviewed the order.
        OrderReviewed,
    }
}

/// Goods were ordered from sellers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderPlaced {
    /// The customer who ordered.
    pub customer: CustomerId,
    /// The ordered items, at most 200.
    #[serde(deserialize_with = "list::<_, _, ITEMS_MAX>")]
    #[schemars(length(max = ITEMS_MAX))]
    pub items: Vec<Item>,
    /// The sum of the items' prices, in minor units.
    #[serde(deserialize_with = "integer::<_, _, 0, AMOUNT_MINOR_MAX>")]
    #[schemars(range(min = 0, max = AMOUNT_MINOR_MAX))]
    pub items_minor: i64,
    /// The sum of the items' freights, in minor units.
    #[serde(deserialize_with = "integer::<_, _, 0, AMOUNT_MINOR_MAX>")]
    #[schemars(range(min = 0, max = AMOUNT_MINOR_MAX))]
    pub freight_minor: i64,
    /// The currency of all prices and freights.
    pub currency: Currency,
    /// When the order should be delivered.
    pub estimated_delivery: Timestamp,
}

/// The order was approved: it will be paid for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderApproved {}

/// The goods are being gathered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessingStarted {}

/// The invoice was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderInvoiced {}

/// The goods went to the carrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderShipped {}

/// The goods went to the customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderDelivered {
    /// When the order had been placed.
    pub placed_at: Timestamp,
    /// When the order should have been delivered.
    pub estimated_delivery: Timestamp,
}

/// The order was canceled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderCanceled {
    /// The reason.
    pub reason: Reason,
}

/// The goods were not available.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderMarkedUnavailable {}

/// The customer reviewed the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderReviewed {
    /// The review's id.
    pub review: ReviewId,
    /// From 1 (bad) to 5 (good).
    #[serde(deserialize_with = "integer::<_, _, 1, 5>")]
    #[schemars(range(min = 1, max = 5))]
    pub score: u8,
    /// The review's title, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<ReviewTitle>,
    /// The review's text, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<ReviewComment>,
}
