//! The commands of an order.

use kernel::{Timestamp, messages};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::vocabulary::{
    CustomerId, Money, ProductId, Reason, ReviewComment, ReviewId, ReviewTitle, SellerId, integer,
    list,
};

/// The most items an order may have.
pub const ITEMS_MAX: usize = 200;
/// The largest line number.
pub const LINE_MAX: i64 = 2_147_483_647;

messages! {
    /// The commands of an order.
    pub enum Command {
        /// Orders goods.
        PlaceOrder,
        /// Says that the order will be paid for.
        ApproveOrder,
        /// Says that the goods are being gathered.
        StartProcessing,
        /// Says that the invoice is written.
        InvoiceOrder,
        /// Hands the goods to the carrier.
        ShipOrder,
        /// Hands the goods to the customer.
        DeliverOrder,
        /// Gives the order up.
        CancelOrder,
        /// Says that the goods cannot be had.
        MarkUnavailable,
        /// Says what the customer thinks of it.
        ReviewOrder,
    }
}

/// Orders goods from sellers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrder {
    /// Who orders.
    pub customer: CustomerId,
    /// What they order, at most 200 items.
    #[serde(deserialize_with = "list::<_, _, ITEMS_MAX>")]
    #[schemars(length(max = ITEMS_MAX))]
    pub items: Vec<Item>,
    /// When it should be delivered.
    pub estimated_delivery: Timestamp,
}

/// One item of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its line number in the order.
    #[serde(deserialize_with = "integer::<_, _, 1, LINE_MAX>")]
    #[schemars(range(min = 1, max = LINE_MAX))]
    pub line: u32,
    /// What it is.
    pub product: ProductId,
    /// Who sells it.
    pub seller: SellerId,
    /// What it costs.
    pub price: Money,
    /// What its way to the customer costs.
    pub freight: Money,
}

/// Says that the order will be paid for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveOrder {}

/// Says that the goods are being gathered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartProcessing {}

/// Says that the invoice is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvoiceOrder {}

/// Hands the goods to the carrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShipOrder {}

/// Hands the goods to the customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliverOrder {}

/// Gives the order up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelOrder {
    /// Why.
    pub reason: Reason,
}

/// Says that the goods cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkUnavailable {}

/// Says what the customer thinks of the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewOrder {
    /// The review's id, taken once per order.
    pub review: ReviewId,
    /// From 1 (bad) to 5 (good).
    #[serde(deserialize_with = "integer::<_, _, 1, 5>")]
    #[schemars(range(min = 1, max = 5))]
    pub score: u8,
    /// Its title, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<ReviewTitle>,
    /// Its words, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<ReviewComment>,
}
