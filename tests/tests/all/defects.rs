//! A defect in one partition of a node is reported, and all other partitions go on.

use std::time::Duration;

use engine::command::SubmitError;
use engine::{Engine, EngineOptions};
use event_log::log::{AppendDone, AppendSession, LogError};
use event_log::record::NewRecord;
use position::Partition;
use tests::harness::logs::{Kind, NewLog};

use crate::other_appends::with_append;
use crate::write_side::{place, request, shop, submit};

/// The client of this log panics at records with this key.
const FATAL: &[u8] = b"main/order-fatal";

fn append_unless_fatal(
    session: &dyn AppendSession,
    partition: Partition,
    record: &NewRecord,
    done: AppendDone,
) -> Result<(), LogError> {
    assert_ne!(record.key.as_deref(), Some(FATAL), "a defect");
    session.append(partition, record, done)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_desk_died_is_not_owned_and_all_others_go_on() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let options = EngineOptions::alone(Some(log.store()));
    let fatal = with_append(&log.log, append_unless_fatal);
    let engine = Engine::start(fatal, shop(), options).await.unwrap();
    engine.ready(Duration::from_secs(20)).await.unwrap();
    let partitions = engine.owned().len();
    let answer = submit(
        &engine,
        request("order-fatal", "PlaceOrder", "k1", &place()),
    )
    .await;
    assert!(
        matches!(
            answer,
            Err(SubmitError::Unknown | SubmitError::TurnedAway { .. })
        ),
        "{answer:?}"
    );
    assert_eq!(engine.owned().len(), partitions - 1);
    let said = engine.readiness().unwrap_err();
    assert!(said.contains("internal error"), "{said}");
    let mut accepted = 0;
    for number in 0..4 * partitions {
        let stream = format!("order-{number}");
        accepted += usize::from(
            submit(&engine, request(&stream, "PlaceOrder", "k1", &place()))
                .await
                .is_ok(),
        );
    }
    assert!(
        accepted > 2 * partitions,
        "{accepted} of {}",
        4 * partitions
    );
    engine.drain(Duration::from_secs(5)).await;
    assert!(engine.owned().is_empty());
}
