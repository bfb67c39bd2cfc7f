//! Finds in the index what a filter takes, and reads it from the log.
//!
//! Invariants: each record that is read is the one that was indexed, by its hash, and a commit at the
//! position that the index says; otherwise the log has changed. The bookmark ends at the last commit
//! that the index has, whatever was found. Deliberately absent: what lies behind the index, which is
//! read from the log.

use std::collections::BTreeMap;

use door::Problem;
use event_log::bookmark::mark_of;
use event_log::commit::Commit;
use event_log::log::LogError;
use event_log::record::{Record, record_hash};
use kernel::Timestamp;
use position::{Offset, Partition, Position, PositionToken};
use projector::{COMMIT_INDEX, CommitFilter, FoundCommit, PositionRange, last_before, last_until};

use sqlx::{Connection as _, PgConnection};

use super::follower::{Ended, Follower, log_changed};
use crate::levels::position_of;
use crate::snapshot::{is_broken, is_replaced};
use crate::{QueryDoor, failed};

/// How many rows of the index are read at once for all partitions, and for one of them at least.
const ROWS_MAX: u32 = 4_096;
const ROWS_OF_PARTITION_MIN: u32 = 16;
/// How many records are read from the log at once.
const RECORDS_MAX: usize = 32;
/// How often Postgres is asked again.
const TRIES_MAX: u32 = 3;
/// Records are read in one piece if at least one of so many is wanted.
const DENSE: u64 = 4;
/// A filter that is this many records behind the log's end waits for the index.
const GAP_MAX: u64 = 20_000;

impl Follower {
    /// Sends what the index knows and the filter takes. Says whether the feed has come to its end.
    pub(super) async fn search(&mut self) -> Result<bool, Ended> {
        loop {
            let reached = self.reached().await?;
            self.prove().await?;
            self.search_up_to(&reached).await?;
            if self.is_past_until(&reached).await? {
                return Ok(true);
            }
            if self.gap().await? <= GAP_MAX {
                return Ok(false);
            }
            self.pause().await?;
        }
    }

    /// How far the index has come.
    async fn reached(&mut self) -> Result<PositionToken, Ended> {
        let inner = self.inner();
        let level = inner.levels.present(COMMIT_INDEX).await?;
        Ok(position_of(level.as_ref())
            .cloned()
            .unwrap_or(PositionToken {
                log: self.bookmark.log,
                positions: BTreeMap::new(),
            }))
    }

    /// How many records lie between the bookmark and the log's end.
    async fn gap(&mut self) -> Result<u64, Ended> {
        let mut gap = 0;
        for partition in self.partitions() {
            let bounds = loop {
                match self.inner().log.bounds(partition).await {
                    Ok(bounds) => break bounds,
                    Err(error) => self.wait_for_log(&error).await?,
                }
            };
            let mark = self.bookmark.marks.get(&partition);
            let next = mark.map_or(bounds.first, |mark| mark.offset.next());
            gap += bounds.end.0.saturating_sub(next.0);
        }
        Ok(gap)
    }

    async fn search_up_to(&mut self, reached: &PositionToken) -> Result<(), Ended> {
        let partition_count = u32::try_from(reached.positions.len().max(1)).unwrap_or(u32::MAX);
        let limit = (ROWS_MAX / partition_count).max(ROWS_OF_PARTITION_MIN);
        let mut left: BTreeMap<Partition, PositionRange> = BTreeMap::new();
        for (&partition, &until) in &reached.positions {
            let mark = self.bookmark.marks.get(&partition);
            let after = mark.map_or(Position(0), |mark| mark.position);
            if after < until && partition.0 < self.inner().log.partition_count() {
                let range = PositionRange {
                    partition,
                    after,
                    until,
                };
                left.insert(partition, range);
            }
        }
        while !left.is_empty() {
            let ranges: Vec<PositionRange> = left.values().copied().collect();
            let found = self.found(&ranges, limit).await?;
            let mut pages: BTreeMap<Partition, Vec<FoundCommit>> = BTreeMap::new();
            for one in found {
                pages.entry(one.partition).or_default().push(one);
            }
            let mut done = BTreeMap::new();
            for range in &ranges {
                let page = pages.remove(&range.partition).unwrap_or_default();
                let last = page.last().cloned();
                let is_whole = page.len() < limit as usize;
                let wanted: Vec<FoundCommit> =
                    page.into_iter().filter(|one| one.is_match).collect();
                self.read(range.partition, &wanted).await?;
                match last {
                    Some(last) if !is_whole => {
                        let read_last = wanted.last() == Some(&last);
                        if let Some(range) = left.get_mut(&range.partition) {
                            range.after = last.position;
                        }
                        if !read_last {
                            self.move_to(&last).await?;
                        }
                    }
                    Some(_) | None => {
                        left.remove(&range.partition);
                        done.insert(range.partition, range.until);
                    }
                }
            }
            // What was looked at is not looked at again after the client has come back.
            for last in self.last_until(&done).await?.into_values() {
                let mark = self.bookmark.marks.get(&last.partition);
                if mark.is_none_or(|mark| mark.position < last.position) {
                    self.move_to(&last).await?;
                }
            }
        }
        Ok(())
    }

