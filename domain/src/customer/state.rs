//! What the rules need to know of a customer.
//!
//! Deliberately absent: earlier addresses. The events hold them; no rule needs them.

use kernel::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AddressCorrected, CustomerRegistered, Event};
use crate::vocabulary::{City, Dated, PostcodePrefix, StateName};

/// The state of a customer after the events so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "CustomerState")]
pub struct State {
    /// When they were registered, and with which facts.
    pub registered: Option<Dated<CustomerRegistered>>,
    /// The present address, and the business time of the event that gave it.
    pub address: Option<Dated<Address>>,
}

/// Where a customer lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// The city.
    pub city: City,
    /// The state.
    pub state: StateName,
    /// The first part of the postcode.
    pub postcode_prefix: PostcodePrefix,
}

impl State {
    pub(super) fn evolve(&mut self, event: &Event, occurred_at: Timestamp) {
        match event {
            Event::CustomerRegistered(registered) => {
                self.address = Some(Dated::new(occurred_at, Address::from(registered)));
                self.registered = Some(Dated::new(occurred_at, registered.clone()));
            }
            Event::AddressCorrected(corrected) => {
                self.address = Some(Dated::new(occurred_at, Address::from(corrected)));
            }
        }
    }
}

impl From<&CustomerRegistered> for Address {
    fn from(registered: &CustomerRegistered) -> Self {
        Self {
            city: registered.city.clone(),
            state: registered.state.clone(),
            postcode_prefix: registered.postcode_prefix.clone(),
        }
    }
}

impl From<&AddressCorrected> for Address {
    fn from(corrected: &AddressCorrected) -> Self {
        Self {
            city: corrected.city.clone(),
            state: corrected.state.clone(),
            postcode_prefix: corrected.postcode_prefix.clone(),
        }
    }
}
