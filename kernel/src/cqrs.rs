//! Adapters to and from the crate `cqrs-es`, for whose `Aggregate` trait many aggregates exist.
//!
//! [`Rules`] presents a [`Decider`](crate::Decider) as such an aggregate, so that the crate's
//! `TestFramework` can test our rules. [`Adopted`] runs such an aggregate, unchanged, as a
//! `Decider`. Deliberately absent: the crate's stores, queries and upcasters; the engine does their
//! work.

mod adopted;
mod rules;
#[cfg(test)]
mod tests;
mod variant;

pub use adopted::{
    Adopted, AdoptedCommand, AdoptedEvent, AdoptedRejection, AdoptedState, Adoption,
};
pub use rules::{Asked, Happened, Rules};
pub use variant::decode_variant;
