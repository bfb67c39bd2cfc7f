//! How far a task goes, and which partitions have not reached that goal.

use std::collections::BTreeMap;

use position::{Offset, Partition};

use crate::fold::batch::Places;

/// How far a task goes.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    /// Without an end.
    Follow,
    /// Up to these offsets, which are excluded.
    Reach(BTreeMap<Partition, Offset>),
}

/// The partitions that are behind the goal, each with the next offset to read and the goal's
/// offset.
pub(super) fn behind<'a>(
    ends: &BTreeMap<Partition, Offset>,
    places: impl Iterator<Item = &'a Places> + Clone,
) -> Vec<(Partition, Offset, Offset)> {
    let mut behind = Vec::new();
    for (&partition, &end) in ends {
        let next = places.clone().map(|places| {
            let at = places.get(&partition);
            at.map_or(Offset(0), |checkpoint| checkpoint.offset.next())
        });
        let next = next.min().unwrap_or(end);
        if next < end {
            behind.push((partition, next, end));
        }
    }
    behind
}
