//! The rules of orders.
//!
//! A step is judged in this order: Is the order placed? Has this very step happened at the time
//! that the client gave (then nothing is added)? Is the order in a final state? Does the order of
//! steps allow it? Business time may lie in the past and need not be monotonic.

use std::collections::BTreeSet;

use kernel::Context;

use super::{
    CancelOrder, Command, Event, Item, OrderApproved, OrderCanceled, OrderDelivered, OrderInvoiced,
    OrderMarkedUnavailable, OrderPlaced, OrderReviewed, OrderShipped, PlaceOrder,
    ProcessingStarted, Rejection, ReviewOrder, State,
};
use crate::vocabulary::{AMOUNT_MINOR_MAX, Currency, Dated};

pub(super) fn decide(
    state: &State,
    command: &Command,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    match command {
        Command::PlaceOrder(place) => place_order(state, place, context),
        Command::ApproveOrder(_) => approve_order(state, context),
        Command::StartProcessing(_) => start_processing(state, context),
        Command::InvoiceOrder(_) => invoice_order(state, context),
        Command::ShipOrder(_) => ship_order(state, context),
        Command::DeliverOrder(_) => deliver_order(state, context),
        Command::CancelOrder(cancel) => cancel_order(state, cancel, context),
        Command::MarkUnavailable(_) => mark_unavailable(state, context),
        Command::ReviewOrder(review) => review_order(state, review, context),
    }
}

fn place_order(
    state: &State,
    command: &PlaceOrder,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    if let Some(Dated {
        at: placed_at,
        facts: placed,
    }) = &state.placed
    {
        let same = context.is_dated(*placed_at)
            && placed.customer == command.customer
            && placed.items == command.items
            && placed.estimated_delivery == command.estimated_delivery;
        if same {
            return Ok(vec![]);
        }
        return Err(Rejection::AlreadyPlaced {
            placed_at: *placed_at,
        });
    }
    let items = &command.items;
    let currency = check_items(items)?;
    // At most 200 prices of at most 2^53 each: the sums fit into an i64.
    let items_minor = items.iter().map(|item| item.price.amount_minor).sum();
    let freight_minor = items.iter().map(|item| item.freight.amount_minor).sum();
    if items_minor + freight_minor > AMOUNT_MINOR_MAX {
        return Err(Rejection::TotalTooLarge {
            total_minor_max: AMOUNT_MINOR_MAX,
        });
    }
    Ok(vec![
        OrderPlaced {
            customer: command.customer.clone(),
            items: items.clone(),
            items_minor,
            freight_minor,
            currency,
            estimated_delivery: command.estimated_delivery,
        }
        .into(),
    ])
}

/// The rules of items; each is checked over all items before the next. Returns their currency.
fn check_items(items: &[Item]) -> Result<Currency, Rejection> {
    let Some(first) = items.first() else {
        return Err(Rejection::HasNoItems);
    };
    let mut lines = BTreeSet::new();
    for item in items {
        if !lines.insert(item.line) {
            return Err(Rejection::LinesRepeat { line: item.line });
        }
    }
    let currency = first.price.currency;
    for item in items {
        for other_currency in [item.price.currency, item.freight.currency] {
            if other_currency != currency {
                return Err(Rejection::CurrenciesMixed {
                    line: item.line,
                    currency,
                    other_currency,
                });
            }
        }
    }
    for item in items {
        if item.price.amount_minor <= 0 {
            return Err(Rejection::PriceNotPositive {
                line: item.line,
                price: item.price,
            });
        }
    }
    for item in items {
        if item.freight.amount_minor < 0 {
            return Err(Rejection::FreightNegative {
                line: item.line,
                freight: item.freight,
            });
        }
    }
    Ok(currency)
}

fn approve_order(state: &State, context: &Context) -> Result<Vec<Event>, Rejection> {
    state.placed()?;
    if state.approved_at.is_some_and(|at| context.is_dated(at)) {
        return Ok(vec![]);
    }
    state.open()?;
    if let Some(approved_at) = state.approved_at {
        return Err(Rejection::AlreadyApproved { approved_at });
    }
    Ok(vec![OrderApproved {}.into()])
}

