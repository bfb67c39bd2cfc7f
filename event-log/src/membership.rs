//! Who should own which partitions, as a group of nodes agrees on it.
//!
//! Invariant: a wish, never a right. Two nodes may hold the same partition for a while; the log
//! says which of them owns it. Deliberately absent: claiming (`engine`).

use std::time::Duration;

use async_trait::async_trait;
use position::Partition;

use crate::log::LogError;

/// How a node takes part in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipOptions {
    /// The group: every node that shares out the log's partitions names the same.
    pub group: String,
    /// The node's name, for people who look at the group.
    pub node: String,
    /// After how long without a sign of life the group gives a node's partitions to others.
    pub session_timeout: Duration,
}

/// What the group tells a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// The node should own these from now on, beside those that it was told of before.
    Gained(Vec<Partition>),
    /// The node should no longer own these; another one will be told to. Whoever owns goes on
    /// until it is asked to hand over or another one claims.
    Lost(Vec<Partition>),
}

/// A node's place in its group.
#[async_trait]
pub trait Membership: Send {
    /// The next change; waits for it. Safe to cancel: a change that was not returned comes again.
    ///
    /// # Errors
    /// `Unavailable`: the group cannot be reached for good; what was assigned stays assigned.
    async fn next(&mut self) -> Result<Assignment, LogError>;

    /// Leaves the group, so that it shares out this node's partitions at once.
    async fn leave(&mut self);
}

/// The group of a node that is alone: every partition is its own.
pub struct Everything {
    gained: Option<Vec<Partition>>,
}

impl Everything {
    /// The membership of the only node of a log with so many partitions.
    #[must_use]
    pub fn of(partition_count: u32) -> Self {
        let all = (0..partition_count).map(Partition).collect();
        Self { gained: Some(all) }
    }
}

#[async_trait]
impl Membership for Everything {
    async fn next(&mut self) -> Result<Assignment, LogError> {
        match self.gained.take() {
            Some(all) => Ok(Assignment::Gained(all)),
            None => std::future::pending().await,
        }
    }

    async fn leave(&mut self) {}
}
