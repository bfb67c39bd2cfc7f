//! What keeps a node from owning what the group gives it.

use std::collections::BTreeSet;

use crate::chain::Stop;
use crate::ids::Partition;
use crate::owner::NotOwning;

/// What keeps a node from owning what the group gives it, so that it is better not in the group.
#[derive(Debug, Default)]
pub(crate) struct Unfit {
    /// The log goes on in a format that this program does not read.
    pub(crate) outdated: bool,
    /// The partitions for whose states and ids neither the local store nor memory has room.
    pub(crate) without_room: BTreeSet<Partition>,
    /// The partitions that nodes with another list of acknowledged damage own.
    pub(crate) of_other_list: BTreeSet<Partition>,
}

impl Unfit {
    /// Takes why a partition is not owned; `true` if that is news.
    pub(super) fn note(&mut self, partition: Partition, reason: Option<&NotOwning>) -> bool {
        match reason {
            Some(NotOwning::Stopped(Stop::NewerFormat { .. })) => {
                !std::mem::replace(&mut self.outdated, true)
            }
            Some(NotOwning::NoRoom) => self.without_room.insert(partition),
            Some(NotOwning::OtherList) => self.of_other_list.insert(partition),
            _ => self.without_room.remove(&partition) | self.of_other_list.remove(&partition),
        }
    }
}
