//! Reads ranges of the log, one after the other, ahead of what is made of them.
//!
//! Invariant: at most a few batches are in memory. Deliberately absent: what is made of the commits.

use std::sync::Arc;

use event_log::accepted::Accepted;
use event_log::checkpoint::Checkpoint;
use event_log::commit::Commit;
use event_log::create::first_claim;
use event_log::log::EventLog;
use event_log::record::{Kind, Record, chain_commit};
use event_log::subscription::Batch;
use position::{ChainHash, LogId, Partition};
use tokio::sync::mpsc;

use crate::error::ExportError;
use crate::journal::Range;
use crate::manifest::Request;

/// How many batches are read ahead.
const AHEAD_MAX: usize = 2;

/// What was read.
pub(crate) enum Read {
    /// Commits of one partition.
    Batch(Box<Batch>),
    /// A partition was read to the end of its range.
    End {
        partition: Partition,
        /// The last place that was read.
        to: Option<Checkpoint>,
    },
}

/// Reads the ranges in their order. The reading ends when the receiver is dropped.
pub(crate) fn read(
    log: Arc<dyn EventLog>,
    ranges: Vec<Range>,
) -> mpsc::Receiver<Result<Read, ExportError>> {
    let (sender, receiver) = mpsc::channel(AHEAD_MAX);
    tokio::spawn(async move {
        for range in ranges {
            if let Err(error) = read_range(&log, range, &sender).await {
                // The receiver may be gone.
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
    });
    receiver
}

async fn read_range(
    log: &Arc<dyn EventLog>,
    range: Range,
    sender: &mpsc::Sender<Result<Read, ExportError>>,
) -> Result<(), ExportError> {
    let (partition, mut to) = (range.partition, range.from.clone());
    let mut reader = Accepted::open(Arc::clone(log), partition, range.from, range.end).await?;
    while let Some(batch) = reader.next().await? {
        to = Some(batch.after.clone());
        let batch = Read::Batch(Box::new(batch));
        if sender.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
    }
    let _ = sender.send(Ok(Read::End { partition, to })).await;
    Ok(())
}

/// The ranges that begin after these checkpoints and end at the present end of the log.
pub(crate) async fn ranges(
    log: &dyn EventLog,
    from: impl Fn(Partition) -> Option<Checkpoint>,
) -> Result<Vec<Range>, ExportError> {
    let mut ranges = Vec::new();
    for partition in (0..log.partition_count()).map(Partition) {
        let end = log.bounds(partition).await?.end;
        ranges.push(Range {
            partition,
            from: from(partition),
            end,
        });
    }
    Ok(ranges)
}

/// The identity of the log.
pub(crate) async fn log_id(log: &dyn EventLog) -> Result<LogId, ExportError> {
    for partition in (0..log.partition_count()).map(Partition) {
        if let Some(claim) = first_claim(log, partition).await? {
            return Ok(claim.log);
        }
    }
    let address = log.address();
    Err(ExportError::Asked(format!(
        "the log {address} has no identity yet: nothing was written to it; finish it with annals log \
         create --log {address}"
    )))
}

/// The head of the chain at a commit that counts.
pub(crate) fn head_at(record: &Record) -> ChainHash {
    match Kind::of(record) {
        Kind::Commit(headers) => chain_commit(
            &headers,
            record.key.as_deref().unwrap_or_default(),
            record.value.as_deref().unwrap_or_default(),
        ),
        Kind::Claim(_) | Kind::Foreign => ChainHash::default(),
    }
}

impl Request {
    /// Whether events of a commit may be wanted.
    pub(crate) fn takes(&self, commit: &Commit) -> bool {
        self.from.is_none_or(|from| commit.recorded_at >= from)
            && self.to.is_none_or(|to| commit.recorded_at < to)
            && self.filter.takes_commit(commit)
    }
}
