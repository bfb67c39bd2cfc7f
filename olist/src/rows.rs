//! The rows of the five needed files, read field by field.
//!
//! Invariant: a row of these types is complete and well formed; text is kept unchanged.
//! Deliberately absent: how rows of different files belong together, and the rules of the business.

use domain::order::LINE_MAX;
use domain::payment::Method;
use domain::vocabulary::{
    AMOUNT_MINOR_MAX, AMOUNT_MINOR_MIN, City, PostcodePrefix, ReviewComment, ReviewTitle, StateName,
};
use kernel::{StreamName, Timestamp};

use super::table::Record;
use super::values::{Reason, amount_minor, id, key, moment, number, text, unknown_word};

/// The largest number of a payment within its order; the smallest number is 1.
const SEQUENCE_MAX: i64 = 1_000_000;

/// A needed file: its name and its needed columns.
pub struct FileShape<const N: usize> {
    /// Its name in the folder.
    pub name: &'static str,
    /// Its needed columns, in the order in which this module asks for them.
    pub columns: [&'static str; N],
}

/// The orders; rows of the other files refer to them.
pub const ORDERS: FileShape<8> = FileShape {
    name: "olist_orders_dataset.csv",
    columns: [
        "order_id",
        "customer_id",
        "order_status",
        "order_purchase_timestamp",
        "order_approved_at",
        "order_delivered_carrier_date",
        "order_delivered_customer_date",
        "order_estimated_delivery_date",
    ],
};

/// The items of the orders.
pub const ITEMS: FileShape<6> = FileShape {
    name: "olist_order_items_dataset.csv",
    columns: [
        "order_id",
        "order_item_id",
        "product_id",
        "seller_id",
        "price",
        "freight_value",
    ],
};

/// The payments of the orders.
pub const PAYMENTS: FileShape<5> = FileShape {
    name: "olist_order_payments_dataset.csv",
    columns: [
        "order_id",
        "payment_sequential",
        "payment_type",
        "payment_installments",
        "payment_value",
    ],
};

/// The reviews of the orders.
pub const REVIEWS: FileShape<6> = FileShape {
    name: "olist_order_reviews_dataset.csv",
    columns: [
        "review_id",
        "order_id",
        "review_score",
        "review_comment_title",
        "review_comment_message",
        "review_creation_date",
    ],
};

/// The customers: one row for each order; several rows may be about one person.
pub const CUSTOMERS: FileShape<5> = FileShape {
    name: "olist_customers_dataset.csv",
    columns: [
        "customer_id",
        "customer_unique_id",
        "customer_zip_code_prefix",
        "customer_city",
        "customer_state",
    ],
};

/// The state of an order when the data was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Placed.
    Created,
    /// Approved.
    Approved,
    /// Being processed.
    Processing,
    /// Invoiced.
    Invoiced,
    /// Handed to the carrier.
    Shipped,
    /// Delivered to the customer.
    Delivered,
    /// Cancelled.
    Canceled,
    /// An item could not be obtained.
    Unavailable,
}

/// A row of the orders file.
#[derive(Clone, Debug)]
pub struct OrderRow {
    /// The line it begins in.
    pub line: u64,
    /// The order's id.
    pub order: String,
    /// The customer row's id.
    pub customer: String,
    /// The state of the order.
    pub status: Status,
    /// When it was placed.
    pub purchased_at: Timestamp,
    /// When it was approved.
    pub approved_at: Option<Timestamp>,
    /// When the carrier took it.
    pub shipped_at: Option<Timestamp>,
    /// When the customer received it.
    pub delivered_at: Option<Timestamp>,
    /// The date for which the delivery was promised.
    pub estimated_delivery: Timestamp,
}

