//! The log of the simulated world: partitions in the order of appending, with everything that a
//! broker may do.
//!
//! Invariant: records stand in the order of their appends. No record is ever changed, and only a
//! cut removes records. Deliberately absent: which records are appended when (`producer`), and
//! which records count (`history`).

use event_log::log::{Chunk, LogError};
use event_log::record::{NewRecord, Record};
use position::{Offset, Partition};

use super::node::away;

#[derive(Default)]
pub struct PartitionLog {
    pub records: Vec<Record>,
    next: u64,
    pub epoch: i32,
    /// Until when it accepts no appends, in microseconds.
    pub slow_until_us: u64,
    /// Until when it cannot be read, in microseconds.
    pub away_until_us: u64,
}

impl PartitionLog {
    pub fn append(&mut self, record: NewRecord, at_ms: i64) -> &Record {
        let mut record = Record::at(Offset(self.next), record);
        record.appended_at_ms = Some(at_ms);
        record.leader_epoch = Some(self.epoch);
        self.next += 1;
        self.records.push(record);
        self.records.last().expect("it was just pushed")
    }

    /// Leaves an offset without a record, as the markers of transactions do.
    pub fn skip(&mut self) {
        self.next += 1;
    }

    /// The offset after the last record.
    pub fn end(&self) -> Offset {
        Offset(self.next)
    }

    /// The log, unless it cannot be read now.
    pub fn reached(&self, now_us: u64) -> Result<&Self, LogError> {
        match self.away_until_us > now_us {
            true => Err(away()),
            false => Ok(self),
        }
    }

    /// The records from an offset on, at most `records_max` of them.
    pub fn read(&self, partition: Partition, from: Offset, records_max: usize) -> Chunk {
        let first = self.records.partition_point(|record| record.offset < from);
        let rest = &self.records[first..];
        let whole = rest.len() <= records_max;
        let records = rest[..rest.len().min(records_max)].to_vec();
        let last = records.last().map(|record| record.offset.next());
        Chunk {
            partition,
            next: match whole {
                true => self.end(),
                false => last.unwrap_or(from),
            },
            records,
            at_end: whole,
        }
    }

    pub fn at(&self, offset: Offset) -> Option<&Record> {
        let place = self.records.binary_search_by_key(&offset, |r| r.offset);
        place.ok().map(|place| &self.records[place])
    }

    /// Removes the last `count` records, but never the very first: as after an unclean election, or
    /// after a broker lost power.
    pub fn cut(&mut self, count: usize) -> Offset {
        let kept = self.records.len().saturating_sub(count).max(1);
        self.records.truncate(kept);
        self.next = self.records.last().map_or(0, |record| record.offset.0 + 1);
        self.epoch += 1;
        self.end()
    }
}
