//! The business: customers, orders and their payments, as rules.
//!
//! Every aggregate has the same files in the same order: `command` (what may be asked), `event`
//! (what may have happened), `rejection` (why a request is refused), `state` (what is remembered,
//! and how an event changes it), `decide` (the rules). Invariant: a rule is a plain function of
//! state, command and context. Deliberately absent: I/O, clocks, ids being made, any log or door.

pub mod customer;
pub mod order;
pub mod payment;
pub mod vocabulary;

pub use customer::Customer;
pub use order::Order;
pub use payment::Payment;
