//! Follows the log: takes records in, and hands out proven batches of accepted commits.
//!
//! Invariant: nothing is handed out to be made durable until the reader has proven, where the
//! protocol asks for it, that it continues the log it knows. A batch holds all records of its
//! partition since the batch before it; the first batch starts at the durable checkpoint. The
//! caller makes the batches durable in order, each together with [`Batch::after`]. Deliberately
//! absent: what is made of a batch.

mod driver;
mod follower;
mod pull;

pub use driver::{Subscription, SubscriptionError};
pub use follower::{Batch, Follower, OrphanCounts, Placed, ProofNeed};
pub use pull::{Pull, Pulled, is_other_log};