    /// Moves the bookmark behind a commit that is not sent.
    async fn move_to(&mut self, to: &FoundCommit) -> Result<(), Ended> {
        let records = self.records(to.partition, &[to.offset]).await?;
        let record = records.into_iter().next().flatten();
        let record = require(to, record)?;
        if let Some(mark) = mark_of(&record) {
            self.bookmark.marks.insert(to.partition, mark);
        }
        self.say_progress();
        Ok(())
    }

    /// Reads commits of one partition and hands them on.
    async fn read(&mut self, partition: Partition, wanted: &[FoundCommit]) -> Result<(), Ended> {
        for wanted in wanted.chunks(RECORDS_MAX) {
            let turn = self.turn().await?;
            let offsets: Vec<Offset> = wanted.iter().map(|one| one.offset).collect();
            let records = self.records(partition, &offsets).await?;
            for (one, record) in wanted.iter().zip(records) {
                let record = require(one, record)?;
                let key = record.key.as_deref().unwrap_or_default();
                let value = record.value.as_deref().unwrap_or_default();
                let (Some(mark), Ok(commit)) = (mark_of(&record), Commit::read(key, value)) else {
                    return Err(changed(one).into());
                };
                self.take(partition, mark, one.recorded_at, &commit)?;
            }
            drop(turn);
            self.say_progress();
            self.flush().await?;
        }
        Ok(())
    }

