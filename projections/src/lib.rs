//! The read models of the shop, one file each: which rows follow from which events.
//!
//! Invariant: pure rules; what they need stands in the commit. Deliberately absent: how rows are
//! written (`projector`), and any figure computed by a view over another model.

mod customer_orders;
mod daily_sales;
mod delivery_days;
mod order_summary;
mod payment_mix;
mod seller_sales;

use std::sync::Arc;

use chrono::{Datelike as _, NaiveDate};
use kernel::Timestamp;
use projector::{Projection, Rejections, StreamIndex};

pub use customer_orders::CustomerOrders;
pub use daily_sales::DailySales;
pub use delivery_days::DeliveryDays;
pub use order_summary::OrderSummary;
pub use payment_mix::PaymentMix;
pub use seller_sales::SellerSales;

/// All read models, those with rows that many streams share last: a transaction writes in this
/// order and holds such rows only briefly.
#[must_use]
pub fn all() -> Vec<Arc<dyn Projection>> {
    vec![
        Arc::new(StreamIndex),
        Arc::new(Rejections),
        Arc::new(OrderSummary),
        Arc::new(CustomerOrders),
        Arc::new(SellerSales),
        Arc::new(DailySales),
        Arc::new(DeliveryDays),
        Arc::new(PaymentMix),
    ]
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
