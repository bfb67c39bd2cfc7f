//! Creating a log: a second time, by two callers at once, and after a crash in the middle.

use std::sync::Arc;

use engine::{Engine, EngineOptions, StartError};
use event_log::create::{CreateError, CreateOptions, create, first_claim};
use event_log::log::{EventLog, LogAddress, StoreOptions, create_store};
use event_log::record::RECORD_VERSION;
use position::{LogId, Partition};
use tests::harness::logs::{self, Kind};
use tokio::sync::Barrier;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creators_at_the_same_time_make_the_same_log() {
    each_kind(async |kind| {
        let rounds = if kind == Kind::Sqlite { 30 } else { 3 };
        for round in 0..rounds {
            let folder = tempfile::tempdir().unwrap();
            let address = logs::address(kind, &folder);
            let makers: Vec<_> = (0..4)
                .map(|_| {
                    let address = address.clone();
                    tokio::spawn(async move { create(&address, &options(3)).await })
                })
                .collect();
            let mut made = Vec::new();
            for maker in makers {
                let (log, id, _) = maker.await.unwrap().unwrap();
                made.push(id);
                assert_eq!(ids(&*log).await, [id; 3], "{kind:?} round {round}");
            }
            assert_eq!(made, [made[0]; 4], "{kind:?} round {round}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_file_is_made_by_eight_at_the_same_moment() {
    for round in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let address = logs::address(Kind::Sqlite, &folder);
        let barrier = Arc::new(Barrier::new(8));
        let makers = (0..8).map(|_| {
            let (address, barrier) = (address.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                create_store(&address, options(3).store).await
            })
        });
        for made in futures::future::join_all(makers).await {
            assert!(made.as_ref().is_ok_and(Result::is_ok), "{round}: {made:?}");
        }
    }
}

async fn refusal(log: &RawLog) -> StartError {
    let options = EngineOptions::alone(None);
    let log = Arc::clone(&log.log);
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

        // The creator had claimed only partition 0; a foreign record came before its claim, and
        // another claim came too late.
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
        let options = EngineOptions::alone(None);
        let engine = Engine::start(log, shop(), options).await.unwrap();
        engine.ready(PATIENCE).await.unwrap();
        assert_eq!(engine.log_id(), id);
        engine.drain(PATIENCE).await;
    })
    .await;
}
