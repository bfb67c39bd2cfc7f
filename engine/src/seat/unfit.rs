//! What keeps a node from owning what the group gives it.

use std::collections::BTreeSet;

use event_log::chain::Stop;
use position::Partition;

use crate::owner::NotOwning;

/// What keeps a node from owning what the group gives it, so that it is better not in the group.
#[derive(Debug, Default)]
pub(crate) struct Unfit {
    /// The log goes on in a format that this program does not read.
    pub(crate) outdated: bool,
    /// The partitions for whose states and ids neither the local store nor memory has room, or which
    /// the store refuses for good.
    pub(crate) without_room: BTreeSet<Partition>,
    /// The partitions that are left alone since this node's clock is wrong.
    pub(crate) clock_off: BTreeSet<Partition>,
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
            Some(NotOwning::NoRoom | NotOwning::StoreRefuses(_)) => {
                self.without_room.insert(partition)
            }
            Some(NotOwning::Clock(_)) => self.clock_off.insert(partition),
            Some(NotOwning::OtherList) => self.of_other_list.insert(partition),
            _ => {
                self.without_room.remove(&partition)
                    | self.clock_off.remove(&partition)
                    | self.of_other_list.remove(&partition)
            }
        }
    }

    /// Why this node is to rest, if it is, as an operator is told.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        if !self.without_room.is_empty() {
            return Some("the local checkpoint store takes nothing more");
        }
        if !self.of_other_list.is_empty() {
            return Some("its list of acknowledged damage differs from the others'");
        }
        (!self.clock_off.is_empty()).then_some("its clock is wrong")
    }
}
