//! The events of a customer.

use kernel::messages;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::vocabulary::{City, Name, PostcodePrefix, StateName};

messages! {
    /// The events of a customer.
    pub enum Event {
        /// The customer was registered.
        CustomerRegistered,
        /// Their address was corrected.
        AddressCorrected,
    }
}

/// A customer was registered, with their address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomerRegistered {
    /// The person's name, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The city they live in.
    pub city: City,
    /// The state they live in.
    pub state: StateName,
    /// The first part of their postcode.
    pub postcode_prefix: PostcodePrefix,
}

/// A customer's address was corrected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressCorrected {
    /// The city they live in.
    pub city: City,
    /// The state they live in.
    pub state: StateName,
    /// The first part of their postcode.
    pub postcode_prefix: PostcodePrefix,
}
