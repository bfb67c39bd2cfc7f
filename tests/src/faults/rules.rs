//! The rules of customers, written a second time for the checker: from the shop's promises, not
//! from its code.
//!
//! Deliberately absent: business times, which this load does not send.

use checker::rules::{Asked, Rules, Ruling};
use serde_json::Value;

/// A customer is registered once; only a registered customer has an address to correct.
#[derive(Clone, Copy, Debug, Default)]
pub struct Customers;

impl Rules for Customers {
    fn initial(&self, stream: &str) -> Option<Value> {
        stream.contains("customer-").then_some(Value::Bool(false))
    }

    fn decide(&self, state: &Value, asked: &Asked<'_>) -> Ruling {
        let is_registered = state.as_bool().unwrap_or_default();
        let refuse = |code: &str| Ruling::Refuse(code.to_owned());
        let accept = |event: &str| Ruling::Accept(vec![(event.to_owned(), asked.data.clone())]);
        match (asked.command, is_registered) {
            ("RegisterCustomer", false) => accept("CustomerRegistered"),
            ("RegisterCustomer", true) => refuse("customer_already_registered"),
            ("CorrectAddress", true) => accept("AddressCorrected"),
            ("CorrectAddress", false) => refuse("customer_not_registered"),
            _ => Ruling::Silent,
        }
    }

    fn evolve(&self, state: &mut Value, type_name: &str, _data: &Value) {
        if type_name == "CustomerRegistered" {
            *state = Value::Bool(true);
        }
    }
}
