//! Following the log: records in, proven batches of accepted commits out.
//!
//! Invariant: nothing is handed out for being made durable unless the reader has proven, where the
//! protocol asks for it, that it continues the log it knows. A batch holds all records since the
//! last durable checkpoint of its partition; the follower's owner makes it durable together with
//! [`Batch::after`] and says so before it asks for more. Deliberately absent: what is made of it.

mod driver;
mod follower;

pub use driver::{Subscription, SubscriptionError};
pub use follower::{Batch, Follower, OrphanCounts, Placed, ProofNeed, Unchecked};
