//! The events of an order.
//!
//! An event holds the facts that projections will need later: they cannot be added to old events.

use kernel::{Timestamp, messages};

use super::{ITEMS_MAX, Item};
use crate::vocabulary::{
    AMOUNT_MINOR_MAX, Currency, CustomerId, Reason, ReviewComment, ReviewId, ReviewTitle, integer,
    list,
};

messages! {
    /// The events of an order.
    pub enum Event {
        /// Goods were ordered from sellers.
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
            "items_minor": 29880,
            "freight_minor": 3322,
            "currency": "BRL",
            "estimated_delivery": "2030-06-29T00:00:00Z"
        }]))]
        OrderPlaced {
            /// The customer who ordered.
            customer: CustomerId,
            /// The ordered items, at most 200.
            #[serde(deserialize_with = "list::<_, _, ITEMS_MAX>")]
            #[schemars(length(max = ITEMS_MAX))]
            items: Vec<Item>,
            /// The sum of the items' prices, in minor units.
            #[serde(deserialize_with = "integer::<_, _, 0, AMOUNT_MINOR_MAX>")]
            #[schemars(range(min = 0, max = AMOUNT_MINOR_MAX))]
            items_minor: i64,
            /// The sum of the items' freights, in minor units.
            #[serde(deserialize_with = "integer::<_, _, 0, AMOUNT_MINOR_MAX>")]
            #[schemars(range(min = 0, max = AMOUNT_MINOR_MAX))]
            freight_minor: i64,
            /// The currency of all prices and freights.
            currency: Currency,
            /// When the order should be delivered.
            estimated_delivery: Timestamp,
        },
        /// The order was approved: it will be paid for.
        OrderApproved {},
        /// The goods are being gathered.
        ProcessingStarted {},
        /// The invoice was written.
        OrderInvoiced {},
        /// The goods went to the carrier.
        OrderShipped {},
        /// The goods went to the customer.
        #[schemars(extend("examples" = [{
            "placed_at": "2030-06-04T16:44:48Z",
            "estimated_delivery": "2030-06-29T00:00:00Z"
        }]))]
        OrderDelivered {
            /// When the order had been placed.
            placed_at: Timestamp,
            /// When the order should have been delivered.
            estimated_delivery: Timestamp,
        },
        /// The order was canceled.
        #[schemars(extend("examples" = [{"reason": "ordered twice"}]))]
        OrderCanceled {
            /// The reason.
            reason: Reason,
        },
        /// The goods were not available.
        OrderMarkedUnavailable {},
        /// The customer reviewed the order.
        #[schemars(extend("examples" = [{
            "review": "review-1",
            "score": 5,
            "title": "Recommended",
            "comment": "It came before the promised day."
        }]))]
        OrderReviewed {
            /// The review's id.
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
