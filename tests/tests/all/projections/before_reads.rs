//! A log over a real one on which a test does something before single records are read.
//!
//! Deliberately absent: what is done; each test brings its own.

use std::sync::Arc;

use async_trait::async_trait;
use event_log::log::{Appender, Bounds, Chunk, EventLog, LogAddress, LogError, LogReader};
use event_log::record::Record;
use futures::future::BoxFuture;
use position::{Offset, Partition};

type Act = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

struct Log {
    real: Arc<dyn EventLog>,
    act: Act,
}

/// The log, with `act` before each [`EventLog::read_at`].
pub(super) fn before_reads(log: &Arc<dyn EventLog>, act: Act) -> Arc<dyn EventLog> {
    let real = Arc::clone(log);
    Arc::new(Log { real, act })
}

#[async_trait]
impl EventLog for Log {
    fn address(&self) -> &LogAddress {
        self.real.address()
    }

    fn partition_count(&self) -> u32 {
        self.real.partition_count()
    }

    async fn check(&self) -> Result<Vec<String>, LogError> {
        self.real.check().await
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, LogError> {
        self.real.bounds(partition).await
    }

    async fn read(&self, partition: Partition, from: Offset) -> Result<Chunk, LogError> {
        self.real.read(partition, from).await
    }

    async fn read_at(
        &self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError> {
        (self.act)().await;
        self.real.read_at(partition, offsets).await
    }

    async fn look(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> Result<(Offset, Option<Record>), LogError> {
        self.real.look(partition, offset).await
    }

    fn follow(&self, from: &[(Partition, Offset)]) -> Result<Box<dyn LogReader>, LogError> {
        self.real.follow(from)
    }

    async fn appender(&self) -> Result<Arc<dyn Appender>, LogError> {
        self.real.appender().await
    }
}
