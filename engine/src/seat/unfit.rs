//! What keeps a node from owning the partitions that the group gives it.

use std::collections::BTreeSet;

use position::Partition;

use crate::owner::NotOwning;

/// What keeps a node from owning the partitions that the group gives it. Such a node should leave
/// the group.
#[derive(Debug, Default)]
pub(crate) struct Unfit {
    /// The log contains a record format, or an event, that this program is too old for.
    pub(crate) outdated: bool,
    /// The partitions whose states and command ids do not fit into the local store and memory, or
    /// which the store refuses permanently.
    pub(crate) without_room: BTreeSet<Partition>,
    /// The partitions that this node does not own because its clock is wrong.
    pub(crate) clock_off: BTreeSet<Partition>,
    /// The partitions owned by nodes with another list of acknowledged damage.
    pub(crate) of_other_list: BTreeSet<Partition>,
}

impl Unfit {
    /// Notes why a partition is not owned; `true` if this changes anything.
    pub(super) fn note(&mut self, partition: Partition, reason: Option<&NotOwning>) -> bool {
        match reason {
            Some(NotOwning::Stopped(stop)) if stop.asks_for_upgrade() => {
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

    /// Why this node should rest, if so, as a text for an operator.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        if !self.without_room.is_empty() {
            return Some("the local checkpoint store cannot be written");
        }
        if !self.of_other_list.is_empty() {
            return Some("its list of acknowledged damage differs from the other nodes'");
        }
        (!self.clock_off.is_empty()).then_some("its clock is wrong")
    }
}
