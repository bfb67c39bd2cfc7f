//! The rules of payments.

use kernel::Context;

use super::{
    CapturePayment, Command, Event, PaymentCaptured, PaymentRefunded, RefundPayment, Rejection,
    State,
};
use crate::vocabulary::Dated;

pub(super) fn decide(
    state: &State,
    command: &Command,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    match command {
        Command::CapturePayment(capture) => capture_payment(state, capture, context),
        Command::RefundPayment(refund) => refund_payment(state, refund),
    }
}

/// An amount of zero is accepted: a voucher may be spent to zero.
fn capture_payment(
    state: &State,
    command: &CapturePayment,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    let captured = PaymentCaptured {
        order: command.order.clone(),
        method: command.method,
        instalments: command.instalments,
        amount: command.amount,
    };
    if let Some(earlier) = &state.captured {
        if context.is_dated(earlier.at) && earlier.facts == captured {
            return Ok(vec![]);
        }
        return Err(Rejection::AlreadyCaptured {
            captured_at: earlier.at,
        });
    }
    if command.amount.amount_minor < 0 {
        return Err(Rejection::AmountNegative {
            amount: command.amount,
        });
    }
    if command.instalments < 0 {
        return Err(Rejection::InstalmentsNegative {
            instalments: command.instalments,
        });
    }
    Ok(vec![captured.into()])
}

/// A payment may be refunded in any number of parts. Every refund counts, even if an earlier one
/// has the same amount and time: the earlier one does not mean that no more is to be given back.
fn refund_payment(state: &State, command: &RefundPayment) -> Result<Vec<Event>, Rejection> {
    let Some(Dated {
        facts: captured, ..
    }) = &state.captured
    else {
        return Err(Rejection::NotCaptured);
    };
    let amount = command.amount;
    if amount.amount_minor < 0 {
        return Err(Rejection::AmountNegative { amount });
    }
    if amount.currency != captured.amount.currency {
        return Err(Rejection::CurrencyDiffers {
            captured_currency: captured.amount.currency,
            currency: amount.currency,
        });
    }
    let captured_minor = captured.amount.amount_minor;
    if amount.amount_minor > captured_minor.saturating_sub(state.refunded_minor) {
        return Err(Rejection::RefundExceeds {
            amount,
            captured_minor,
            refunded_minor: state.refunded_minor,
        });
    }
    Ok(vec![
        PaymentRefunded {
            order: captured.order.clone(),
            method: captured.method,
            amount,
        }
        .into(),
    ])
}
