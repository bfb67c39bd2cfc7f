//! A log that is taken away or replaced while it is in use: its file, its topic, its settings, and
//! a database with another log's read models.
//!
//! Invariant tested: after that, no command is answered as accepted in a log that its address no
//! longer leads to, and nobody silently continues with another log.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Engine;
use engine::command::{Answer, SubmitError};
use event_log::create::{CreateOptions, create, first_claim};
use event_log::log::{LogAddress, LogError, LogWatch, StoreOptions};
use position::Partition;
use projector::{Projector, RuntimeError, TaskState, require_log};
use query_api::{QueryDoor, router};
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use serde_json::json;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, places, read_models};

use crate::event_log_contract::reading::cut_head;
use crate::projections::{caught_up, database, execute, scalar, until};
use crate::raw_log::{RawLog, admin, delete_topic};
use crate::write_side::{request, shop, start};

/// How often the watch of these tests looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

async fn register(engine: &Engine, customer: u32) -> Result<Answer, SubmitError> {
    let data = json!({"city": "recife", "state": "PE", "postcode_prefix": "50000"});
    let stream = format!("customer-{customer}");
    let command = engine
        .prepare(request(&stream, "RegisterCustomer", "id", &data))
        .unwrap();
    let patience = Duration::from_secs(2);
    engine.submit(command, Instant::now() + patience).await
}

