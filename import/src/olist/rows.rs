//! The rows of the five needed files, read field by field.
//!
//! Invariant: a row of these types is whole and well formed; text is kept as it is. Deliberately
//! absent: how rows of different files belong together, and what the business says of them.

use domain::order::LINE_MAX;
use domain::payment::Method;
use domain::vocabulary::{
    AMOUNT_MINOR_MAX, AMOUNT_MINOR_MIN, City, PostcodePrefix, ReviewComment, ReviewTitle, StateName,
};
use kernel::{StreamName, Timestamp};

use super::table::Record;
use super::values::{Reason, amount_minor, id, key, moment, number, text, unknown_word};

/// The largest number of a payment within its order; the smallest is 1.
const SEQUENCE_MAX: i64 = 1_000_000;

/// A needed file: its name and its needed columns.
pub struct FileShape<const N: usize> {
    /// Its name in the folder.
    pub name: &'static str,
    /// Its needed columns, in the order in which this module asks for them.
    pub columns: [&'static str; N],
}

/// The orders: the root of everything else.
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

/// The customers: a row for each order, of which several may speak of one person.
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

/// How far an order had come when the data was written.
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
    /// With the customer.
    Delivered,
    /// Cancelled.
    Canceled,
    /// An item could not be had.
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
    /// How far the order had come.
    pub status: Status,
    /// When it was placed.
    pub purchased_at: Timestamp,
    /// When it was approved.
    pub approved_at: Option<Timestamp>,
    /// When the carrier took it.
    pub shipped_at: Option<Timestamp>,
    /// When the customer had it.
    pub delivered_at: Option<Timestamp>,
    /// When it was due.
    pub estimated_delivery: Timestamp,
}

impl OrderRow {
    /// Reads the row.
    ///
    /// # Errors
    /// What cannot be read first.
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

    /// When the order was approved or, where it was not, placed.
    #[must_use]
    pub fn approved_or_purchased_at(&self) -> Timestamp {
        self.approved_at.unwrap_or(self.purchased_at)
    }

    /// The latest moment that the row knows of the order itself; the estimate is a promise.
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
    /// What was bought.
    pub product: String,
    /// From whom.
    pub seller: String,
    /// For how much, in minor units.
    pub price_minor: i64,
    /// What its transport cost, in minor units.
    pub freight_minor: i64,
}

impl ItemRow {
    /// Reads the row.
    ///
    /// # Errors
    /// What cannot be read first. A negative price cannot be read; whether a free item or a
    /// negative freight is allowed is for the business to say.
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
    /// In how many parts.
    pub instalments: i64,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// How many rows before it have the same order and number.
    pub repetition: u32,
}

impl PaymentRow {
    /// Reads the row of a payment of `order`.
    ///
    /// # Errors
    /// What cannot be read first. Whether a negative amount or number of instalments is allowed is
    /// for the business to say.
    pub fn read(record: &Record<5>, order: &str) -> Result<Self, Reason> {
        record.whole()?;
        let (ordinal, method) = (record.field(1)?, record.field(2)?);
        let (instalments, amount) = (record.field(3)?, record.field(4)?);
        let range = (1, SEQUENCE_MAX);
        let sequence = number(ordinal.0, "a payment's number", range, ordinal.1)?;
        let stream = format!("payment-{order}-{sequence}");
        if stream.parse::<StreamName>().is_err() {
            let expected = "an id short enough for a payment's number behind it";
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
    /// From 1 to 5.
    pub score: i64,
    /// Its title, as it is.
    pub title: Option<String>,
    /// Its text, as it is.
    pub comment: Option<String>,
    /// When the customer was asked for it.
    pub created_at: Timestamp,
    /// How many rows before it have the same order and review.
    pub repetition: u32,
}

impl ReviewRow {
    /// Reads the row.
    ///
    /// # Errors
    /// What cannot be read first.
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

/// Where a person lives, as the customers file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// City.
    pub city: String,
    /// State.
    pub state: String,
    /// The first digits of the postcode; text, since it may begin with 0.
    pub postcode_prefix: String,
}

/// What can be read of a row of the customers file.
///
/// The person's id is all that an order needs of it, so it is read even where the rest cannot be.
#[derive(Clone, Debug)]
pub struct CustomerRow {
    /// The line it begins in.
    pub line: u64,
    /// The person, where that much can be read.
    pub person: Option<String>,
    /// The address, where the whole row can be read.
    pub address: Option<Address>,
}

impl CustomerRow {
    /// Reads as much of the row as there is, with its customer id and what is wrong with it.
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
