//! Bookmarks against a log: which commit is marked, and whether the log still holds it.
//!
//! Invariant: a mark is proven by the record at its offset alone, because the record's chain hash
//! stands for all accepted records before it. Deliberately absent: the text of a bookmark
//! (`position`).

use kernel::Timestamp;
use position::{Bookmark, LogId, Mark, Partition};

use crate::checkpoint::Checkpoint;
use crate::commit::Commit;
use crate::log::{EventLog, LogError};
use crate::record::{Kind, RECORD_VERSION_FIRST, Record, chain_commit, record_hash};

/// Why a reader cannot go on from a bookmark.
#[derive(Debug, thiserror::Error)]
pub enum BookmarkProofError {
    /// The log no longer holds a commit that was read: it is another log, or lost records.
    #[error("the log no longer holds what was read of partition {0}")]
    Changed(Partition),
    /// The log did not answer.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The mark of a commit that counts; absent if the record is no commit.
#[must_use]
pub fn mark_of(record: &Record) -> Option<Mark> {
    let Kind::Commit(headers) = Kind::of(record) else {
        return None;
    };
    let key = record.key.as_deref().unwrap_or_default();
    let value = record.value.as_deref().unwrap_or_default();
    Some(Mark {
        offset: record.offset,
        position: headers.position,
        head: chain_commit(&headers, key, value).into(),
    })
}

/// The checkpoint behind a commit that counts; absent if the record is no commit.
fn checkpoint_at(log: LogId, record: &Record) -> Option<Checkpoint> {
    let Kind::Commit(headers) = Kind::of(record) else {
        return None;
    };
    let key = record.key.as_deref().unwrap_or_default();
    let value = record.value.as_deref().unwrap_or_default();
    let recorded_at: Option<Timestamp> = Commit::read(key, value).ok().map(|c| c.recorded_at);
    Some(Checkpoint {
        log: Some(log),
        // Only a claim tells it, and only writers need it.
        version: RECORD_VERSION_FIRST,
        offset: record.offset,
        record_hash: record_hash(record),
        leader_epoch: record.leader_epoch,
        term: headers.term,
        writer: headers.writer,
        head: chain_commit(&headers, key, value),
        position: headers.position,
        last_recorded_at: recorded_at,
    })
}

/// Proves that the log still holds the marked commit of a partition, and gives the checkpoint behind
/// it.
///
/// # Errors
/// [`BookmarkProofError`].
pub async fn prove_mark(
    log: &dyn EventLog,
    id: LogId,
    partition: Partition,
    mark: Mark,
) -> Result<Checkpoint, BookmarkProofError> {
    let (_, found) = log.look(partition, mark.offset).await?;
    let found = found.filter(|record| mark_of(record) == Some(mark));
    let checkpoint = found.and_then(|record| checkpoint_at(id, &record));
    checkpoint.ok_or(BookmarkProofError::Changed(partition))
}

/// Proves every mark of a bookmark.
///
/// # Errors
/// [`BookmarkProofError`].
pub async fn prove(
    log: &dyn EventLog,
    bookmark: &Bookmark,
) -> Result<Vec<(Partition, Checkpoint)>, BookmarkProofError> {
    let mut proven = Vec::with_capacity(bookmark.marks.len());
    for (&partition, &mark) in &bookmark.marks {
        if partition.0 >= log.partition_count() {
            return Err(BookmarkProofError::Changed(partition));
        }
        proven.push((
            partition,
            prove_mark(log, bookmark.log, partition, mark).await?,
        ));
    }
    Ok(proven)
}
