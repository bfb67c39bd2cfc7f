//! Creates topics, and compares the log's settings with what the protocol needs.
//!
//! Invariant: creating a topic that exists is not an error, so several processes may create it at
//! once.

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::{Brokers, REQUEST_TIMEOUT, blocking, failed};
use crate::log::{LogError, SettingProblem, StoreOptions};
use rdkafka::consumer::{BaseConsumer, Consumer};

/// The least value of `max.message.bytes`, the limit on a record's size.
const MESSAGE_BYTES_MIN: u64 = 1 << 20;

/// The settings that must have exactly these values.
const EXACT: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "LogAppendTime"),
];

/// The settings of the directory's topic. Nodes repeat their entries every few seconds and every
/// reader starts at the beginning, so the topic is compacted early and in small segments.
const OWNERS: [(&str, &str); 8] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "4194304"),
    ("segment.ms", "600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("max.compaction.lag.ms", "3600000"),
    ("max.message.bytes", "65536"),
    ("min.insync.replicas", "1"),
    ("message.timestamp.type", "LogAppendTime"),
];

/// The name of the directory's topic that belongs to a log's topic.
pub(super) fn owners_topic(topic: &str) -> String {
    format!("{topic}.owners")
}

fn admin(brokers: &Brokers) -> Result<AdminClient<DefaultClientContext>, LogError> {
    brokers
        .client()
        .create()
        .map_err(failed("make a Kafka client"))
}

pub(super) async fn create_topic(
    brokers: &Brokers,
    topic: &str,
    options: StoreOptions,
) -> Result<(), LogError> {
    // Ask first: this request gives a better reason than the request below if the brokers refuse
    // the client.
    let (asking, name) = (brokers.clone(), topic.to_owned());
    blocking(move || asking.partition_count(&name)).await?;
    let partitions = i32::try_from(options.partition_count).unwrap_or(i32::MAX);
    let replication = i32::from(options.replication);
    let insync = if options.replication >= 3 { "2" } else { "1" };
    let mut log = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication))
        .set("max.message.bytes", "2097152")
        .set("min.insync.replicas", insync)
        .set("unclean.leader.election.enable", "false");
    log.config.extend(EXACT);
    let owners = owners_topic(topic);
    let mut directory = NewTopic::new(&owners, 1, TopicReplication::Fixed(replication));
    directory.config.extend(OWNERS);
    make(brokers, &[log, directory]).await
}

/// Creates the directory's topic if it does not exist, with as many replicas as the log's topic.
pub(super) async fn ensure_owners_topic(brokers: &Brokers, topic: &str) -> Result<(), LogError> {
    let owners = owners_topic(topic);
    if replicas(brokers, &owners).await? > 0 {
        return Ok(());
    }
    let count = i32::try_from(replicas(brokers, topic).await?.max(1)).unwrap_or(i32::MAX);
    let mut directory = NewTopic::new(&owners, 1, TopicReplication::Fixed(count));
    directory.config.extend(OWNERS);
    make(brokers, &[directory]).await
}

async fn make(brokers: &Brokers, topics: &[NewTopic<'_>]) -> Result<(), LogError> {
    let timeouts = AdminOptions::new()
        .operation_timeout(Some(REQUEST_TIMEOUT))
        .request_timeout(Some(REQUEST_TIMEOUT));
    let results = admin(brokers)?
        .create_topics(topics, &timeouts)
        .await
        .map_err(failed("make the topic"))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(LogError::unavailable("make the topic", code)),
        }
    }
    Ok(())
}

/// Removes a topic and the directory's topic that belongs to it.
pub(super) async fn remove_topic(brokers: &Brokers, topic: &str) -> Result<(), LogError> {
    let owners = owners_topic(topic);
    let timeouts = AdminOptions::new()
        .operation_timeout(Some(REQUEST_TIMEOUT))
        .request_timeout(Some(REQUEST_TIMEOUT));
    let results = admin(brokers)?
        .delete_topics(&[topic, &owners], &timeouts)
        .await
        .map_err(failed("remove the topic"))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((_, code)) => return Err(LogError::unavailable("remove the topic", code)),
        }
    }
    Ok(())
}

