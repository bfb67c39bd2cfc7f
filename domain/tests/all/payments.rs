//! Payments: captured once, refunded in parts, and never refunded beyond what was captured.

use domain::Payment;
use domain::payment::{
    CapturePayment, Event, Method, PaymentCaptured, PaymentRefunded, RefundPayment, Rejection,
};
use domain::vocabulary::{AMOUNT_MINOR_MAX, Money};
use kernel::{Rejection as _, Timestamp};
use serde_json::json;

use crate::given::{a, by_the_clock, day, dollar, judge, judge_in, real};

fn capture(amount: Money) -> CapturePayment {
    CapturePayment {
        order: a("o-1"),
        method: Method::Voucher,
        instalments: 1,
        amount,
    }
}

fn captured(amount: Money) -> PaymentCaptured {
    PaymentCaptured {
        order: a("o-1"),
        method: Method::Voucher,
        instalments: 1,
        amount,
    }
}

fn refund(amount: Money) -> RefundPayment {
    RefundPayment { amount }
}

fn refunded(amount: Money) -> PaymentRefunded {
    PaymentRefunded {
        order: a("o-1"),
        method: Method::Voucher,
        amount,
    }
}

fn history() -> Vec<(Event, Timestamp)> {
    vec![
        (captured(real(1000)).into(), day(1)),
        (refunded(real(300)).into(), day(2)),
        (refunded(real(200)).into(), day(3)),
    ]
}

#[test]
fn captures_a_payment_also_of_nothing_and_without_instalments() {
    for (amount, instalments) in [
        (12845, 2),
        (0, 1),
        (1, 0),
        (AMOUNT_MINOR_MAX, i64::from(u8::MAX)),
    ] {
        let asked = CapturePayment {
            instalments,
            ..capture(real(amount))
        };
        let happened = PaymentCaptured {
            instalments,
            ..captured(real(amount))
        };
        judge::<Payment>(&[], asked, day(1)).then([happened]);
    }
}

#[test]
fn refuses_to_take_less_than_nothing() {
    let refusal = Rejection::AmountNegative { amount: real(-1) };
    assert_eq!(refusal.code(), "payment_amount_negative");
    assert_eq!(
        serde_json::Value::Object(refusal.facts()),
        json!({"amount": {"amount_minor": -1, "currency": "BRL"}})
    );
    judge::<Payment>(&[], capture(real(-1)), day(1)).then_refused(refusal);
}

#[test]
fn refuses_less_than_no_instalments() {
    let asked = CapturePayment {
        instalments: -1,
        ..capture(real(1000))
    };
    let refusal = Rejection::InstalmentsNegative { instalments: -1 };
    assert_eq!(refusal.code(), "payment_instalments_negative");
    judge::<Payment>(&[], asked, day(1)).then_refused(refusal);
}

#[test]
fn a_capture_as_it_is_adds_nothing_whatever_has_come_since() {
    judge::<Payment>(&history(), capture(real(1000)), day(1)).then_nothing();
}

#[test]
fn refuses_to_capture_twice() {
    let refusal = Rejection::AlreadyCaptured {
        captured_at: day(1),
    };
    assert_eq!(refusal.code(), "payment_already_captured");
    judge::<Payment>(&history(), capture(real(1000)), day(2)).then_refused(refusal.clone());
    judge::<Payment>(&history(), capture(real(999)), day(1)).then_refused(refusal.clone());
    judge::<Payment>(&history(), capture(real(-1)), day(1)).then_refused(refusal.clone());
    judge_in::<Payment>(&history(), capture(real(1000)), by_the_clock(day(1)))
        .then_refused(refusal);
}

#[test]
fn refunds_up_to_what_is_left() {
    for amount in [0, 1, 500] {
        judge::<Payment>(&history(), refund(real(amount)), day(4)).then([refunded(real(amount))]);
    }
}

#[test]
fn refuses_to_give_back_more_than_is_left() {
    let refusal = Rejection::RefundExceeds {
        amount: real(501),
        captured_minor: 1000,
        refunded_minor: 500,
    };
    assert_eq!(refusal.code(), "payment_refund_exceeds");
    assert_eq!(
        refusal.to_string(),
        "a refund of 501 minor units of BRL exceeds what is left: 1000 captured, 500 already \
         refunded"
    );
    judge::<Payment>(&history(), refund(real(501)), day(4)).then_refused(refusal);
}

#[test]
fn every_refund_counts_also_of_the_same_amount_at_the_same_time() {
    for day in [day(2), day(3)] {
        let again = || [refunded(real(300))];
        judge::<Payment>(&history(), refund(real(300)), day).then(again());
        judge_in::<Payment>(&history(), refund(real(300)), by_the_clock(day)).then(again());
    }
}

#[test]
fn refuses_to_refund_what_was_not_captured() {
    assert_eq!(Rejection::NotCaptured.code(), "payment_not_captured");
    judge::<Payment>(&[], refund(real(1)), day(1)).then_refused(Rejection::NotCaptured);
}

#[test]
fn refuses_to_refund_less_than_nothing() {
    judge::<Payment>(&history(), refund(real(-1)), day(4))
        .then_refused(Rejection::AmountNegative { amount: real(-1) });
}

#[test]
fn refuses_to_refund_in_another_currency() {
    let refusal = Rejection::CurrencyDiffers {
        captured_currency: a("BRL"),
        currency: a("USD"),
    };
    assert_eq!(refusal.code(), "payment_currency_differs");
    judge::<Payment>(&history(), refund(dollar(300)), day(2)).then_refused(refusal);
}
