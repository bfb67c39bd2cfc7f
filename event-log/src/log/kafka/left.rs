//! Where a client for proofs and reading up stands when nobody uses it.
//!
//! Deliberately absent: the client itself (`consumer`), and who gets which (`mod`).

use position::{Offset, Partition};

/// How a probe was left.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    /// Nowhere, or at an end.
    Nowhere,
    /// Behind a record that was looked at.
    Looked(Partition, Offset),
    /// Where somebody will most likely read on.
    Reading(Partition, Offset),
}

impl Left {
    pub(super) fn reads_on(&self) -> bool {
        matches!(self, Self::Reading(..))
    }

    pub(super) fn stands_at(&self, place: (Partition, Offset)) -> bool {
        match *self {
            Self::Nowhere => false,
            Self::Looked(partition, offset) | Self::Reading(partition, offset) => {
                (partition, offset) == place
            }
        }
    }
}
