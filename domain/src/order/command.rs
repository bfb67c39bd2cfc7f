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
        /// Orders goods from sellers.
        #[schemars(extend("examples" = [{
            "customer": "ana-souza",
            "items": [
                {"line": 1, "product": "desk-lamp",
                 "seller": "casa-da-luz",
                 "price": {"amount_minor": 5890, "currency": "BRL"},
                 "freight": {"amount_minor": 1329, "currency": "BRL"}},
                {"line": 2, "product": "office-chair",
                 "seller": "moveis-silva",
                 "price": {"amount_minor": 23990, "currency": "BRL"},
                 "freight": {"amount_minor": 1993, "currency": "BRL"}}
            ],
            "estimated_delivery": "2030-06-29T00:00:00Z"
        }]))]
        PlaceOrder {
            /// The customer who orders.
            customer: CustomerId,
            /// The ordered items, at most 200.
            #[serde(deserialize_with = "list::<_, _, ITEMS_MAX>")]
            #[schemars(length(max = ITEMS_MAX))]
            items: Vec<Item>,
            /// When the order should be delivered.
            estimated_delivery: Timestamp,
        },
        /// Approves the order: it will be paid for.
        ApproveOrder {},
        /// Records that the goods are being gathered.
        StartProcessing {},
        /// Records that the invoice is written.
        InvoiceOrder {},
        /// Hands the goods to the carrier.
        ShipOrder {},
        /// Hands the goods to the customer.
        DeliverOrder {},
        /// Cancels the order.
        #[schemars(extend("examples" = [{"reason": "ordered twice"}]))]
        CancelOrder {
            /// The reason.
            reason: Reason,
        },
        /// Records that the goods are not available.
        MarkUnavailable {},
        /// Records the customer's review of the order.
        #[schemars(extend("examples" = [{
            "review": "review-1",
            "score": 5,
            "title": "Recommended",
            "comment": "It came before the promised day."
        }]))]
        ReviewOrder {
            /// The review's id, taken once per order.
            review: ReviewId,
            /// From 1 (bad) to 5 (good).
            #[serde(deserialize_with = "integer::<_, _, 1, 5>")]
            #[schemars(range(min = 1, max = 5))]
            score: u8,
            /// The review's title, if any.
            #[serde(skip_serializing_if = "Option::is_none")]
            title: Option<ReviewTitle>,
            /// The review's text, if any.
            #[serde(skip_serializing_if = "Option::is_none")]
            comment: Option<ReviewComment>,
        },
    }
}

/// One item of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The item's line number in the order.
    #[serde(deserialize_with = "integer::<_, _, 1, LINE_MAX>")]
    #[schemars(range(min = 1, max = LINE_MAX))]
    pub line: u32,
    /// The product.
    pub product: ProductId,
    /// The seller.
    pub seller: SellerId,
    /// What the item costs.
    pub price: Money,
    /// What the delivery of the item costs.
    pub freight: Money,
}