fn start_processing(state: &State, context: &Context) -> Result<Vec<Event>, Rejection> {
    let placed_at = state.placed()?.at;
    if state.processing_at.is_some_and(|at| context.is_dated(at)) {
        return Ok(vec![]);
    }
    state.open()?;
    if let Some(processing_at) = state.processing_at {
        return Err(Rejection::AlreadyProcessing { processing_at });
    }
    if let Some(shipped_at) = state.shipped_at {
        return Err(Rejection::AlreadyShipped { shipped_at });
    }
    if state.approved_at.is_none() {
        return Err(Rejection::NotApproved { placed_at });
    }
    Ok(vec![ProcessingStarted {}.into()])
}

fn invoice_order(state: &State, context: &Context) -> Result<Vec<Event>, Rejection> {
    let placed_at = state.placed()?.at;
    if state.invoiced_at.is_some_and(|at| context.is_dated(at)) {
        return Ok(vec![]);
    }
    state.open()?;
    if let Some(invoiced_at) = state.invoiced_at {
        return Err(Rejection::AlreadyInvoiced { invoiced_at });
    }
    if let Some(shipped_at) = state.shipped_at {
        return Err(Rejection::AlreadyShipped { shipped_at });
    }
    if state.approved_at.is_none() {
        return Err(Rejection::NotApproved { placed_at });
    }
    Ok(vec![OrderInvoiced {}.into()])
}

fn ship_order(state: &State, context: &Context) -> Result<Vec<Event>, Rejection> {
    let placed_at = state.placed()?.at;
    if state.shipped_at.is_some_and(|at| context.is_dated(at)) {
        return Ok(vec![]);
    }
    state.open()?;
    if let Some(shipped_at) = state.shipped_at {
        return Err(Rejection::AlreadyShipped { shipped_at });
    }
    if state.approved_at.is_none() {
        return Err(Rejection::NotApproved { placed_at });
    }
    Ok(vec![OrderShipped {}.into()])
}

fn deliver_order(state: &State, context: &Context) -> Result<Vec<Event>, Rejection> {
    let Dated {
        at: placed_at,
        facts: placed,
    } = state.placed()?;
    if state.delivered_at.is_some_and(|at| context.is_dated(at)) {
        return Ok(vec![]);
    }
    state.open()?;
    if state.shipped_at.is_none() {
        return Err(Rejection::NotShipped {
            placed_at: *placed_at,
        });
    }
    Ok(vec![
        OrderDelivered {
            placed_at: *placed_at,
            estimated_delivery: placed.estimated_delivery,
        }
        .into(),
    ])
}

fn cancel_order(
    state: &State,
    command: &CancelOrder,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    state.placed()?;
    if let Some(canceled) = &state.canceled
        && context.is_dated(canceled.at)
        && canceled.facts.reason == command.reason
    {
        return Ok(vec![]);
    }
    state.open()?;
    Ok(vec![
        OrderCanceled {
            reason: command.reason.clone(),
        }
        .into(),
    ])
}

fn mark_unavailable(state: &State, context: &Context) -> Result<Vec<Event>, Rejection> {
    state.placed()?;
    if state.unavailable_at.is_some_and(|at| context.is_dated(at)) {
        return Ok(vec![]);
    }
    state.open()?;
    if let Some(shipped_at) = state.shipped_at {
        return Err(Rejection::AlreadyShipped { shipped_at });
    }
    Ok(vec![OrderMarkedUnavailable {}.into()])
}

/// Reviews are allowed in any state after placing, including the final states.
fn review_order(
    state: &State,
    command: &ReviewOrder,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    state.placed()?;
    let reviewed = OrderReviewed {
        review: command.review.clone(),
        score: command.score,
        title: command.title.clone(),
        comment: command.comment.clone(),
    };
    match state.reviews.get(&command.review) {
        Some(given) if context.is_dated(given.at) && given.facts == reviewed => Ok(vec![]),
        Some(given) => Err(Rejection::ReviewAlreadyGiven {
            review: command.review.clone(),
            reviewed_at: given.at,
        }),
        None => Ok(vec![reviewed.into()]),
    }
}
