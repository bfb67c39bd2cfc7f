//! The records of one read, as chunks.
//!
//! Invariant: one read holds a bounded number of records and bytes, whatever the store.

use position::{Offset, Partition};

use super::Chunk;
use crate::record::Record;

const RECORDS_MAX: usize = 2_000;
/// The last record of a read may exceed this.
const BYTES_MAX: usize = 4 << 20;

/// Chunks of several partitions while they are filled, in the order of their first records.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) chunks: Vec<Chunk>,
    records: usize,
    bytes: usize,
}

impl Gathered {
    pub(super) fn is_full(&self) -> bool {
        self.records >= RECORDS_MAX || self.bytes >= BYTES_MAX
    }

    pub(super) fn chunk_of(&mut self, partition: Partition) -> Option<&mut Chunk> {
        let mut chunks = self.chunks.iter_mut();
        chunks.rfind(|chunk| chunk.partition == partition)
    }

    pub(super) fn push(&mut self, partition: Partition, record: Record) {
        self.records += 1;
        self.bytes += record.size();
        let next = record.offset.next();
        match self.chunk_of(partition) {
            Some(chunk) => {
                chunk.records.push(record);
                chunk.next = next;
                chunk.at_end = false;
            }
            None => self.chunks.push(Chunk {
                partition,
                records: vec![record],
                next,
                at_end: false,
            }),
        }
    }

    /// Adds what was read after this.
    #[cfg(feature = "kafka")]
    pub(super) fn extend(&mut self, more: Self) {
        self.records += more.records;
        self.bytes += more.bytes;
        self.chunks.extend(more.chunks);
    }

    /// The chunk of a read of one partition from `from` on.
    pub(super) fn one(mut self, partition: Partition, from: Offset, at_end: bool) -> Chunk {
        let chunk = self.chunks.pop().unwrap_or(Chunk {
            partition,
            records: Vec::new(),
            next: from,
            at_end,
        });
        Chunk { at_end, ..chunk }
    }
}
