//! Creates a log: its store, its identity, and a first claim in every partition.
//!
//! Invariant: creation may be repeated after a crash, and several processes may create the same log
//! at once. The identity is the one of the claim that counts in partition 0; only after that is it
//! written to the other partitions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use position::{LogId, Offset, Partition, Term, WriterId};
use uuid::Uuid;

use crate::chain::{Chain, Stop, Verdict};
use crate::claim::Claim;
use crate::log::{self, AppendSession, EventLog, LogError, LogPlace, Pieces, StoreOptions};
use crate::record::{ClaimHeaders, RECORD_VERSION};

/// How long a new store may take until it answers for all its partitions.
const SETTLE_WAIT: Duration = Duration::from_secs(15);
const SETTLE_RETRY_EVERY: Duration = Duration::from_millis(100);

/// How a log is created.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Partitions and replicas.
    pub store: StoreOptions,
    /// The idempotency window, in milliseconds of recorded time.
    pub idempotency_window_ms: u64,
    /// The name of the node that creates the log.
    pub node: String,
}

/// Why a log could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The store failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log holds a record past which no reader goes.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// There is a log with another number of partitions.
    #[error("the log has {found} partitions, not {asked}; the count never changes")]
    Partitions {
        /// The number that the log has.
        found: u32,
        /// The number that was asked for.
        asked: u32,
    },
}

/// Creates a log, or finishes a log whose creation was interrupted; `true` if anything was written.
pub async fn create(
    place: impl Into<LogPlace>,
    options: &CreateOptions,
) -> Result<(Arc<dyn EventLog>, LogId, bool), CreateError> {
    let place = place.into();
    log::create_store(place.clone(), options.store).await?;
    let log = open_new(&place).await?;
    let (found, asked) = (log.partition_count(), options.store.partition_count);
    if found != asked {
        return Err(CreateError::Partitions { found, asked });
    }
    log.check().await?;
    let mut session = None;
    let fresh = LogId(Uuid::now_v7());
    let (id, mut wrote) = claim(&*log, Partition(0), fresh, options, &mut session).await?;
    for partition in (1..found).map(Partition) {
        wrote |= claim(&*log, partition, id, options, &mut session).await?.1;
    }
    Ok((log, id, wrote))
}

/// Opens a log whose store is new. A new topic takes a moment until all brokers know it and its
/// partitions have leaders.
pub(crate) async fn open_new(place: &LogPlace) -> Result<Arc<dyn EventLog>, LogError> {
    let deadline = Instant::now() + SETTLE_WAIT;
    loop {
        match open_whole(place).await {
            Err(LogError::Missing(_) | LogError::Unavailable { .. })
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(SETTLE_RETRY_EVERY).await;
            }
            opened => return opened,
        }
    }
}

async fn open_whole(place: &LogPlace) -> Result<Arc<dyn EventLog>, LogError> {
    let log = log::open(place.clone()).await?;
    for partition in (0..log.partition_count()).map(Partition) {
        log.bounds(partition).await?;
    }
    Ok(log)
}

async fn claim(
    log: &dyn EventLog,
    partition: Partition,
    id: LogId,
    options: &CreateOptions,
    session: &mut Option<Arc<dyn AppendSession>>,
) -> Result<(LogId, bool), CreateError> {
    if let Some(claimed) = first_claim(log, partition).await? {
        return Ok((claimed.log, false));
    }
    let headers = ClaimHeaders {
        term: Term(1),
        writer: WriterId(Uuid::new_v4()),
        log: id,
        version: RECORD_VERSION,
    };
    let value = Claim {
        node: options.node.clone(),
        address: None,
        idempotency_window_ms: options.idempotency_window_ms,
        acknowledged: None,
        copied: None,
    };
    let session = match session {
        Some(session) => session,
        None => session.insert(log.appender().await?.session()?),
    };
    let record = headers.record(value.to_value());
    let acknowledged = log::append(&**session, partition, &record)?;
    acknowledged.await.map_err(|_| LogError::Closed)??;
    let claimed = first_claim(log, partition).await?;
    Ok((claimed.ok_or(LogError::Closed)?.log, true))
}

/// The first claim that counts in a partition; `None` if there is none yet.
///
/// # Errors
/// `BeginningGone` if records before the first claim were deleted; `Unavailable`.
pub async fn first_claim(
    log: &dyn EventLog,
    partition: Partition,
) -> Result<Option<ClaimHeaders>, LogError> {
    let mut pieces = Pieces::of(log, partition).await?;
    let mut chain = Chain::genesis(partition);
    let first = pieces.next;
    let is_cut = first > Offset(0);
    let gone = || LogError::BeginningGone { partition, first };
    while let Some(records) = pieces.next().await? {
        for record in &records {
            // Ignore damage before the first claim: a reader that folds the partition reports it.
            match chain.judge(record) {
                Ok(Verdict::Claim(claim, _)) if is_cut && claim.term > Term(1) => {
                    return Err(gone());
                }
                Ok(Verdict::Claim(claim, _)) => return Ok(Some(claim)),
                _ => {}
            }
        }
    }
    // The log's first claim may have been among the deleted records. A new claim would make another
    // log of the remaining records.
    if is_cut { Err(gone()) } else { Ok(None) }
}
