//! The contributions of single events, added up.
//!
//! Invariant: they give the rows that a fold of whole commits gives; so `annals why` can say of every
//! row what made it. Deliberately absent: the fold of whole commits.

use std::collections::BTreeSet;
use std::sync::Arc;

use event_log::subscription::Placed;

use crate::declare::entry::{Entry, ProjectError};
use crate::declare::projection::Projection;
use crate::declare::value::Value;
use crate::fold::changes::{Changes, shown};
use crate::fold::contributions::{RunningRow, contribute};
use crate::fold::stored::Stored;

/// How what the events contribute to rows differs from the rows; absent if it does not.
pub(super) fn difference(
    projection: &dyn Projection,
    commits: &[Placed],
    expected: &Stored,
) -> Result<Option<String>, ProjectError> {
    let mut keys: BTreeSet<(usize, Arc<[Value]>)> = BTreeSet::new();
    for placed in commits {
        let mut changes = Changes::new(projection.tables());
        changes.begin(placed);
        projection.project(&Entry::new(placed), &mut changes)?;
        changes.end()?;
        for (index, fold) in changes.tables().iter().enumerate() {
            keys.extend(fold.rows.keys().map(|key| (index, Arc::clone(key))));
        }
    }
    let row = |(index, key): &(usize, Arc<[Value]>)| {
        RunningRow::nothing(&projection.tables()[*index], Arc::clone(key))
    };
    let mut rows: Vec<RunningRow> = keys.iter().map(row).collect();
    for placed in commits {
        contribute(projection, placed, &mut rows)?;
    }
    let differs = keys.iter().zip(&rows).find(|((index, key), row)| {
        let stored = expected.0[*index].get(key);
        stored.map(|stored| &stored.cells) != row.is_there.then_some(&row.cells)
    });
    Ok(differs.map(|((_, key), row)| {
        let (table, key) = (row.table.name, shown(key));
        format!("what single events contribute to the row {key:?} of {table} does not add up to it")
    }))
}
