//! A log together with the damaged places that an operator has acknowledged in the configuration.
//!
//! Invariant: this changes only which damage readers pass, and nothing of what they read.

use std::sync::Arc;

use async_trait::async_trait;
use position::{LogId, Offset, Partition};

use super::{Appender, Bounds, Chunk, EventLog, LogAddress, LogError, LogReader};
use crate::chain::Acknowledged;
use crate::directory::Directory;
use crate::membership::{Membership, MembershipOptions};
use crate::record::Record;

struct Acknowledging {
    log: Arc<dyn EventLog>,
    acknowledged: Acknowledged,
}

/// The same log, whose readers pass the `acknowledged` places.
#[must_use]
pub fn acknowledging(log: Arc<dyn EventLog>, acknowledged: Acknowledged) -> Arc<dyn EventLog> {
    for ((partition, offset), reason) in acknowledged.iter() {
        tracing::warn!(%partition, %offset, reason, "readers pass damage that was acknowledged");
    }
    Arc::new(Acknowledging { log, acknowledged })
}

#[async_trait]
impl EventLog for Acknowledging {
    fn address(&self) -> &LogAddress {
        self.log.address()
    }

    fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.clone()
    }

    fn partition_count(&self) -> u32 {
        self.log.partition_count()
    }

    async fn check(&self) -> Result<Vec<String>, LogError> {
        self.log.check().await
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, LogError> {
        self.log.bounds(partition).await
    }

    async fn read(&self, partition: Partition, from: Offset) -> Result<Chunk, LogError> {
        self.log.read(partition, from).await
    }

    async fn read_at(
        &self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError> {
        self.log.read_at(partition, offsets).await
    }

    async fn look(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> Result<(Offset, Option<Record>), LogError> {
        self.log.look(partition, offset).await
    }

    fn follow(&self, from: &[(Partition, Offset)]) -> Result<Box<dyn LogReader>, LogError> {
        self.log.follow(from)
    }

    async fn appender(&self) -> Result<Arc<dyn Appender>, LogError> {
        self.log.appender().await
    }

    fn membership(&self, options: &MembershipOptions) -> Result<Box<dyn Membership>, LogError> {
        self.log.membership(options)
    }

    async fn directory(&self, log: LogId) -> Result<Arc<dyn Directory>, LogError> {
        self.log.directory(log).await
    }
}
