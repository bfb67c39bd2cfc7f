//! What testing a cluster needs in addition to a log: the number of brokers, a member of the nodes'
//! group that falls silent, and removing the test's store.
//!
//! Invariant: only topics whose name begins with [`PREFIX`] are ever removed. Deliberately absent:
//! the test itself (`audit`).

use std::time::{Duration, Instant};

use super::kafka::{self, Topic};
use super::{LogAddress, LogError, LogPlace};
use crate::membership::MembershipOptions;

/// The prefix of the names of test topics.
pub const PREFIX: &str = "annals-verify-";

/// Removes the store of a test.
///
/// # Errors
/// `Unavailable`; also if the store is not a test's.
pub async fn remove(place: &LogPlace) -> Result<(), LogError> {
    let trials = topic(place).filter(|topic| topic.name.starts_with(PREFIX));
    let not_a_trials = || {
        let why = format!("{} is no trial's", place.address);
        LogError::unavailable("remove a log", why)
    };
    trials.ok_or_else(not_a_trials)?.remove().await
}

/// The number of brokers; 0 for a file.
pub async fn broker_count(place: &LogPlace) -> Result<usize, LogError> {
    match topic(place) {
        Some(topic) => topic.broker_count().await,
        None => Ok(0),
    }
}

/// Joins the group of nodes, takes partitions, and falls silent without leaving, like a node that
/// lost its power. Returns the time since which it is silent.
///
/// # Errors
/// `Unavailable`; also if no partition is assigned within `wait`, or if the log has no group.
pub async fn fall_silent(
    place: &LogPlace,
    partition_count: u32,
    options: &MembershipOptions,
    wait: Duration,
) -> Result<Instant, LogError> {
    let why = "a log in a file has no group";
    let no_group = || LogError::unavailable("join the nodes' group", why);
    let topic = topic(place).ok_or_else(no_group)?;
    kafka::fall_silent(&topic, partition_count, options, wait).await
}

fn topic(place: &LogPlace) -> Option<Topic> {
    match &place.address {
        LogAddress::Kafka { brokers, topic } => Some(Topic::new(brokers, topic, &place.kafka)),
        LogAddress::Sqlite { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_trials_is_never_removed() {
        for address in ["kafka://127.0.0.1:1/orders", "sqlite:annals-verify-x.db"] {
            let address: LogAddress = address.parse().unwrap();
            let error = remove(&LogPlace::from(&address)).await.unwrap_err();
            let LogError::Unavailable { source, .. } = error else {
                panic!("{error}");
            };
            assert!(source.to_string().ends_with("is no trial's"), "{source}");
        }
    }
}
