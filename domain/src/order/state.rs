//! What the rules need to know of an order.
//!
//! Invariant: each step is kept with its facts and its time. An order takes each step once, and a
//! repeated import gives the same facts again, which then add nothing.

use std::collections::BTreeMap;

use kernel::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Event, OrderCanceled, OrderPlaced, OrderReviewed, Rejection};
use crate::vocabulary::{Dated, ReviewId};

/// The state of an order after the events so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OrderState")]
pub struct State {
    /// When it was placed, and with which facts.
    pub placed: Option<Dated<OrderPlaced>>,
    /// When it was approved.
    pub approved_at: Option<Timestamp>,
    /// When processing started.
    pub processing_at: Option<Timestamp>,
    /// When it was invoiced.
    pub invoiced_at: Option<Timestamp>,
    /// When it was shipped.
    pub shipped_at: Option<Timestamp>,
    /// When it was delivered.
    pub delivered_at: Option<Timestamp>,
    /// When and why it was cancelled.
    pub canceled: Option<Dated<OrderCanceled>>,
    /// When it became unavailable.
    pub unavailable_at: Option<Timestamp>,
    /// Its reviews, with the time of each.
    pub reviews: BTreeMap<ReviewId, Dated<OrderReviewed>>,
}

impl State {
    pub(super) fn evolve(&mut self, event: &Event, occurred_at: Timestamp) {
        match event {
            Event::OrderPlaced(placed) => {
                self.placed = Some(Dated::new(occurred_at, placed.clone()))
            }
            Event::OrderApproved(_) => self.approved_at = Some(occurred_at),
            Event::ProcessingStarted(_) => self.processing_at = Some(occurred_at),
            Event::OrderInvoiced(_) => self.invoiced_at = Some(occurred_at),
            Event::OrderShipped(_) => self.shipped_at = Some(occurred_at),
            Event::OrderDelivered(_) => self.delivered_at = Some(occurred_at),
            Event::OrderCanceled(canceled) => {
                self.canceled = Some(Dated::new(occurred_at, canceled.clone()));
            }
            Event::OrderMarkedUnavailable(_) => self.unavailable_at = Some(occurred_at),
            Event::OrderReviewed(reviewed) => {
                let review = reviewed.review.clone();
                self.reviews
                    .insert(review, Dated::new(occurred_at, reviewed.clone()));
            }
        }
    }

    /// When the order was placed, and with which facts; every other step needs this.
    pub(super) fn placed(&self) -> Result<&Dated<OrderPlaced>, Rejection> {
        self.placed.as_ref().ok_or(Rejection::NotPlaced)
    }

    /// Checks that the order can still take a step: it is in none of the three final states. An
    /// order reaches at most one of them.
    pub(super) fn open(&self) -> Result<(), Rejection> {
        if let Some(canceled) = &self.canceled {
            return Err(Rejection::Canceled {
                canceled_at: canceled.at,
            });
        }
        if let Some(unavailable_at) = self.unavailable_at {
            return Err(Rejection::Unavailable { unavailable_at });
        }
        if let Some(delivered_at) = self.delivered_at {
            return Err(Rejection::AlreadyDelivered { delivered_at });
        }
        Ok(())
    }
}
