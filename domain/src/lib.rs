//! The business: customers, orders and their payments, as rules.
//!
//! Every aggregate has the same files in the same order: `command` (what clients may request),
//! `event` (what may have happened), `rejection` (why a command is refused), `state` (what the
//! rules need to know, and how an event changes it), `decide` (the rules). Invariant: a rule is a
//! pure function of state, command and context. Deliberately absent: I/O, clocks, generating ids,
//! any log or door.

pub mod customer;
pub mod order;
pub mod payment;
pub mod vocabulary;

pub use customer::Customer;
pub use order::Order;
pub use payment::Payment;
