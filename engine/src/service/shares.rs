//! How a node's memory is divided.
//!
//! Invariant: the shares of one node add up to 11/16 of its memory, and to more only where the
//! minimum of bytes in flight applies.

/// The memory budget of a node, unless configured otherwise, in bytes.
pub const MEMORY_BYTES: usize = 512 << 20;
/// The smallest memory budget of a node, in bytes.
pub const MEMORY_BYTES_MIN: usize = 128 << 20;
/// The least that one partition may have in flight: two of the largest records.
const IN_FLIGHT_BYTES_MIN: usize = 2 << 20;

/// How a node's memory is divided, in bytes. The rest remains for what has no limit of its own: the
/// program, its connections, the Kafka clients' own queues, and memory that was just freed.
pub(super) struct Shares {
    /// States, per partition. What the local store does not take may use the same amount again.
    pub(super) states: usize,
    /// Records in flight, per partition.
    pub(super) in_flight: usize,
    /// Commands that wait for their answers, over all partitions.
    pub(super) waiting: usize,
    /// The local store, over all partitions.
    pub(super) store: usize,
}

impl Shares {
    /// The shares of a node with a budget of `memory` bytes.
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
