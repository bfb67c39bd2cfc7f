//! Reads each partition ahead of a replay.
//!
//! Invariant: a piece or two of each partition are in memory. Deliberately absent: their order (`lines`).

use std::collections::BTreeMap;
use std::sync::Arc;

use event_log::accepted::Accepted;
use event_log::checkpoint::Checkpoint;
use event_log::log::EventLog;
use event_log::subscription::{Batch, SubscriptionError};
use position::{Offset, Partition};
use tokio::sync::mpsc;

/// How many pieces of a partition are read ahead.
const AHEAD_MAX: usize = 1;

/// Reads one partition ahead.
pub(super) struct Reader {
    pub(super) batches: mpsc::Receiver<Result<Batch, SubscriptionError>>,
    /// The next record.
    pub(super) next: u64,
    /// The place behind the last one.
    pub(super) end: u64,
}

/// A reader of each partition, behind its place.
pub(super) fn readers(
    log: &Arc<dyn EventLog>,
    mut places: BTreeMap<Partition, Checkpoint>,
    ends: &BTreeMap<Partition, Offset>,
) -> BTreeMap<Partition, Reader> {
    let readers = ends.iter().map(|(partition, end)| {
        let from = places.remove(partition);
        let next = from.as_ref().map_or(0, |from| from.offset.next().0);
        let (sender, batches) = mpsc::channel(AHEAD_MAX);
        tokio::spawn(read_ahead(Arc::clone(log), *partition, from, *end, sender));
        let reader = Reader {
            batches,
            next: next.min(end.0),
            end: end.0,
        };
        (*partition, reader)
    });
    readers.collect()
}

/// Reads a partition to its end. It ends when the receiver is dropped.
async fn read_ahead(
    log: Arc<dyn EventLog>,
    partition: Partition,
    from: Option<Checkpoint>,
    end: Offset,
    sender: mpsc::Sender<Result<Batch, SubscriptionError>>,
) {
    let read = async {
        let mut reader = Accepted::open(log, partition, from, end).await?;
        while let Some(batch) = reader.next().await? {
            if sender.send(Ok(batch)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    if let Err(error) = read.await {
        // The receiver may be gone.
        let _ = sender.send(Err(error)).await;
    }
}
