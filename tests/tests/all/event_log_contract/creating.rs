//! Making a log: again, by two at once, and after a crash in the middle.

use engine::create::{CreateError, CreateOptions, create, first_claim};
use engine::engine::{Engine, EngineOptions, StartError};
use engine::ids::{LogId, Partition};
use engine::log::{EventLog, LogAddress, StoreOptions};
use engine::owner::OwnerSettings;
use engine::record::RECORD_VERSION;
use tests::harness::logs;

use super::{PATIENCE, each_kind};
use crate::history::Scribe;
use crate::raw_log::{RawLog, foreign, read_all};
use crate::write_side::shop;

fn options(partition_count: u32) -> CreateOptions {
    CreateOptions {
        store: StoreOptions {
            partition_count,
            replication: 1,
        },
        idempotency_window_ms: 60_000,
        node: "maker".to_owned(),
    }
}

async fn ids(log: &dyn EventLog) -> Vec<LogId> {
    let mut ids = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        ids.push(first_claim(log, partition).await.unwrap().unwrap().log);
    }
    ids
}

#[tokio::test]
async fn a_log_may_be_made_again_and_stays_the_same() {
    each_kind(async |kind| {
        let folder = tempfile::tempdir().unwrap();
        let address = logs::address(kind, &folder);
        let (log, id, wrote) = create(&address, &options(3)).await.unwrap();
        assert!(wrote);
        assert_eq!(ids(&*log).await, [id; 3]);
        let again = create(&address, &options(3)).await.unwrap();
        assert_eq!((again.1, again.2), (id, false), "{kind:?}");
        for partition in (0..3).map(Partition) {
            assert_eq!(read_all(&*log, partition).await.len(), 1, "{kind:?}");
        }
        let Err(other) = create(&address, &options(4)).await else {
            panic!("{kind:?}: the partition count changed")
        };
        let counts = CreateError::Partitions { found: 3, asked: 4 };
        assert_eq!(other.to_string(), counts.to_string());
    })
    .await;
}

#[tokio::test]
async fn two_that_make_a_log_at_once_make_the_same() {
    each_kind(async |kind| {
        for round in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let address = logs::address(kind, &folder);
            let make = || {
                let address = address.clone();
                tokio::spawn(async move { create(&address, &options(3)).await })
            };
            let (one, two) = tokio::join!(make(), make());
            let (one, two) = (one.unwrap().unwrap(), two.unwrap().unwrap());
            assert_eq!(one.1, two.1, "{kind:?} round {round}");
            assert_eq!(ids(&*one.0).await, [one.1; 3], "{kind:?} round {round}");
        }
    })
    .await;
}

async fn refusal(log: &RawLog) -> StartError {
    let options = EngineOptions {
        owner: OwnerSettings::default(),
        store: None,
    };
    let log = std::sync::Arc::clone(&log.log);
    match Engine::start(log, shop(), options).await {
        Ok(_) => panic!("it started on a log that was never finished"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_log_that_was_begun_is_finished_and_until_then_nobody_starts_on_it() {
    each_kind(async |kind| {
        let raw = RawLog::empty(kind, 3).await;
        let finish = |address: &LogAddress| format!("annals log create --log {address}");
        let error = refusal(&raw).await;
        assert!(matches!(&error, StartError::Unclaimed { .. }), "{error}");
        assert!(error.to_string().contains(&finish(&raw.address)), "{error}");

        // The maker had claimed partition 0, not as the first there, and another came too late.
        let mut scribe = Scribe::of(Partition(0), LogId(uuid::Uuid::now_v7()));
        let other = LogId(uuid::Uuid::now_v7());
        let late = scribe.claim_of(1, other, RECORD_VERSION);
        scribe.add(foreign("junk")).claim().add(late);
        raw.write(Partition(0), scribe.records()).await;
        let error = refusal(&raw).await;
        let StartError::Unclaimed { partition, .. } = &error else {
            panic!("{kind:?}: {error}")
        };
        assert_eq!(*partition, Partition(1));
        assert!(error.to_string().contains(&finish(&raw.address)), "{error}");

        let (log, id, wrote) = create(&raw.address, &options(3)).await.unwrap();
        assert_eq!((Some(id), wrote), (scribe.chain().log, true), "{kind:?}");
        assert_eq!(ids(&*log).await, [id; 3], "{kind:?}");
        let options = EngineOptions {
            owner: OwnerSettings::default(),
            store: None,
        };
        let engine = Engine::start(log, shop(), options).await.unwrap();
        engine.ready(PATIENCE).await.unwrap();
        assert_eq!(engine.log_id(), id);
        engine.drain(PATIENCE).await;
    })
    .await;
}
