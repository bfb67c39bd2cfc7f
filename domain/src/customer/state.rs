//! What is remembered of a customer.
//!
//! Deliberately absent: addresses of before. The events tell them; no rule asks for them.

use kernel::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AddressCorrected, CustomerRegistered, Event};
use crate::vocabulary::{City, PostcodePrefix, StateName};

/// A customer as their events tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// When and as what they were registered.
    pub registered: Option<(Timestamp, CustomerRegistered)>,
    /// Since when they live where, by the last event.
    pub address: Option<(Timestamp, Address)>,
}

/// Where a customer lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
                self.address = Some((occurred_at, Address::from(registered)));
                self.registered = Some((occurred_at, registered.clone()));
            }
            Event::AddressCorrected(corrected) => {
                self.address = Some((occurred_at, Address::from(corrected)));
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
