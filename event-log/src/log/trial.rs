//! What putting a cluster to the test needs of it beside a log: how large it is, a member of the
//! nodes' group that falls silent, and removing what was made.
//!
//! Invariant: only what begins with [`PREFIX`] is ever removed. Deliberately absent: the test
//! itself (`audit`).

use std::time::{Duration, Instant};

use super::{KafkaLog, LogAddress, LogError, LogPlace};
use crate::membership::MembershipOptions;

/// What the topics of trials begin with.
pub const PREFIX: &str = "annals-verify-";

/// Removes the store of a trial.
///
/// # Errors
/// `Unavailable`; also where it is no trial's.
pub async fn remove(place: &LogPlace) -> Result<(), LogError> {
    match &place.address {
        LogAddress::Kafka { brokers, topic } if topic.starts_with(PREFIX) => {
            KafkaLog::remove(brokers, topic, &place.kafka).await
        }
        address @ (LogAddress::Kafka { .. } | LogAddress::Sqlite { .. }) => Err(
            LogError::unavailable("remove a log", format!("{address} is no trial's")),
        ),
    }
}

/// How many brokers there are; none for a file.
///
/// # Errors
/// `Unavailable`.
pub async fn broker_count(place: &LogPlace) -> Result<usize, LogError> {
    match &place.address {
        LogAddress::Kafka { brokers, topic } => {
            KafkaLog::broker_count(brokers, topic, &place.kafka).await
        }
        LogAddress::Sqlite { .. } => Ok(0),
    }
}

/// Joins the group of nodes, takes partitions, and falls silent without leaving, as a node that
/// lost its power does; returns since when it is silent.
///
/// # Errors
/// `Unavailable`; also where no partition is assigned within `wait`, or there is no group.
pub async fn fall_silent(
    place: &LogPlace,
    partition_count: u32,
    options: &MembershipOptions,
    wait: Duration,
) -> Result<Instant, LogError> {
    match &place.address {
        LogAddress::Kafka { brokers, topic } => {
            let taken = (topic.as_str(), partition_count);
            KafkaLog::fall_silent(brokers, taken, &place.kafka, options, wait).await
        }
        LogAddress::Sqlite { .. } => {
            let why = "a log in a file has no group";
            Err(LogError::unavailable("join the nodes' group", why))
        }
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
