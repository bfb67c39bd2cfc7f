//! A log over a real one on which a test decides what an append does.
//!
//! Deliberately absent: what these appends do; each test brings its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use event_log::log::{
    AppendDone, AppendSession, Appender, Bounds, Chunk, EventLog, LogAddress, LogError, LogReader,
};
use event_log::record::{NewRecord, Record};
use position::{Offset, Partition};

/// Takes the place of [`AppendSession::append`], and gets the real session.
type Append = fn(&dyn AppendSession, Partition, &NewRecord, AppendDone) -> Result<(), LogError>;

/// A real log, appender or session, whose appends go to `append`.
struct Other<T: ?Sized> {
    real: Arc<T>,
    append: Append,
}

pub(crate) fn with_append(log: &Arc<dyn EventLog>, append: Append) -> Arc<dyn EventLog> {
    let real = Arc::clone(log);
    Arc::new(Other { real, append })
}

#[async_trait]
impl EventLog for Other<dyn EventLog> {
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
        let real = self.real.appender().await?;
        let append = self.append;
        Ok(Arc::new(Other { real, append }))
    }
}

#[async_trait]
impl Appender for Other<dyn Appender> {
    fn session(&self) -> Result<Arc<dyn AppendSession>, LogError> {
        let real = self.real.session()?;
        let append = self.append;
        Ok(Arc::new(Other { real, append }))
    }

    async fn flush(&self, wait: Duration) {
        self.real.flush(wait).await;
    }
}

impl AppendSession for Other<dyn AppendSession> {
    fn append(
        &self,
        partition: Partition,
        record: &NewRecord,
        done: AppendDone,
    ) -> Result<(), LogError> {
        (self.append)(&*self.real, partition, record, done)
    }
}
