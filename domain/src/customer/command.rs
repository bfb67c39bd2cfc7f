//! The commands of a customer.

use kernel::messages;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::vocabulary::{City, Name, PostcodePrefix, StateName};

messages! {
    /// The commands of a customer.
    pub enum Command {
        /// Registers a customer.
        RegisterCustomer,
        /// Corrects their address.
        CorrectAddress,
    }
}

/// Registers a customer, with their address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "name": "Ana Souza", "city": "sao paulo", "state": "SP", "postcode_prefix": "01310"
}]))]
pub struct RegisterCustomer {
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

/// Corrects a customer's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "city": "campinas", "state": "SP", "postcode_prefix": "13010"
}]))]
pub struct CorrectAddress {
    /// The city they live in.
    pub city: City,
    /// The state they live in.
    pub state: StateName,
    /// The first part of their postcode.
    pub postcode_prefix: PostcodePrefix,
}
