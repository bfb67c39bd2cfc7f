//! Why a request to a customer is refused, in order of precedence.

use kernel::{Timestamp, rejections};

rejections! {
    /// The rules of customers that a command may break.
    #[derive(Eq)]
    pub enum Rejection {
        /// The address of an unknown customer cannot be corrected.
        NotRegistered => "customer_not_registered", "the customer is not registered",
        /// A customer is registered once.
        AlreadyRegistered {
            /// When they were registered.
            registered_at: Timestamp,
        } =>
            "customer_already_registered",
            "the customer was already registered at {registered_at}",
        /// An address with an older date does not replace a newer one.
        AddressSuperseded {
            /// Since when the present address is valid.
            address_since: Timestamp,
        } =>
            "customer_address_superseded",
            "the customer has had another address since {address_since}",
    }
}