    /// The records at some offsets; those that stand close together are read in one piece.
    async fn records(
        &mut self,
        partition: Partition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, Ended> {
        loop {
            match records(self, partition, offsets).await {
                Ok(records) => return Ok(records),
                Err(error) => self.wait_for_log(&error).await?,
            }
        }
    }

    async fn found(
        &mut self,
        ranges: &[PositionRange],
        limit: u32,
    ) -> Result<Vec<FoundCommit>, Ended> {
        let ask = Ask::Search(&self.asked.filter, ranges, limit);
        Ok(ask.asked(&self.door).await?)
    }

    /// The last commit of each partition up to a position.
    pub(super) async fn last_until(
        &mut self,
        until: &BTreeMap<Partition, Position>,
    ) -> Result<BTreeMap<Partition, FoundCommit>, Ended> {
        if until.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = Ask::LastUntil(until).asked(&self.door).await?;
        Ok(by_partition(found))
    }

    /// Whether each partition has a commit that was recorded at the feed's end or later: then the
    /// index has all that is wanted.
    async fn is_past_until(&mut self, reached: &PositionToken) -> Result<bool, Ended> {
        let Some(until) = self.asked.until else {
            return Ok(false);
        };
        let last = self.last_until(&reached.positions).await?;
        let is_past = |partition| {
            let last = last.get(&partition);
            last.is_some_and(|last: &FoundCommit| last.recorded_at >= until)
        };
        Ok(self.partitions().all(is_past))
    }

    /// Begins behind the last commit of each partition that was recorded before a time, as far as the
    /// index knows them.
    pub(super) async fn begin_at(&mut self, time: Timestamp) -> Result<(), Ended> {
        let reached = self.reached().await?;
        if reached.positions.is_empty() {
            return Ok(());
        }
        let ask = Ask::LastBefore(&reached.positions, time);
        for last in ask.asked(&self.door).await? {
            self.move_to(&last).await?;
        }
        Ok(())
    }

    /// Begins behind the last commit up to each of these positions.
    pub(super) async fn begin_behind(
        &mut self,
        positions: &BTreeMap<Partition, Position>,
    ) -> Result<(), Ended> {
        for last in self.last_until(positions).await?.into_values() {
            self.move_to(&last).await?;
        }
        Ok(())
    }

    /// Begins at the end of what the index has.
    pub(super) async fn begin_at_end_of_index(&mut self) -> Result<(), Ended> {
        let reached = self.reached().await?;
        self.begin_behind(&reached.positions).await
    }

    /// Whether the index is of use: it is if the filter leaves out most of the log.
    pub(super) async fn needs_index(&mut self) -> Result<bool, Ended> {
        let filter = self.asked.filter.clone();
        if filter.is_narrow() || self.asked.until.is_some() {
            return Ok(true);
        }
        if filter.tenant.is_none() {
            return Ok(false);
        }
        let others = filter.leaves_out_tenants(&self.feeds().pool).await;
        Ok(others.unwrap_or_else(|error| {
            // The log itself gives the same, at a higher price.
            tracing::debug!(%error, "the index does not say whether there are other tenants");
            false
        }))
    }
}

/// The record of an indexed commit, if it still is the one that was indexed.
fn require(indexed: &FoundCommit, record: Option<Record>) -> Result<Record, Ended> {
    let record = record.filter(|record| record_hash(record).0[..] == indexed.record_hash[..]);
    let is_there =
        |record: &Record| mark_of(record).is_some_and(|mark| mark.position == indexed.position);
    record
        .filter(is_there)
        .ok_or_else(|| Ended::Problem(changed(indexed)))
}

fn changed(indexed: &FoundCommit) -> Problem {
    let FoundCommit {
        partition, offset, ..
    } = indexed;
    tracing::error!(%partition, %offset, "a record is not the one that was indexed");
    log_changed("a record of the log is not the one that was indexed")
}

async fn records(
    follower: &Follower,
    partition: Partition,
    offsets: &[Offset],
) -> Result<Vec<Option<Record>>, LogError> {
    let log = &follower.inner().log;
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
        return Ok(Vec::new());
    };
    let is_dense = last.0 - first.0 < DENSE * offsets.len() as u64;
    if offsets.len() == 1 || !is_dense {
        return log.read_at(partition, offsets).await;
    }
    let mut read: BTreeMap<Offset, Record> = BTreeMap::new();
    let mut next = *first;
    while next <= *last {
        let chunk = match log.read(partition, next).await {
            // Single reads say which of them are gone.
            Err(LogError::OffsetGone { .. }) => return log.read_at(partition, offsets).await,
            chunk => chunk?,
        };
        let records = chunk.records.into_iter();
        let wanted = records.filter(|record| offsets.binary_search(&record.offset).is_ok());
        read.extend(wanted.map(|record| (record.offset, record)));
        if chunk.at_end || chunk.next <= next {
            break;
        }
        next = chunk.next;
    }
    Ok(offsets.iter().map(|offset| read.remove(offset)).collect())
}

/// What the index is asked.
enum Ask<'a> {
    Search(&'a CommitFilter, &'a [PositionRange], u32),
    LastUntil(&'a BTreeMap<Partition, Position>),
    LastBefore(&'a BTreeMap<Partition, Position>, Timestamp),
}

impl Ask<'_> {
    async fn of(&self, postgres: &mut PgConnection) -> Result<Vec<FoundCommit>, sqlx::Error> {
        let found = match self {
            Self::Search(filter, ranges, limit) => {
                return filter.search(postgres, ranges, *limit).await;
            }
            Self::LastUntil(positions) => last_until(postgres, positions).await?,
            Self::LastBefore(positions, time) => last_before(postgres, positions, *time).await?,
        };
        Ok(found.into_values().collect())
    }

    /// The answer of the index; it is asked again if Postgres had replaced the views or cut the
    /// connection.
    async fn asked(&self, door: &QueryDoor) -> Result<Vec<FoundCommit>, Problem> {
        let mut tries = 0;
        loop {
            let connection = door.inner.feeds.pool.acquire().await;
            let mut connection = connection.map_err(|error| failed(&error))?;
            match self.of(&mut connection).await {
                Ok(answer) => return Ok(answer),
                Err(error) if tries < TRIES_MAX && is_replaced(&error) => {
                    let cleared = connection.clear_cached_statements().await;
                    cleared.map_err(|error| failed(&error))?;
                }
                Err(error) if tries < TRIES_MAX && is_broken(&error) => connection.close_on_drop(),
                Err(error) => return Err(failed(&error)),
            }
            tries += 1;
        }
    }
}

fn by_partition(found: Vec<FoundCommit>) -> BTreeMap<Partition, FoundCommit> {
    found.into_iter().map(|one| (one.partition, one)).collect()
}