impl OrderRow {
    /// # Errors
    /// The first cell that cannot be read.
    pub fn read(record: &Record<8>) -> Result<Self, Reason> {
        record.whole()?;
        let moment_at = |nth| {
            record
                .field(nth)
                .and_then(|(column, cell)| moment(column, cell))
        };
        let optional_moment_at = |nth| match record.field(nth)? {
            (_, "") => Ok(None),
            (column, cell) => moment(column, cell).map(Some),
        };
        let (order, customer, status) = (record.field(0)?, record.field(1)?, record.field(2)?);
        Ok(Self {
            line: record.line,
            order: id(order.0, order.1)?,
            customer: key(customer.0, customer.1)?,
            status: match status.1 {
                "created" => Status::Created,
                "approved" => Status::Approved,
                "processing" => Status::Processing,
                "invoiced" => Status::Invoiced,
                "shipped" => Status::Shipped,
                "delivered" => Status::Delivered,
                "canceled" => Status::Canceled,
                "unavailable" => Status::Unavailable,
                other => return Err(unknown_word(status.0, "a known status", other)),
            },
            purchased_at: moment_at(3)?,
            approved_at: optional_moment_at(4)?,
            shipped_at: optional_moment_at(5)?,
            delivered_at: optional_moment_at(6)?,
            estimated_delivery: moment_at(7)?,
        })
    }

    /// When the order was approved or, if it was not, when it was placed.
    #[must_use]
    pub fn approved_or_purchased_at(&self) -> Timestamp {
        self.approved_at.unwrap_or(self.purchased_at)
    }

    /// The latest time that the row gives for the order itself; the estimate is only a promise.
    #[must_use]
    pub fn latest_at(&self) -> Timestamp {
        [self.approved_at, self.shipped_at, self.delivered_at]
            .into_iter()
            .flatten()
            .fold(self.purchased_at, Timestamp::max)
    }
}

/// A row of the items file.
#[derive(Clone, Debug)]
pub struct ItemRow {
    /// The item's number within its order.
    pub number: i64,
    /// The product's id.
    pub product: String,
    /// The seller's id.
    pub seller: String,
    /// The price, in minor units.
    pub price_minor: i64,
    /// The cost of its transport, in minor units.
    pub freight_minor: i64,
}

impl ItemRow {
    /// # Errors
    /// The first cell that cannot be read. A negative price counts as unreadable; the business
    /// decides whether a free item or a negative freight is allowed.
    pub fn read(record: &Record<6>) -> Result<Self, Reason> {
        record.whole()?;
        let (ordinal, price, freight) = (record.field(1)?, record.field(4)?, record.field(5)?);
        let (product, seller) = (record.field(2)?, record.field(3)?);
        let price_minor = amount_minor(price.0, price.1)?;
        if price_minor < 0 {
            return Err(unknown_word(price.0, "a price of 0 or more", price.1));
        }
        Ok(Self {
            number: number(ordinal.0, "an item's number", (1, LINE_MAX), ordinal.1)?,
            product: id(product.0, product.1)?,
            seller: id(seller.0, seller.1)?,
            price_minor,
            freight_minor: amount_minor(freight.0, freight.1)?,
        })
    }
}

/// A row of the payments file.
#[derive(Clone, Debug)]
pub struct PaymentRow {
    /// The line it begins in.
    pub line: u64,
    /// The payment's number within its order.
    pub sequence: i64,
    /// How it was paid.
    pub method: Method,
    /// The number of instalments.
    pub instalments: i64,
    /// The amount, in minor units.
    pub amount_minor: i64,
    /// How many rows before it have the same order and number.
    pub repetition: u32,
}

