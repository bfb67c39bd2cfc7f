//! Copies a log: every record in order, also orphans, and at the end a claim that names the source
//! and its heads.
//!
//! Invariant: an interrupted copy goes on where it stopped, and only if the target is the beginning
//! of the source. Nobody may write to the source or the target during the copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use position::{ChainHash, LogId, Offset, Partition, Term, WriterId};
use serde::Serialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::chain::{Chain, Stop};
use crate::claim::{Claim, CopiedFrom};
use crate::create::CreateError;
use crate::log::{self, AppendSession, EventLog, LogError, LogPlace, StoreOptions};
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
    /// The target could not be created.
    #[error(transparent)]
    Create(#[from] CreateError),
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
///
/// # Errors
/// [`CopyError`].
pub async fn copy(
    from: &dyn EventLog,
    to: impl Into<LogPlace>,
    store: StoreOptions,
    mut progress: impl FnMut(u64),
) -> Result<Copied, CopyError> {
    let asked = from.partition_count();
    let to = to.into();
    log::create_store(
        to.clone(),
        StoreOptions {
            partition_count: asked,
            ..store
        },
    )
    .await?;
    let target = crate::create::open_new(&to).await?;
    let found = target.partition_count();
    if found != asked {
        return Err(CopyError::Partitions { found, asked });
    }
    target.check().await?;
    let appender = target.appender().await?;
    let session = appender.session()?;
    let mut copied = Copied {
        log_id: LogId(Uuid::nil()),
        records: 0,
        present: 0,
        heads: BTreeMap::new(),
    };
    let mut terms = BTreeMap::new();
    for partition in (0..asked).map(Partition) {
        let mut one = PartitionCopy {
            chain: Chain::genesis(partition),
            target: Prefix {
                log: &*target,
                partition,
                next: Some(Offset(0)),
                records: Vec::new(),
            },
            session: &session,
            acknowledgements: Acknowledgements::new(),
            number: 0,
            copied: &mut copied,
        };
        one.run(from, &mut progress).await?;
        let closed = one.target.next().await?.is_some();
        let chain = one.chain;
        copied.log_id = chain.log.ok_or(CopyError::Unclaimed(partition))?;
        copied.heads.insert(partition, chain.head);
        if !closed {
            terms.insert(partition, chain.term);
        }
    }
    close(from, &session, &copied, &terms).await?;
    Ok(copied)
}

struct PartitionCopy<'a> {
    chain: Chain,
    target: Prefix<'a>,
    session: &'a Arc<dyn AppendSession>,
    acknowledgements: Acknowledgements,
    number: u64,
    copied: &'a mut Copied,
}

impl PartitionCopy<'_> {
    async fn run(
        &mut self,
        from: &dyn EventLog,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), CopyError> {
        let partition = self.chain.partition;
        let bounds = from.bounds(partition).await?;
        let mut next = bounds.first;
        while next < bounds.end {
            let chunk = from.read(partition, next).await?;
            for record in chunk.records {
                self.chain.judge(&record)?;
                self.take(record).await?;
            }
            progress(self.copied.records + self.copied.present);
            if chunk.at_end {
                break;
            }
            next = chunk.next;
        }
        self.acknowledgements.all(0).await?;
        Ok(())
    }

    async fn take(&mut self, record: Record) -> Result<(), CopyError> {
        let number = self.number;
        self.number += 1;
        let new = NewRecord {
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        if let Some(there) = self.target.next().await? {
            let same =
                (&there.key, &there.value, &there.headers) == (&new.key, &new.value, &new.headers);
            if !same {
                let partition = self.chain.partition;
                return Err(CopyError::OtherTarget { partition, number });
            }
            self.copied.present += 1;
            return Ok(());
        }
        self.acknowledgements
            .append(&**self.session, self.chain.partition, &new)
            .await?;
        self.copied.records += 1;
        Ok(())
    }
}

/// The records that the target holds already, one by one.
struct Prefix<'a> {
    log: &'a dyn EventLog,
    partition: Partition,
    /// The next offset to read; absent after the end of the target.
    next: Option<Offset>,
    /// Records that were read and not yet compared, in reverse order.
    records: Vec<Record>,
}

impl Prefix<'_> {
    async fn next(&mut self) -> Result<Option<Record>, LogError> {
        while self.records.is_empty() {
            let Some(from) = self.next else {
                return Ok(None);
            };
            let from = from.max(self.log.bounds(self.partition).await?.first);
            let chunk = self.log.read(self.partition, from).await?;
            self.next = (!chunk.at_end).then_some(chunk.next);
            self.records = chunk.records;
            self.records.reverse();
        }
        Ok(self.records.pop())
    }
}

/// Appends that wait for their acknowledgement.
struct Acknowledgements {
    sender: mpsc::UnboundedSender<log::AppendResult>,
    results: mpsc::UnboundedReceiver<log::AppendResult>,
    waiting: usize,
}

impl Acknowledgements {
    fn new() -> Self {
        let (sender, results) = mpsc::unbounded_channel();
        Self {
            sender,
            results,
            waiting: 0,
        }
    }

    async fn append(
        &mut self,
        session: &dyn AppendSession,
        partition: Partition,
        record: &NewRecord,
    ) -> Result<(), LogError> {
        self.all(IN_FLIGHT_MAX).await?;
        loop {
            let sender = self.sender.clone();
            let done = Box::new(move |result| {
                let _ = sender.send(result);
            });
            match session.append(partition, record, done) {
                Ok(()) => break,
                Err(LogError::Full) if self.waiting > 0 => self.all(self.waiting - 1).await?,
                Err(error) => return Err(error),
            }
        }
        self.waiting += 1;
        Ok(())
    }

    /// Waits until at most `left` appends are unacknowledged.
    async fn all(&mut self, left: usize) -> Result<(), LogError> {
        while self.waiting > left {
            self.results.recv().await.ok_or(LogError::Closed)??;
            self.waiting -= 1;
        }
        Ok(())
    }
}

/// Ends every partition of the copy with a claim that names the source.
async fn close(
    from: &dyn EventLog,
    session: &Arc<dyn AppendSession>,
    copied: &Copied,
    terms: &BTreeMap<Partition, Term>,
) -> Result<(), LogError> {
    let mut acknowledgements = Acknowledgements::new();
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
            idempotency_window_ms: crate::claim::IDEMPOTENCY_WINDOW_MS,
            acknowledged: None,
            copied: Some(CopiedFrom {
                from: from.address().to_string(),
                heads: copied.heads.clone(),
            }),
        };
        acknowledgements
            .append(&**session, partition, &headers.record(value.to_value()))
            .await?;
    }
    acknowledgements.all(0).await
}
