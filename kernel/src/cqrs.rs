//! Neighbourhood with the crate `cqrs-es`, whose `Aggregate` many people's aggregates implement.
//!
//! [`Rules`] shows a [`Decider`](crate::Decider) as such an aggregate, so that the crate's
//! `TestFramework` tests our rules; [`Adopted`] runs such an aggregate, unchanged, as a `Decider`.
//! Deliberately absent: its stores, queries and upcasters, whose work is the engine's here.

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
