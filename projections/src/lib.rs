//! The read models of the shop, one file each: which rows follow from which events.
//!
//! Invariant: the rules are pure; all data they need is in the commit. Deliberately absent: how
//! rows are written (`projector`), and figures that a view computes from another model.

mod customer_orders;
mod daily_sales;
mod delivery_days;
mod order_summary;
mod payment_mix;
mod seller_sales;

use std::sync::Arc;

use chrono::{Datelike as _, NaiveDate};
use kernel::Timestamp;
use projector::Projection;

/// All read models of the shop. Those with rows that many streams share come last: a transaction
/// writes in this order, so that it locks such rows only briefly.
#[must_use]
pub fn all() -> Vec<Arc<dyn Projection>> {
    [
        order_summary::rules(),
        customer_orders::rules(),
        seller_sales::rules(),
        daily_sales::rules(),
        delivery_days::rules(),
        payment_mix::rules(),
    ]
    .into_iter()
    .map(|rules| Arc::new(rules) as Arc<dyn Projection>)
    .collect()
}

/// The UTC day of a moment.
fn day_of(moment: Timestamp) -> NaiveDate {
    moment.to_utc().date_naive()
}

/// The first day of a moment's month, in UTC.
fn month_of(moment: Timestamp) -> NaiveDate {
    day_of(moment)
        .with_day(1)
        .expect("every month has a first day")
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::{Customer, Order, Payment};
    use kernel::registry::Registry;

    use super::all;

    /// A new event fails this test until it is listed with the read models that take it up.
    #[test]
    fn each_event_changes_exactly_the_intended_read_models() {
        let mut taken: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let shop = Registry::new()
            .with::<Customer>()
            .with::<Order>()
            .with::<Payment>();
        let mut generator = Registry::schema_generator("/$defs");
        for aggregate in shop.iter() {
            for event in aggregate.event_types(&mut generator) {
                taken.insert(
                    format!("{}/{}", aggregate.category(), event.name),
                    Vec::new(),
                );
            }
        }
        for projection in all() {
            for takes in projection.takes() {
                let event = format!("{}/{}", takes.category, takes.event);
                taken
                    .get_mut(&event)
                    .unwrap_or_else(|| panic!("{} takes {event}, which is none", projection.name()))
                    .push(projection.name());
            }
        }
        let lines: Vec<String> = taken
            .iter()
            .map(|(event, names)| format!("{event}: {}", names.join(", ")))
            .collect();
        assert_eq!(
            lines,
            [
                "customer/AddressCorrected: customer_orders",
                "customer/CustomerRegistered: customer_orders",
                "order/OrderApproved: order_summary",
                "order/OrderCanceled: order_summary",
                "order/OrderDelivered: order_summary, delivery_days",
                "order/OrderInvoiced: order_summary",
                "order/OrderMarkedUnavailable: order_summary",
                "order/OrderPlaced: order_summary, customer_orders, seller_sales, daily_sales",
                "order/OrderReviewed: order_summary",
                "order/OrderShipped: order_summary",
                "order/ProcessingStarted: order_summary",
                "payment/PaymentCaptured: order_summary, payment_mix",
                "payment/PaymentRefunded: order_summary, payment_mix",
            ]
        );
    }
}
