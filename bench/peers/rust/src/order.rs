//! The order that every peer stores: about 400 bytes as JSON.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a customer ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Who ordered.
    pub customer: String,
    /// The ordered items.
    pub items: Vec<Item>,
    /// The prices of the items together.
    pub items_sum: i64,
    /// The freight of the items together.
    pub freight_sum: i64,
    /// The currency of all amounts, which are in its smallest unit.
    pub currency: String,
    /// When it should arrive.
    pub estimated_delivery: String,
}

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its number in the order.
    pub line: u32,
    /// The product.
    pub product: String,
    /// Who sells it.
    pub seller: String,
    /// Its price.
    pub price: i64,
    /// What its way costs.
    pub freight: i64,
}

/// Why an order is refused.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The order was placed before.
    #[error("the order is placed already")]
    PlacedAlready,
}

impl Order {
    /// An order whose content follows from a number.
    pub fn numbered(number: usize) -> Self {
        let item = |line: u32| Item {
            line,
            product: format!("product-{:06}", number % 32_951),
            seller: format!("seller-{:04}", number % 3_095),
            price: 2_199,
            freight: 1_185,
        };
        let items: Vec<Item> = (1..=3).map(item).collect();
        Self {
            customer: format!("customer-{:06}", number % 99_441),
            items_sum: items.iter().map(|item| item.price).sum(),
            freight_sum: items.iter().map(|item| item.freight).sum(),
            items,
            currency: "BRL".to_owned(),
            estimated_delivery: "2018-06-28T00:00:00Z".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_about_400_bytes() {
        let json = serde_json::to_string(&Order::numbered(4_711)).expect("JSON");
        assert!((380..=420).contains(&json.len()), "{}: {json}", json.len());
    }
}
