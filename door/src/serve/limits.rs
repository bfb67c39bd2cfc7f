//! The limits of one listener: number of connections, times, memory.
//!
//! Deliberately absent: where the values come from.

use std::time::Duration;

use crate::memory::MEMORY_BYTES_DEFAULT;

/// Additional connections above the limits, on which only health and metrics are answered.
pub const RESERVE_CONNECTIONS: usize = 64;

/// The limits of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most connections, not counting the reserve.
    pub connections_max: usize,
    /// The most connections of one address (IPv6: of one /64).
    pub connections_per_address_max: usize,
    /// How long the head of a request may take from its first byte.
    pub header_timeout: Duration,
    /// How long a connection between two requests, or a batch between two lines, may be silent.
    pub idle_timeout: Duration,
    /// How long a body or an answer may stand still. A transfer slower than
    /// [`Self::rate_bytes_min`] uses this time up gradually.
    pub stall_timeout: Duration,
    /// The lowest rate, in bytes per second, at which bodies must arrive and answers must be read.
    pub rate_bytes_min: u64,
    /// The most bytes of bodies and answers that are held for all connections together.
    pub memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_address_max: 2_048,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(10),
            rate_bytes_min: 4_096,
            memory_bytes: MEMORY_BYTES_DEFAULT,
        }
    }
}