impl PaymentRow {
    /// Reads the row of a payment of `order`.
    ///
    /// # Errors
    /// The first cell that cannot be read. The business decides whether a negative amount or number
    /// of instalments is allowed.
    pub fn read(record: &Record<5>, order: &str) -> Result<Self, Reason> {
        record.whole()?;
        let (ordinal, method) = (record.field(1)?, record.field(2)?);
        let (instalments, amount) = (record.field(3)?, record.field(4)?);
        let range = (1, SEQUENCE_MAX);
        let sequence = number(ordinal.0, "a payment's number", range, ordinal.1)?;
        let stream = format!("payment-{order}-{sequence}");
        if stream.parse::<StreamName>().is_err() {
            let expected = "an id short enough to append a payment's number";
            return Err(unknown_word(record.field(0)?.0, expected, order));
        }
        let methods = [
            Method::CreditCard,
            Method::Boleto,
            Method::Voucher,
            Method::DebitCard,
        ];
        let known = methods.into_iter().find(|known| known.as_str() == method.1);
        let unknown = || unknown_word(method.0, "a known payment method", method.1);
        let range = (AMOUNT_MINOR_MIN, AMOUNT_MINOR_MAX);
        Ok(Self {
            line: record.line,
            sequence,
            method: known.ok_or_else(unknown)?,
            instalments: number(instalments.0, "a number", range, instalments.1)?,
            amount_minor: amount_minor(amount.0, amount.1)?,
            repetition: 0,
        })
    }
}

/// A row of the reviews file.
#[derive(Clone, Debug)]
pub struct ReviewRow {
    /// The line it begins in.
    pub line: u64,
    /// The review's id, which several orders may share.
    pub review: String,
    /// The score, from 1 to 5.
    pub score: i64,
    /// Its title, unchanged.
    pub title: Option<String>,
    /// Its text, unchanged.
    pub comment: Option<String>,
    /// When the customer was asked for the review.
    pub created_at: Timestamp,
    /// How many rows before it have the same order and review.
    pub repetition: u32,
}

impl ReviewRow {
    /// # Errors
    /// The first cell that cannot be read.
    pub fn read(record: &Record<6>) -> Result<Self, Reason> {
        record.whole()?;
        let (review, score, created) = (record.field(0)?, record.field(2)?, record.field(5)?);
        let (title, comment) = (record.field(3)?, record.field(4)?);
        let optional = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Self {
            line: record.line,
            review: id(review.0, review.1)?,
            score: number(score.0, "a score from 1 to 5", (1, 5), score.1)?,
            title: text::<ReviewTitle>(title.0, title.1).map(optional)?,
            comment: text::<ReviewComment>(comment.0, comment.1).map(optional)?,
            created_at: moment(created.0, created.1)?,
            repetition: 0,
        })
    }
}

/// Where a person lives, according to the customers file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub city: String,
    pub state: String,
    /// The first digits of the postcode; a text, because it may begin with 0.
    pub postcode_prefix: String,
}

/// The readable parts of a row of the customers file.
///
/// An order needs only the person's id, so the id is read even if the rest cannot be.
#[derive(Clone, Debug)]
pub struct CustomerRow {
    /// The line it begins in.
    pub line: u64,
    /// The person's id, if it can be read.
    pub person: Option<String>,
    /// The address, if the whole row can be read.
    pub address: Option<Address>,
}

impl CustomerRow {
    /// Reads the readable parts of the row; returns its customer id, the row, and what is wrong.
    pub fn read(record: &Record<5>) -> (Option<String>, Self, Option<Reason>) {
        let cell = |nth, read: fn(&'static str, &str) -> Result<String, Reason>| {
            record
                .field(nth)
                .and_then(|(column, cell)| read(column, cell))
        };
        let customer = cell(0, key);
        let person = cell(1, id);
        let address = record.whole().and_then(|()| {
            Ok(Address {
                city: cell(3, text::<City>)?,
                state: cell(4, text::<StateName>)?,
                postcode_prefix: cell(2, text::<PostcodePrefix>)?,
            })
        });
        let reason = [
            customer.as_ref().err(),
            person.as_ref().err(),
            address.as_ref().err(),
        ]
        .into_iter()
        .flatten()
        .next()
        .cloned();
        let row = Self {
            line: record.line,
            address: address.ok().filter(|_| person.is_ok()),
            person: person.ok(),
        };
        (customer.ok(), row, reason)
    }
}
