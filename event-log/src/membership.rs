//! Which node should own which partitions, as the nodes of a group agree.
//!
//! Invariant: an assignment is a wish and gives no right. Two nodes may be assigned the same
//! partition for a while; the log says which of them owns it. Deliberately absent: claiming
//! (`engine`).

use std::time::Duration;

use async_trait::async_trait;
use position::Partition;

use crate::log::LogError;

/// How a node takes part in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipOptions {
    /// The group's name. All nodes that share the log's partitions use the same name.
    pub group: String,
    /// The node's name, for people who look at the group.
    pub node: String,
    /// How long a node may give no sign of life before the group gives its partitions to others.
    pub session_timeout: Duration,
}

/// A change that the group tells a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// The node should own these partitions from now on, in addition to those assigned before.
    Gained(Vec<Partition>),
    /// The node should no longer own these partitions; another node will be told to. The owner goes
    /// on until it is asked to hand over or another node claims.
    Lost(Vec<Partition>),
}

/// A node's place in its group.
#[async_trait]
pub trait Membership: Send {
    /// Waits for the next change. Safe to cancel: a later call returns the same change.
    ///
    /// # Errors
    /// `Unavailable`: the group cannot be reached, for good. What was assigned stays assigned.
    async fn next(&mut self) -> Result<Assignment, LogError>;

    /// Leaves the group, so that the group gives this node's partitions to others at once.
    async fn leave(&mut self);
}

/// The membership of a single node: every partition is assigned to it.
pub struct Everything(Option<Vec<Partition>>);

impl Everything {
    /// The membership of the only node of a log with `partition_count` partitions.
    #[must_use]
    pub fn of(partition_count: u32) -> Self {
        Self(Some((0..partition_count).map(Partition).collect()))
    }
}

#[async_trait]
impl Membership for Everything {
    async fn next(&mut self) -> Result<Assignment, LogError> {
        match self.0.take() {
            Some(all) => Ok(Assignment::Gained(all)),
            None => std::future::pending().await,
        }
    }

    async fn leave(&mut self) {}
}
