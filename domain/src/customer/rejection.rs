//! Why a request to a customer is refused, in order of precedence.

use kernel::{Timestamp, facts_of};
use serde::Serialize;
use serde_json::{Map, Value};

/// The rules of customers that a command may break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(untagged)]
pub enum Rejection {
    /// The address of an unknown customer cannot be corrected.
    #[error("the customer is not registered")]
    NotRegistered,
    /// A customer is registered once.
    #[error("the customer was already registered at {registered_at}")]
    AlreadyRegistered {
        /// When they were registered.
        registered_at: Timestamp,
    },
    /// An address with an older date does not replace a newer one.
    #[error("the customer has had another address since {address_since}")]
    AddressSuperseded {
        /// Since when the present address is valid.
        address_since: Timestamp,
    },
}

impl kernel::Rejection for Rejection {
    fn code(&self) -> &str {
        match self {
            Self::NotRegistered => "customer_not_registered",
            Self::AlreadyRegistered { .. } => "customer_already_registered",
            Self::AddressSuperseded { .. } => "customer_address_superseded",
        }
    }

    fn facts(&self) -> Map<String, Value> {
        facts_of(self)
    }
}