/// Returns warnings about settings that are allowed but risky. Unsafe settings are errors.
pub(super) async fn check(brokers: &Brokers, topic: &str) -> Result<Vec<String>, LogError> {
    let resource = [ResourceSpecifier::Topic(topic)];
    let timeouts = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let described = admin(brokers)?
        .describe_configs(&resource, &timeouts)
        .await
        .map_err(failed("ask the brokers for the topic's settings"))?;
    let config = described
        .into_iter()
        .next()
        .ok_or_else(|| LogError::unavailable("read the topic's settings", "no answer"))?
        .map_err(|code| LogError::unavailable("read the topic's settings", code))?;
    let problems = problems(brokers, topic, &config);
    if !problems.is_empty() {
        return Err(LogError::Settings(problems));
    }
    let value = |name| {
        config
            .get(name)
            .and_then(|entry| entry.value.clone())
            .unwrap_or_default()
    };
    let replicas = replicas(brokers, topic).await?;
    Ok(warnings(
        replicas,
        &value("min.insync.replicas"),
        &value("unclean.leader.election.enable"),
    ))
}

fn problems(brokers: &Brokers, topic: &str, config: &ConfigResource) -> Vec<SettingProblem> {
    let addresses = brokers.addresses();
    let problem = |setting: &str, found: &str, needed: &str, set: &str| SettingProblem {
        setting: setting.to_owned(),
        found: found.to_owned(),
        needed: needed.to_owned(),
        mend: format!(
            "kafka-configs.sh --bootstrap-server {addresses} --alter --entity-type topics \
             --entity-name {topic} --add-config {setting}={set}"
        ),
    };
    let value = |name: &str| config.get(name).and_then(|entry| entry.value.as_deref());
    let mut problems = Vec::new();
    for (name, needed) in EXACT {
        let found = value(name).unwrap_or("unknown");
        if found != needed {
            problems.push(problem(name, found, needed, needed));
        }
    }
    let bytes = value("max.message.bytes").unwrap_or("unknown");
    if bytes
        .parse::<u64>()
        .is_ok_and(|bytes| bytes >= MESSAGE_BYTES_MIN)
    {
        return problems;
    }
    problems.push(problem(
        "max.message.bytes",
        bytes,
        "at least 1048576",
        "2097152",
    ));
    problems
}

/// The least number of replicas of any partition of the topic; 0 if the topic does not exist.
async fn replicas(brokers: &Brokers, topic: &str) -> Result<usize, LogError> {
    let (config, topic) = (brokers.client(), topic.to_owned());
    blocking(move || {
        let consumer: BaseConsumer = config.create().map_err(failed("make a Kafka client"))?;
        let metadata = consumer
            .fetch_metadata(Some(&topic), REQUEST_TIMEOUT)
            .map_err(failed("ask the brokers for the topic"))?;
        let partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        Ok(partitions
            .map(|partition| partition.replicas().len())
            .min()
            .unwrap_or(0))
    })
    .await
}

fn warnings(replicas: usize, min_insync: &str, unclean: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    if replicas < 3 {
        warnings.push(format!(
            "the topic has {replicas} replica(s): fine for development, but not durable against \
             the loss or power failure of a broker; production needs 3"
        ));
    }
    if replicas >= 3 && min_insync.parse::<u32>().is_ok_and(|count| count < 2) {
        warnings.push("min.insync.replicas is below 2: one broker's loss can lose records".into());
    }
    if unclean == "true" {
        warnings.push(
            "unclean.leader.election.enable is true: an election can lose acknowledged records"
                .into(),
        );
    }
    warnings
}
