//! How far a task goes, and what is missing to it.

use std::collections::BTreeMap;

use position::{Offset, Partition};

use super::fold::Places;

/// How far a task goes.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    /// On and on.
    Follow,
    /// Up to before these offsets.
    Reach(BTreeMap<Partition, Offset>),
}

/// The partitions in which a place is before the goal: where it would go on, and the goal.
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
