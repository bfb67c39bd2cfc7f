//! A defect in one partition of a node is reported, and all other partitions go on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::command::SubmitError;
use engine::{Engine, EngineOptions};
use event_log::log::{
    AppendDone, AppendSession, Appender, Bounds, Chunk, EventLog, LogAddress, LogError, LogReader,
};
use event_log::record::{NewRecord, Record};
use position::{Offset, Partition};
use tests::harness::logs::{Kind, NewLog};

use crate::write_side::{place, request, shop, submit};

/// The client of this log panics at records with this key.
const FATAL: &[u8] = b"main/order-fatal";

struct Fatal(Arc<dyn EventLog>);

struct FatalAppender(Arc<dyn Appender>);

struct FatalSession(Arc<dyn AppendSession>);

#[async_trait]
impl EventLog for Fatal {
    fn address(&self) -> &LogAddress {
        self.0.address()
    }

    fn partition_count(&self) -> u32 {
        self.0.partition_count()
    }

    async fn check(&self) -> Result<Vec<String>, LogError> {
        self.0.check().await
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, LogError> {
        self.0.bounds(partition).await
    }

    async fn read(&self, partition: Partition, from: Offset) -> Result<Chunk, LogError> {
        self.0.read(partition, from).await
    }

    async fn read_at(
        &self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError> {
        self.0.read_at(partition, offsets).await
    }

    async fn look(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> Result<(Offset, Option<Record>), LogError> {
        self.0.look(partition, offset).await
    }

    fn follow(&self, from: &[(Partition, Offset)]) -> Result<Box<dyn LogReader>, LogError> {
        self.0.follow(from)
    }

    async fn appender(&self) -> Result<Arc<dyn Appender>, LogError> {
        Ok(Arc::new(FatalAppender(self.0.appender().await?)))
    }
}

#[async_trait]
impl Appender for FatalAppender {
    fn session(&self) -> Result<Arc<dyn AppendSession>, LogError> {
        Ok(Arc::new(FatalSession(self.0.session()?)))
    }

    async fn flush(&self, wait: Duration) {
        self.0.flush(wait).await;
    }
}

impl AppendSession for FatalSession {
    fn append(
        &self,
        partition: Partition,
        record: &NewRecord,
        done: AppendDone,
    ) -> Result<(), LogError> {
        assert_ne!(record.key.as_deref(), Some(FATAL), "a defect");
        self.0.append(partition, record, done)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_desk_died_is_not_owned_and_all_others_go_on() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let options = EngineOptions::alone(Some(log.store()));
    let fatal = Arc::new(Fatal(Arc::clone(&log.log)));
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
    assert!(said.contains("defect"), "{said}");
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
