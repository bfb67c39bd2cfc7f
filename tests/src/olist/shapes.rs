//! The fates of orders and their oddities: the kinds of dirt that the public data has.
//!
//! Invariant: every kind is listed once, so that even a small data set can hold each of them.
//! Deliberately absent: rows.

/// The fate of an order, as its row tells it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How often this fate occurs, relative to the others.
    pub weight: u64,
    /// Its status.
    pub status: &'static str,
    /// Whether it has a time of approval.
    pub is_approved: bool,
    /// Whether it has a time at which the carrier took it.
    pub is_shipped: bool,
    /// Whether it has a time of delivery.
    pub is_delivered: bool,
    /// Whether it has items.
    pub has_items: bool,
}

const fn shape(weight: u64, status: &'static str, steps: &str, has_items: bool) -> Shape {
    let steps = steps.as_bytes();
    Shape {
        weight,
        status,
        is_approved: steps[0] == b'a',
        is_shipped: steps[1] == b's',
        is_delivered: steps[2] == b'd',
        has_items,
    }
}

/// The fates in the public data, roughly as often as they occur there. The flags are for the steps:
/// approved, shipped, delivered.
pub const SHAPES: [Shape; 23] = [
    shape(3_000, "delivered", "asd", true),
    shape(500, "shipped", "as-", true),
    shape(150, "unavailable", "a--", false),
    shape(150, "canceled", "a--", true),
    shape(150, "invoiced", "a--", true),
    shape(150, "processing", "a--", true),
    shape(50, "canceled", "---", false),
    shape(40, "canceled", "as-", true),
    shape(20, "canceled", "a--", false),
    shape(10, "canceled", "asd", true),
    shape(10, "created", "---", false),
    shape(5, "delivered", "as-", true),
    shape(5, "delivered", "a--", true),
    shape(5, "delivered", "-sd", true),
    shape(5, "delivered", "a-d", true),
    shape(5, "unavailable", "a--", true),
    shape(5, "approved", "a--", true),
    shape(5, "created", "---", true),
    shape(5, "canceled", "---", true),
    shape(5, "invoiced", "---", true),
    shape(5, "processing", "---", true),
    shape(5, "unavailable", "as-", true),
    shape(5, "unavailable", "asd", true),
];

/// An oddity of an order, apart from its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The carrier took it before it was approved.
    ShippedBeforeApproval,
    /// It arrived before the carrier took it.
    DeliveredBeforeShipping,
    /// It was approved in the second in which it was placed.
    ApprovedAtOnce,
    /// One person placed two orders in the same second.
    SplitCart,
    /// The person ordered before, from the same address.
    KnownPerson,
    /// The person ordered before, from another address.
    MovedPerson,
    /// Its review belongs to another order, too, under the same id.
    SharedReview,
    /// Two reviews on one day.
    TwoReviews,
    /// Three reviews; the first in the file is not the first in time.
    ThreeReviews,
    /// No review.
    NoReview,
    /// Reviewed before it was placed.
    ReviewedBeforePlacing,
    /// A comment of several lines.
    CommentWithLineBreaks,
    /// A comment and a title with quotes and commas.
    CommentWithQuotes,
    /// A comment with characters beyond Unicode's basic plane.
    CommentWithEmoji,
    /// A comment of blanks.
    BlankComment,
    /// A voucher spent to zero.
    ZeroVoucher,
    /// A card payment in no instalments.
    NoInstalments,
    /// A dozen vouchers and a card.
    ManyPayments,
    /// The first payment is missing.
    PaymentGap,
    /// No payment.
    NoPayment,
    /// Many items of several sellers.
    ManyItems,
    /// Items whose freight is free.
    FreeFreight,
}

/// Every oddity.
pub const ODDITIES: [Oddity; 22] = [
    Oddity::ShippedBeforeApproval,
    Oddity::DeliveredBeforeShipping,
    Oddity::ApprovedAtOnce,
    Oddity::SplitCart,
    Oddity::KnownPerson,
    Oddity::MovedPerson,
    Oddity::SharedReview,
    Oddity::TwoReviews,
    Oddity::ThreeReviews,
    Oddity::NoReview,
    Oddity::ReviewedBeforePlacing,
    Oddity::CommentWithLineBreaks,
    Oddity::CommentWithQuotes,
    Oddity::CommentWithEmoji,
    Oddity::BlankComment,
    Oddity::ZeroVoucher,
    Oddity::NoInstalments,
    Oddity::ManyPayments,
    Oddity::PaymentGap,
    Oddity::NoPayment,
    Oddity::ManyItems,
    Oddity::FreeFreight,
];
