//! Making a log: its store, its identity, and a first claim in every partition.
//!
//! Invariant: it may be repeated after a crash or raced by another; the identity is the one that
//! counts in partition 0, and only then is it written into the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use position::{LogId, Offset, Partition, Term, WriterId};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::chain::{Chain, Stop, Verdict};
use crate::claim::Claim;
use crate::log::{self, AppendSession, EventLog, LogError, LogPlace, StoreOptions};
use crate::record::{ClaimHeaders, RECORD_VERSION};

/// How long a store that was just made may take to answer for all its partitions.
const SETTLE_WAIT: Duration = Duration::from_secs(15);
/// How often it is asked meanwhile.
const SETTLE_RETRY_EVERY: Duration = Duration::from_millis(100);

/// How a log is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Partitions and replicas.
    pub store: StoreOptions,
    /// The idempotency window, in milliseconds of recorded time.
    pub idempotency_window_ms: u64,
    /// The name of the node that makes it.
    pub node: String,
}

/// Why a log could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The store did not do it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Something stands in the log past which no reader goes.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// A log with another partition count is there.
    #[error("the log has {found} partitions, not {asked}; the count never changes")]
    Partitions {
        /// What it has.
        found: u32,
        /// What was asked for.
        asked: u32,
    },
}

/// Makes a log, or finishes one that was begun; `true` if anything was written.
///
/// # Errors
/// [`CreateError`].
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

/// Opens a log whose store was just made: a topic takes a moment to be known everywhere, and its
/// partitions to have leaders.
pub(crate) async fn open_new(place: &LogPlace) -> Result<Arc<dyn EventLog>, LogError> {
    let deadline = Instant::now() + SETTLE_WAIT;
    loop {
        match open_whole(place).await {
            Err(LogError::Missing { .. } | LogError::Unavailable { .. })
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
    let (done, acknowledged) = oneshot::channel();
    let done = Box::new(move |result| {
        let _ = done.send(result);
    });
    session.append(partition, &headers.record(value.to_value()), done)?;
    acknowledged.await.map_err(|_| LogError::Closed)??;
    match first_claim(log, partition).await? {
        Some(claimed) => Ok((claimed.log, true)),
        None => Err(LogError::Closed.into()),
    }
}

/// The first claim that counts in a partition, if there is one yet.
///
/// # Errors
/// `BeginningGone` where records before the first were deleted; `Unavailable`.
pub async fn first_claim(
    log: &dyn EventLog,
    partition: Partition,
) -> Result<Option<ClaimHeaders>, LogError> {
    let bounds = log.bounds(partition).await?;
    let mut chain = Chain::genesis(partition);
    let mut from = bounds.first;
    let first = bounds.first;
    let is_cut = first > Offset(0);
    let gone = || LogError::BeginningGone { partition, first };
    while from < bounds.end {
        let chunk = log.read(partition, from).await?;
        for record in &chunk.records {
            // Damage before the first claim is found by whoever folds the partition.
            match chain.judge(record) {
                Ok(Verdict::Claim(claim, _)) if is_cut && claim.term > Term(1) => {
                    return Err(gone());
                }
                Ok(Verdict::Claim(claim, _)) => return Ok(Some(claim)),
                _ => {}
            }
        }
        if chunk.at_end {
            break;
        }
        from = chunk.next;
    }
    // Whether the log's first claim was among what was deleted, nobody can tell; another claim would
    // make another log of what is left.
    if is_cut { Err(gone()) } else { Ok(None) }
}