fn path_of(log: &NewLog) -> PathBuf {
    match &log.address {
        LogAddress::Sqlite { path } => path.clone(),
        LogAddress::Kafka { .. } => panic!("no file"),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

type Harm = (&'static str, fn(&Path));

/// What people and their scripts do to files.
const HARMS: [Harm; 8] = [
    ("deleted", |path| fs::remove_file(path).unwrap()),
    ("moved", |path| {
        fs::rename(path, beside(path, ".old")).unwrap()
    }),
    ("replaced by its copy", |path| {
        let copy = beside(path, ".copy");
        fs::copy(path, &copy).unwrap();
        fs::rename(copy, path).unwrap();
    }),
    ("overwritten by an older copy", |path| {
        fs::write(path, "").unwrap()
    }),
    ("its folder moved", |path| {
        let folder = path.parent().unwrap();
        fs::rename(folder, beside(folder, ".old")).unwrap();
    }),
    ("-wal deleted", |path| {
        fs::remove_file(beside(path, "-wal")).unwrap()
    }),
    ("-wal replaced", |path| {
        let copy = beside(path, ".copy");
        fs::copy(beside(path, "-wal"), &copy).unwrap();
        fs::rename(copy, beside(path, "-wal")).unwrap();
    }),
    ("-shm deleted", |path| {
        fs::remove_file(beside(path, "-shm")).unwrap()
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_is_accepted_once_the_logs_path_leads_elsewhere() {
    for (harm, make) in HARMS {
        let log = NewLog::make(Kind::Sqlite, 2).await;
        let engine = start(&log).await;
        let watch = LogWatch::begin(Arc::clone(&log.log), LOOK_EVERY);
        for customer in 0..5 {
            register(&engine, customer).await.unwrap();
        }
        assert_eq!(
            (engine.readiness(), watch.verdict()),
            (Ok(()), Ok(())),
            "{harm}"
        );
        make(&path_of(&log));
        let sent = (100..140).map(|customer| register(&engine, customer));
        for answer in futures::future::join_all(sent).await {
            let outcome = matches!(
                answer,
                Err(SubmitError::Unknown | SubmitError::TurnedAway { .. })
            );
            assert!(outcome, "{harm}: {answer:?}");
        }
        let readiness = engine.readiness().unwrap_err();
        assert!(
            readiness.contains("while it was open"),
            "{harm}: {readiness}"
        );
        let read = log.log.bounds(Partition(0)).await;
        assert!(
            matches!(read, Err(LogError::Replaced(_))),
            "{harm}: {read:?}"
        );
        until("the watch says so", async || watch.verdict().is_err()).await;
        // If the file comes back, nobody knows what happened meanwhile: only a new start may go on.
        assert!(register(&engine, 7).await.is_err(), "{harm}");
    }
}

#[tokio::test]
async fn a_reader_of_a_file_that_was_replaced_stops_instead_of_waiting_for_ever() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    // Open the log as another process would that only reads.
    let reading = event_log::log::open(&log.address).await.unwrap();
    let projector = Projector::spawn(&reading, &url, &read_models(), 1).unwrap();
    until("it follows", async || projector.ready().is_ok()).await;
    fs::remove_file(path_of(&log)).unwrap();
    until("it stopped", async || {
        let stopped = |state: &TaskState| matches!(state, TaskState::Stopped(_));
        projector.status().iter().all(|task| stopped(&task.state))
    })
    .await;
    let said = projector.ready().unwrap_err();
    assert!(said.contains("deleted or moved"), "{said}");
}

/// Replaces all settings of a topic.
pub(crate) async fn configure(log: &LogAddress, changed: Option<(&str, &str)>) {
    let LogAddress::Kafka { brokers, topic } = log else {
        panic!("no topic");
    };
    let mut settings = BTreeMap::from([
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", "2097152"),
    ]);
    settings.extend(changed);
    let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in &settings {
        config = config.set(name, value);
    }
    let client = admin(brokers);
    let altered = client.alter_configs([&config], &AdminOptions::new()).await;
    altered.unwrap()[0].as_ref().unwrap();
}

#[tokio::test]
async fn a_topic_that_becomes_unsafe_while_it_is_used_is_noticed() {
    let log = NewLog::make(Kind::Kafka, 2).await;
    let watch = LogWatch::begin(Arc::clone(&log.log), LOOK_EVERY);
    for (setting, value) in [
        ("retention.ms", "604800000"),
        ("retention.bytes", "1073741824"),
        ("cleanup.policy", "compact"),
    ] {
        configure(&log.address, Some((setting, value))).await;
        until("it is noticed", async || watch.verdict().is_err()).await;
        let said = watch.verdict().unwrap_err();
        assert!(
            said.contains(setting) && said.contains("--add-config"),
            "{said}"
        );
        configure(&log.address, None).await;
        until("it is mended", async || watch.verdict().is_ok()).await;
    }
}

fn making() -> CreateOptions {
    CreateOptions {
        store: StoreOptions {
            partition_count: 2,
            replication: 1,
        },
        idempotency_window_ms: 60_000,
        node: "test".to_owned(),
    }
}

/// Both with commits left after the deleted claim, and with all records deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_beginning_was_deleted_is_not_made_anew() {
    for (kind, is_all) in [
        (Kind::Sqlite, false),
        (Kind::Kafka, false),
        (Kind::Kafka, true),
    ] {
        let log = NewLog::make(kind, 2).await;
        let engine = start(&log).await;
        for customer in 0..40 {
            register(&engine, customer).await.unwrap();
        }
        let watch = LogWatch::begin(Arc::clone(&log.log), LOOK_EVERY);
        until("it has looked", async || {
            tokio::time::sleep(LOOK_EVERY * 2).await;
            true
        })
        .await;
        engine.drain(Duration::from_secs(5)).await;
        let end = log.log.bounds(Partition(0)).await.unwrap().end.0;
        let first = if is_all { end } else { 3 };
        cut_head(&RawLog::of(&log), first.cast_signed()).await;
        until("it is noticed", async || watch.verdict().is_err()).await;
        let said = watch.verdict().unwrap_err();
        assert!(
            said.contains("beginning of partition 0"),
            "{kind:?}: {said}"
        );
        let found = first_claim(&*log.log, Partition(0)).await;
        assert!(
            matches!(found, Err(LogError::BeginningGone { .. })),
            "{kind:?}: {found:?}"
        );
        let made = create(&log.address, &making()).await;
        let made = made.map(|_| ()).unwrap_err().to_string();
        assert!(
            made.contains("beginning of partition 0"),
            "{kind:?}: {made}"
        );
        assert_eq!(
            log.log.bounds(Partition(0)).await.unwrap().end.0,
            end,
            "{kind:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_do_not_go_on_in_a_topic_that_was_deleted_and_made_anew() {
    let log = NewLog::make(Kind::Kafka, 2).await;
    let engine = start(&log).await;
    let watch = LogWatch::begin(Arc::clone(&log.log), LOOK_EVERY);
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    for customer in 0..10 {
        register(&engine, customer).await.unwrap();
    }
    let projector = Projector::spawn(&log.log, &url, &read_models(), 1).unwrap();
    until("it follows", async || projector.ready().is_ok()).await;
    let LogAddress::Kafka { brokers, topic } = &log.address else {
        panic!("no topic");
    };
    delete_topic(brokers, topic, &log.address).await;
    let (_, anew, _) = create(&log.address, &making()).await.unwrap();
    assert_ne!(anew, log.id);
    until("the watch says so", async || watch.verdict().is_err()).await;
    // The clients of the brokers need time to notice; meanwhile no command is answered.
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        // A command may meanwhile be written to the new topic, where it does not count.
        let answered = register(&engine, 77).await;
        assert!(answered.is_err(), "{answered:?}");
        let said = engine.readiness().err().unwrap_or_default();
        // An owner met the other log's claim, or its last record is gone; the watch says which of
        // the two it is.
        let is_stopped = |partition: u32| {
            let of = format!("partition {partition}: ");
            let reasons = said.split("; ");
            let reason = reasons.filter_map(|reason| reason.strip_prefix(&of)).next();
            reason.is_some_and(|why| why.contains("made anew") || why.contains("proof failed"))
        };
        if is_stopped(0) && is_stopped(1) {
            break;
        }
        assert!(Instant::now() < deadline, "the owners go on: {said}");
    }
    until("the projector stopped", async || {
        let stopped = |state: &TaskState| matches!(state, TaskState::Stopped(_));
        projector.status().iter().all(|task| stopped(&task.state))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_shows_and_takes_the_read_models_of_one_log_only() {
    let (production, staging) = (
        NewLog::make(Kind::Sqlite, 2).await,
        NewLog::make(Kind::Sqlite, 2).await,
    );
    for log in [&production, &staging] {
        let engine = start(log).await;
        register(&engine, 1).await.unwrap();
        engine.drain(Duration::from_secs(5)).await;
    }
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    require_log(&*staging.log, &url).await.unwrap();
    caught_up(&production.log, &url).await;
    require_log(&*production.log, &url).await.unwrap();
    let count = "SELECT count(*) FROM read.stream_commits";
    let before: i64 = scalar(&url, count).await;

    let is_refused = |error: &RuntimeError| {
        let said = error.to_string();
        let names = [&production, &staging].iter().all(|log| {
            said.contains(&log.id.to_string()) && said.contains(&log.address.to_string())
        });
        matches!(error, RuntimeError::OtherLog { .. }) && names
    };
    let all = read_models();
    let refused = require_log(&*staging.log, &url).await.unwrap_err();
    assert!(is_refused(&refused), "{refused}");
    let refused = places(&*staging.log, &url, &all).await;
    assert!(refused.as_ref().is_err_and(&is_refused), "{refused:?}");
    let nothing = || Box::new(|_| {});
    let refused = projector::catch_up(&staging.log, &url, &all, nothing()).await;
    assert!(refused.as_ref().is_err_and(&is_refused), "{refused:?}");
    let refused =
        projector::rebuild(&staging.log, &url, &all, "stream_index", NOW, nothing()).await;
    assert!(refused.as_ref().is_err_and(&is_refused), "{refused:?}");
    let projector = Projector::spawn(&staging.log, &url, &all, 1).unwrap();
    until("the projector stopped", async || {
        let said = projector.ready().err().unwrap_or_default();
        said.contains("holds the read models of log")
    })
    .await;
    let door = QueryDoor::new(&staging.log, &url, &all, shop()).unwrap();
    let said = door.ready().await.unwrap_err();
    assert!(said.contains("holds the read models of log"), "{said}");
    let _ = router(door);
    assert_eq!(scalar::<i64>(&url, count).await, before);

    // The message gives the commands that hand the database to the other log.
    execute(&url, "DROP SCHEMA annals, projection, read CASCADE").await;
    projector::migrate(&url).await.unwrap();
    caught_up(&staging.log, &url).await;
    assert_eq!(scalar::<i64>(&url, count).await, before);
    assert!(require_log(&*production.log, &url).await.is_err());
}
