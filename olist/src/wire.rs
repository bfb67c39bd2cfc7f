//! The command lines of the shop as the batch door takes them.
//!
//! Invariant: a line is written in one way only, so that the same facts give the same bytes.
//! Deliberately absent: where the facts come from.

use std::borrow::Cow;

use domain::payment::Method;
use kernel::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// The currency of all amounts.
const CURRENCY: &str = "BRL";

/// The data of the commands, as written on the wire.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Data<'a> {
    Nothing {},
    Address {
        city: &'a str,
        state: &'a str,
        postcode_prefix: Cow<'a, str>,
    },
    Place {
        customer: Cow<'a, str>,
        items: Vec<Item<'a>>,
        estimated_delivery: Timestamp,
    },
    Payment {
        order: &'a str,
        method: Method,
        instalments: i64,
        amount: Money,
    },
    Refund {
        amount: Money,
    },
    Cancel {
        reason: &'static str,
    },
    Review {
        review: Cow<'a, str>,
        score: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        comment: Option<&'a str>,
    },
}

#[derive(Serialize)]
pub(crate) struct Item<'a> {
    pub(crate) line: i64,
    pub(crate) product: Cow<'a, str>,
    pub(crate) seller: Cow<'a, str>,
    pub(crate) price: Money,
    pub(crate) freight: Money,
}

#[derive(Serialize)]
pub(crate) struct Money {
    pub(crate) amount_minor: i64,
    pub(crate) currency: &'static str,
}

impl Money {
    pub(crate) fn of(amount_minor: i64) -> Self {
        Self {
            amount_minor,
            currency: CURRENCY,
        }
    }
}

/// A command line in the form that the batch door accepts.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<&'a str>,
    pub(crate) stream: &'a str,
    pub(crate) command: &'static str,
    pub(crate) id: Uuid,
    pub(crate) occurred_at: Timestamp,
    pub(crate) actor: Actor,
    pub(crate) data: &'a Data<'a>,
}

#[derive(Serialize)]
pub(crate) struct Actor {
    pub(crate) id: &'static str,
    pub(crate) kind: &'static str,
}

impl Line<'_> {
    /// The line as JSON.
    pub(crate) fn written(&self) -> String {
        serde_json::to_string(self).expect("texts and integers can be written as JSON")
    }
}
