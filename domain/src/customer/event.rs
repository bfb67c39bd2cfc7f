//! The events of a customer.

use kernel::messages;

use crate::vocabulary::{City, Name, PostcodePrefix, StateName};

messages! {
    /// The events of a customer.
    pub enum Event {
        /// A customer was registered, with their address.
        #[schemars(extend("examples" = [{
            "name": "Ana Souza", "city": "sao paulo", "state": "SP", "postcode_prefix": "01310"
        }]))]
        CustomerRegistered {
            /// The person's name, if it is known.
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<Name>,
            /// The city they live in.
            city: City,
            /// The state they live in.
            state: StateName,
            /// The first part of their postcode.
            postcode_prefix: PostcodePrefix,
        },
        /// A customer's address was corrected.
        #[schemars(extend("examples" = [{
            "city": "campinas", "state": "SP", "postcode_prefix": "13010"
        }]))]
        AddressCorrected {
            /// The city they live in.
            city: City,
            /// The state they live in.
            state: StateName,
            /// The first part of their postcode.
            postcode_prefix: PostcodePrefix,
        },
    }
}
