//! Reads the accepted commits of a partition once, from its first record to its present end.
//!
//! Invariant: hands out exactly the commits that `verify` counts, in order, up to the first damage.
//! Deliberately absent: reading on after the end (`subscription`), and reports (`verify`).

use position::{Partition, Position};

use crate::chain::{Chain, Stop, Verdict};
use crate::log::{EventLog, LogError, Pieces};
use crate::record::Record;
use crate::verdict::{self, Content, StreamVersions};

/// Calls `take` for each accepted commit, with its record and its position. Returns what stopped
/// the reading before the end, if anything did.
///
/// # Errors
/// `Unavailable`, and every error of `take`.
pub async fn read_accepted<E: From<LogError>>(
    log: &dyn EventLog,
    partition: Partition,
    mut take: impl FnMut(&Record, Position) -> Result<(), E>,
) -> Result<Option<Stop>, E> {
    let mut chain = Chain {
        acknowledged: log.acknowledged(),
        ..Chain::genesis(partition)
    };
    let mut streams = StreamVersions::complete();
    let mut pieces = Pieces::of(log, partition).await?;
    while let Some(records) = pieces.next().await? {
        for record in &records {
            match judge(&mut chain, &mut streams, record) {
                Ok(Some(position)) => take(record, position)?,
                Ok(None) => {}
                Err(stop) => return Ok(Some(stop)),
            }
        }
    }
    Ok(None)
}

/// The position of the record if it is a commit that counts and is to be applied.
fn judge(
    chain: &mut Chain,
    streams: &mut StreamVersions,
    record: &Record,
) -> Result<Option<Position>, Stop> {
    let verdict = chain.judge(record)?;
    let content = verdict::content(chain, &verdict, record, streams)?;
    let (Verdict::Commit(headers), Content::Commit(commit)) = (verdict, content) else {
        return Ok(None);
    };
    let key = record.key.as_deref().unwrap_or_default();
    streams.note(key, commit.version());
    Ok(Some(headers.position))
}
