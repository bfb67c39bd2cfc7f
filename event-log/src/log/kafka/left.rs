//! Where an idle client for proofs and gap reads stands.
//!
//! Deliberately absent: the client itself (`consumer`), and which call gets which client (`mod`).

use position::{Offset, Partition};

#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    /// At no useful place, or at the end of a partition.
    Nowhere,
    /// After a single record that was looked at.
    Looked(Partition, Offset),
    /// Where a reader will most likely continue.
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
