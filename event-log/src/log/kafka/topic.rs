//! Creates topics, and compares the log's settings with what the protocol needs.
//!
//! Invariant: several processes may create a topic at once; one that exists is not an error.

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
    TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{REQUEST_TIMEOUT, Topic, failed};
use crate::log::{LogError, SettingProblem, StoreOptions};

/// The least value of `max.message.bytes`, the limit on a record's size.
const MESSAGE_BYTES_MIN: u64 = 1 << 20;

/// The settings of a log's topic that must have exactly these values.
pub const TOPIC_SETTINGS: [(&str, &str); 4] = [
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

impl Topic {
    /// Creates the log's topic and the directory's topic, unless they exist.
    pub(in crate::log) async fn create(&self, options: StoreOptions) -> Result<(), LogError> {
        // Ask first: if the brokers refuse the client, this request gives a better reason.
        self.partition_count().await?;
        let partitions = i32::try_from(options.partition_count).unwrap_or(i32::MAX);
        let replication = i32::from(options.replication);
        let insync = if options.replication >= 3 { "2" } else { "1" };
        let mut log = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(replication))
            .set("max.message.bytes", "2097152")
            .set("min.insync.replicas", insync)
            .set("unclean.leader.election.enable", "false");
        log.config.extend(TOPIC_SETTINGS);
        self.make(&[log, owners(&self.owners().name, replication)])
            .await
    }

    /// Creates the directory's topic if it does not exist, with as many replicas as this topic.
    pub(super) async fn ensure_owners(&self) -> Result<(), LogError> {
        let topic = self.owners();
        if topic.replicas().await? > 0 {
            return Ok(());
        }
        let replication = i32::try_from(self.replicas().await?.max(1)).unwrap_or(i32::MAX);
        self.make(&[owners(&topic.name, replication)]).await
    }

    async fn make(&self, topics: &[NewTopic<'_>]) -> Result<(), LogError> {
        let made = self.admin()?.create_topics(topics, &timeouts()).await;
        require("make the topic", made, RDKafkaErrorCode::TopicAlreadyExists)
    }

    /// Removes the log's topic and the directory's topic.
    pub(in crate::log) async fn remove(&self) -> Result<(), LogError> {
        let topics = [&*self.name, &self.owners().name];
        let removed = self.admin()?.delete_topics(&topics, &timeouts()).await;
        require(
            "remove the topic",
            removed,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        )
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, LogError> {
        let admin = self.client().create();
        admin.map_err(failed("make a Kafka client"))
    }
}

fn timeouts() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(REQUEST_TIMEOUT))
        .request_timeout(Some(REQUEST_TIMEOUT))
}

fn owners(name: &str, replication: i32) -> NewTopic<'_> {
    let mut topic = NewTopic::new(name, 1, TopicReplication::Fixed(replication));
    topic.config.extend(OWNERS);
    topic
}

/// Fails with the first error of `results` that is not `expected`.
fn require(
    operation: &'static str,
    results: Result<Vec<TopicResult>, KafkaError>,
    expected: RDKafkaErrorCode,
) -> Result<(), LogError> {
    for result in results.map_err(failed(operation))? {
        if let Err((_, code)) = result
            && code != expected
        {
            return Err(LogError::unavailable(operation, code));
        }
    }
    Ok(())
}

/// Returns warnings about settings that are allowed but risky. Unsafe settings are errors.
pub(super) async fn check(topic: &Topic) -> Result<Vec<String>, LogError> {
    let resource = [ResourceSpecifier::Topic(&topic.name)];
    let timeouts = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let described = topic
        .admin()?
        .describe_configs(&resource, &timeouts)
        .await
        .map_err(failed("ask the brokers for the topic's settings"))?;
    let config = described
        .into_iter()
        .next()
        .ok_or_else(|| LogError::unavailable("read the topic's settings", "no answer"))?
        .map_err(|code| LogError::unavailable("read the topic's settings", code))?;
    let problems = problems(topic, &config);
    if !problems.is_empty() {
        return Err(LogError::Settings(problems));
    }
    Ok(warnings(topic.replicas().await?, &config))
}

fn value<'a>(config: &'a ConfigResource, name: &str) -> Option<&'a str> {
    config.get(name)?.value.as_deref()
}

fn problems(topic: &Topic, config: &ConfigResource) -> Vec<SettingProblem> {
    let Topic { name, brokers, .. } = topic;
    let problem = |setting: &str, found: &str, needed: &str, set: &str| SettingProblem {
        setting: setting.to_owned(),
        found: found.to_owned(),
        needed: needed.to_owned(),
        mend: format!(
            "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics \
             --entity-name {name} --add-config {setting}={set}"
        ),
    };
    let found = |setting| value(config, setting).unwrap_or("unknown");
    let mut problems = Vec::new();
    for (setting, needed) in TOPIC_SETTINGS {
        if found(setting) != needed {
            problems.push(problem(setting, found(setting), needed, needed));
        }
    }
    let (setting, needed) = ("max.message.bytes", "at least 1048576");
    let bytes = found(setting).parse::<u64>().ok();
    if bytes.is_none_or(|bytes| bytes < MESSAGE_BYTES_MIN) {
        problems.push(problem(setting, found(setting), needed, "2097152"));
    }
    problems
}

fn warnings(replicas: usize, config: &ConfigResource) -> Vec<String> {
    let min_insync = value(config, "min.insync.replicas").unwrap_or_default();
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
    if value(config, "unclean.leader.election.enable") == Some("true") {
        warnings.push(
            "unclean.leader.election.enable is true: an election can lose acknowledged records"
                .into(),
        );
    }
    warnings
}
