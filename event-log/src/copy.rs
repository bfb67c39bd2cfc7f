//! Copies a log: every record in order, also orphans, then a claim that names source and heads.
//!
//! Invariant: an interrupted copy goes on where it stopped, and only if the target is the beginning
//! of the source. Nobody may write to the source or the target during the copy.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use position::{ChainHash, LogId, Partition, Term, WriterId};
use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::chain::{Chain, Stop};
use crate::claim::{Claim, CopiedFrom, IDEMPOTENCY_WINDOW_MS};
use crate::log::{
    self, AppendResult, AppendSession, EventLog, LogError, LogPlace, Pieces, StoreOptions,
};
use crate::record::{ClaimHeaders, NewRecord, RECORD_VERSION, Record};

/// How many copied records may wait for the target's acknowledgement.
const IN_FLIGHT_MAX: usize = 1_000;

/// What a copy did.
#[derive(Clone, Debug, Serialize)]
pub struct Copied {
    /// The log's identity, the same on both sides.
    pub log_id: LogId,
    /// Records copied by this run.
    pub records: u64,
    /// Records that an earlier run had copied already.
    pub present: u64,
    /// The heads of the source, before the closing claims.
    pub heads: BTreeMap<Partition, ChainHash>,
}

/// Why a log was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Source or target did not answer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The source is damaged: a copy would be of no use.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// The source has no claim in a partition, so it is not a log.
    #[error("the source has no claim in partition {0}; it is not a log")]
    Unclaimed(Partition),
    /// The target has another number of partitions.
    #[error("the target has {found} partitions and the source {asked}")]
    Partitions {
        /// The number of the target's partitions.
        found: u32,
        /// The number of the source's partitions.
        asked: u32,
    },
    /// The target holds records that the source does not have there.
    #[error(
        "the target is not the beginning of the source: partition {partition}, record {number}"
    )]
    OtherTarget {
        /// The partition.
        partition: Partition,
        /// The number of the record that differs, from 0.
        number: u64,
    },
}

/// Copies the log `from` to the place `to`, and creates the target's store if there is none.
pub async fn copy(
    from: &dyn EventLog,
    to: impl Into<LogPlace>,
    store: StoreOptions,
    mut progress: impl FnMut(u64),
) -> Result<Copied, CopyError> {
    let asked = from.partition_count();
    let to = to.into();
    let store = StoreOptions {
        partition_count: asked,
        ..store
    };
    log::create_store(to.clone(), store).await?;
    let target = crate::create::open_new(&to).await?;
    let found = target.partition_count();
    if found != asked {
        return Err(CopyError::Partitions { found, asked });
    }
    target.check().await?;
    let mut appends = Appends {
        session: target.appender().await?.session()?,
        waiting: VecDeque::new(),
    };
    let mut copied = Copied {
        log_id: LogId::default(),
        records: 0,
        present: 0,
        heads: BTreeMap::new(),
    };
    let mut terms = BTreeMap::new();
    for partition in (0..asked).map(Partition) {
        let mut present = Present {
            pieces: Pieces::of(&*target, partition).await?,
            records: Vec::new().into_iter(),
        };
        let pieces = Pieces::of(from, partition).await?;
        let chain = copy_all(
            pieces,
            &mut present,
            &mut appends,
            &mut copied,
            &mut progress,
        )
        .await?;
        copied.log_id = chain.log.ok_or(CopyError::Unclaimed(partition))?;
        copied.heads.insert(partition, chain.head);
        // Otherwise an earlier run has appended the closing claim.
        if present.next().await?.is_none() {
            terms.insert(partition, chain.term);
        }
    }
    close(from, &mut appends, &copied, &terms).await?;
    Ok(copied)
}

/// Copies the records of one partition after those that are present, and returns its chain.
async fn copy_all(
    mut from: Pieces<'_>,
    present: &mut Present<'_>,
    appends: &mut Appends,
    copied: &mut Copied,
    progress: &mut impl FnMut(u64),
) -> Result<Chain, CopyError> {
    let partition = from.partition;
    let mut chain = Chain::genesis(partition);
    let mut number = 0;
    while let Some(records) = from.next().await? {
        for record in records {
            chain.judge(&record)?;
            let new = NewRecord {
                key: record.key,
                value: record.value,
                headers: record.headers,
            };
            let is_same = |there: Record| {
                (&there.key, &there.value, &there.headers) == (&new.key, &new.value, &new.headers)
            };
            match present.next().await?.map(is_same) {
                Some(true) => copied.present += 1,
                Some(false) => return Err(CopyError::OtherTarget { partition, number }),
                None => {
                    appends.append(partition, &new).await?;
                    copied.records += 1;
                }
            }
            number += 1;
        }
        progress(copied.records + copied.present);
    }
    appends.wait(0).await?;
    Ok(chain)
}

/// The records that the target holds already, one by one.
struct Present<'a> {
    pieces: Pieces<'a>,
    records: std::vec::IntoIter<Record>,
}

impl Present<'_> {
    async fn next(&mut self) -> Result<Option<Record>, LogError> {
        loop {
            if let Some(record) = self.records.next() {
                return Ok(Some(record));
            }
            match self.pieces.next().await? {
                Some(records) => self.records = records.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

/// Appends that wait for their acknowledgement.
struct Appends {
    session: Arc<dyn AppendSession>,
    waiting: VecDeque<oneshot::Receiver<AppendResult>>,
}

impl Appends {
    async fn append(&mut self, partition: Partition, record: &NewRecord) -> Result<(), LogError> {
        self.wait(IN_FLIGHT_MAX).await?;
        loop {
            match log::append(&*self.session, partition, record) {
                Ok(acknowledged) => {
                    self.waiting.push_back(acknowledged);
                    return Ok(());
                }
                Err(LogError::Full) if !self.waiting.is_empty() => {
                    self.wait(self.waiting.len() - 1).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until at most `left` appends are unacknowledged.
    async fn wait(&mut self, left: usize) -> Result<(), LogError> {
        while self.waiting.len() > left
            && let Some(oldest) = self.waiting.pop_front()
        {
            oldest.await.map_err(|_| LogError::Closed)??;
        }
        Ok(())
    }
}

/// Ends every partition of the copy with a claim that names the source.
async fn close(
    from: &dyn EventLog,
    appends: &mut Appends,
    copied: &Copied,
    terms: &BTreeMap<Partition, Term>,
) -> Result<(), LogError> {
    for (&partition, term) in terms {
        let headers = ClaimHeaders {
            term: Term(term.0 + 1),
            writer: WriterId(Uuid::new_v4()),
            log: copied.log_id,
            version: RECORD_VERSION,
        };
        let value = Claim {
            node: "annals log copy".to_owned(),
            address: None,
            idempotency_window_ms: IDEMPOTENCY_WINDOW_MS,
            acknowledged: None,
            copied: Some(CopiedFrom {
                from: from.address().to_string(),
                heads: copied.heads.clone(),
            }),
        };
        let record = headers.record(value.to_value());
        appends.append(partition, &record).await?;
    }
    appends.wait(0).await
}
