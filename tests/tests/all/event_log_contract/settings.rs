//! The settings of a topic: each wrong setting is named, with the command that repairs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{Engine, EngineOptions, StartError};
use event_log::create::{CreateOptions, create};
use event_log::log::{self, EventLog, LogAddress, LogError, SettingProblem};
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::{kafka, unique_name};

use crate::raw_log::admin;
use crate::write_side::shop;

const RIGHT: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "LogAppendTime"),
    ("max.message.bytes", "1048576"),
];

const WRONG: [(&str, &str); 7] = [
    ("cleanup.policy", "compact"),
    ("cleanup.policy", "compact,delete"),
    ("retention.ms", "604800000"),
    ("retention.bytes", "1073741824"),
    ("message.timestamp.type", "CreateTime"),
    ("max.message.bytes", "1048575"),
    ("max.message.bytes", "1000"),
];

async fn topic_with(settings: &BTreeMap<&str, &str>) -> (String, Arc<dyn EventLog>) {
    let topic = unique_name("settings");
    let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, *v)).collect();
    kafka::shared().create_topic(&topic, 2, &settings).await;
    let log = log::open(&address(&topic)).await.unwrap();
    (topic, log)
}

fn address(topic: &str) -> LogAddress {
    LogAddress::Kafka {
        brokers: kafka::shared().bootstrap().to_owned(),
        topic: topic.to_owned(),
    }
}

async fn problems(log: &dyn EventLog) -> Vec<SettingProblem> {
    match log.check().await {
        Ok(_) => Vec::new(),
        Err(LogError::Settings(problems)) => problems,
        Err(error) => panic!("{error}"),
    }
}

/// Does what the advised command would do, and keeps the settings from before.
async fn mend(topic: &str, settings: &BTreeMap<&str, &str>, mend: &str) {
    let bootstrap = kafka::shared().bootstrap();
    let command = format!(
        "kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics \
         --entity-name {topic} --add-config "
    );
    let (name, value) = mend
        .strip_prefix(&command)
        .unwrap()
        .split_once('=')
        .unwrap();
    let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in settings {
        config = config.set(name, value);
    }
    config = config.set(name, value);
    let altered = admin(bootstrap)
        .alter_configs([&config], &AdminOptions::new())
        .await;
    altered.unwrap()[0].as_ref().unwrap();
}

#[tokio::test]
async fn each_wrong_setting_of_a_topic_is_named_with_the_command_that_mends_it() {
    let right = BTreeMap::from(RIGHT);
    let (_, log) = topic_with(&right).await;
    let warnings = log.check().await.unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("not durable"), "{warnings:?}");
    for (name, value) in WRONG {
        let mut settings = right.clone();
        settings.insert(name, value);
        let (topic, log) = topic_with(&settings).await;
        let found = problems(&*log).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&*found[0].setting, &*found[0].found), (name, value));
        let message = log.check().await.unwrap_err().to_string();
        for part in [name, value, &*found[0].needed, &*found[0].mend] {
            assert!(message.contains(part), "{message}");
        }
        settings.remove(name);
        mend(&topic, &settings, &found[0].mend).await;
        super::until("it is mended", async || problems(&*log).await.is_empty()).await;
    }
}

#[tokio::test]
async fn all_wrong_settings_are_named_at_once_and_nobody_writes() {
    let wrong: BTreeMap<&str, &str> = WRONG.into_iter().rev().collect();
    let (topic, log) = topic_with(&wrong).await;
    let named: Vec<String> = problems(&*log)
        .await
        .into_iter()
        .map(|p| p.setting)
        .collect();
    assert_eq!(named.len(), 5, "{named:?}");
    let options = EngineOptions::alone(None);
    let Err(error) = Engine::start(log, shop(), options).await else {
        panic!("it started on unsafe settings")
    };
    assert!(
        matches!(&error, StartError::Log(LogError::Settings(_))),
        "{error}"
    );
    let address = address(&topic);
    let making = CreateOptions {
        store: log::StoreOptions {
            partition_count: 2,
            replication: 1,
        },
        idempotency_window_ms: 1,
        node: "test".to_owned(),
    };
    let made = create(&address, &making).await;
    assert!(made.is_err(), "nor is such a topic claimed");
    let log = log::open(&address).await.unwrap();
    for partition in [0, 1].map(position::Partition) {
        assert_eq!(
            log.bounds(partition).await.unwrap().end,
            position::Offset(0)
        );
    }
}

#[tokio::test]
async fn a_log_that_we_make_has_the_right_settings() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let new = NewLog::make(kind, 1).await;
        let warnings = new.log.check().await.unwrap();
        assert_eq!(warnings.is_empty(), kind == Kind::Sqlite, "{warnings:?}");
    }
}
