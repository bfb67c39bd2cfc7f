//! How a node's memory is shared out.
//!
//! Invariant: the shares together leave half of it free.

/// The memory that a node is made for, unless said otherwise, in bytes.
pub const MEMORY_BYTES: usize = 512 << 20;
/// The least that a node can be made for, in bytes.
pub const MEMORY_BYTES_MIN: usize = 128 << 20;
/// The least in flight for one partition: two of the largest records.
const IN_FLIGHT_BYTES_MIN: usize = 2 << 20;

/// How a node's memory is shared out, in bytes. Half of it is left to what nobody bounds one by one:
/// the program, its connections, the Kafka clients' own queues, and what was just freed.
pub(super) struct Shares {
    /// States, for each partition; and what a local store that fails does not take.
    pub(super) states: usize,
    /// Records in flight, for each partition.
    pub(super) in_flight: usize,
    /// Commands that wait for their answers, over all partitions.
    pub(super) waiting: usize,
    /// The local store, over all partitions.
    pub(super) store: usize,
}

impl Shares {
    /// The shares of a node that is made for `memory` bytes.
    pub(super) fn of(memory: usize, partitions: u32) -> Self {
        let partitions = partitions.max(1) as usize;
        Self {
            states: memory / 4 / partitions,
            in_flight: (memory / 16 / partitions).max(IN_FLIGHT_BYTES_MIN),
            waiting: memory / 8,
            store: memory / 4,
        }
    }
}
