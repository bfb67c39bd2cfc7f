//! What single commits contribute to single rows, made again: a projection is a pure function of one
//! commit, so that nothing of this is stored.
//!
//! Invariant: contributions that are merged one after the other give the row that the projector
//! writes (`changes`), because both use the rules of `cell` and `ownership`. Deliberately absent: which
//! commits touched a row (`store::why`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use event_log::subscription::Placed;
use kernel::StreamName;

use crate::declare::entry::{Entry, ProjectError};
use crate::declare::projection::Projection;
use crate::declare::table::Table;
use crate::declare::value::Value;
use crate::fold::cell::Cell;
use crate::fold::changes::{Changes, TableFold, nothing};

/// A row as some contributions made it.
#[derive(Clone, Debug)]
pub(crate) struct RunningRow {
    pub(crate) table: &'static Table,
    /// Its key, which begins with the tenant.
    pub(crate) key: Arc<[Value]>,
    pub(crate) cells: Box<[Cell]>,
    /// The stream that it belongs to, if it belongs to one and is there.
    pub(crate) owner: Option<StreamName>,
    pub(crate) is_there: bool,
}

/// What a contribution did to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// There was no row before.
    Began,
    Changed,
    /// The row went away and began anew.
    Replaced,
    Removed,
}

/// What one event, or one commit, gave one row.
#[derive(Debug)]
pub(crate) struct Given {
    /// The index of the row.
    pub(crate) row: usize,
    /// The index of the event; absent if the projection looks at commits as a whole.
    pub(crate) event: Option<usize>,
    pub(crate) effect: Effect,
    pub(crate) cells: Vec<GivenCell>,
}

/// What was given to one column.
#[derive(Debug)]
pub(crate) struct GivenCell {
    /// The index of the column.
    pub(crate) column: usize,
    pub(crate) given: Cell,
    /// What the column holds with it.
    pub(crate) value: Cell,
}

impl RunningRow {
    /// A row to which nothing was contributed.
    pub(crate) fn nothing(table: &'static Table, key: Arc<[Value]>) -> Self {
        Self {
            table,
            key,
            cells: nothing(table.values.len()),
            owner: None,
            is_there: false,
        }
    }

    /// The row goes away.
    pub(crate) fn end(&mut self) {
        self.cells.fill(Cell::Null);
        self.owner = None;
        self.is_there = false;
    }

    /// Merges the cells of a row.
    pub(crate) fn merge(&mut self, cells: &[Cell]) {
        self.is_there = true;
        for (index, given) in cells.iter().enumerate() {
            self.merge_one(index, given);
        }
    }

    fn merge_one(&mut self, index: usize, given: &Cell) {
        let held = &mut self.cells[index];
        held.merge(given.clone(), self.table.values[index].merge);
        if *held == Cell::Emptied {
            *held = Cell::Null;
        }
    }

    /// Takes what a fold of one event, or one commit, gives the row; absent if that is nothing.
    fn take(&mut self, fold: &TableFold) -> Option<(Effect, Vec<GivenCell>)> {
        let tenant = &self.key[0];
        let owned = self.owner.clone().map(|owner| (tenant.clone(), owner));
        let is_cleared = owned.is_some_and(|owner| fold.clears.0.contains_key(&owner));
        let row = fold.rows.get(&self.key);
        let life = row.and_then(|row| row.life.as_ref());
        let is_reset = is_cleared || life.is_some_and(|life| life.is_reset);
        let given = row.and_then(|row| match &row.life {
            None => Some((None, &row.cells)),
            Some(life) => {
                let owner = life.owner(tenant, &fold.clears)?;
                Some((Some(owner.clone()), &row.cells))
            }
        });
        let (was_there, cells) = (self.is_there, given);
        if is_reset {
            self.end();
        }
        let Some((owner, cells)) = cells else {
            return (was_there && is_reset).then(|| (Effect::Removed, Vec::new()));
        };
        let effect = match (was_there, is_reset) {
            (false, _) => Effect::Began,
            (true, false) => Effect::Changed,
            (true, true) => Effect::Replaced,
        };
        self.is_there = true;
        self.owner = owner;
        let mut taken = Vec::new();
        for (column, given) in cells.iter().enumerate() {
            if *given == Cell::Null {
                continue;
            }
            self.merge_one(column, given);
            taken.push(GivenCell {
                column,
                given: given.clone(),
                value: self.cells[column].clone(),
            });
        }
        Some((effect, taken))
    }
}

/// What one commit contributes to some rows, which take it.
///
/// # Errors
/// Why the projection cannot take the commit up.
pub(crate) fn contribute(
    projection: &dyn Projection,
    placed: &Placed,
    rows: &mut [RunningRow],
) -> Result<Vec<Given>, ProjectError> {
    let entry = Entry::new(placed);
    let parts: Vec<Option<usize>> = match projection.is_by_event() {
        true => (0..placed.commit.events.len()).map(Some).collect(),
        false => vec![None],
    };
    let mut all = Vec::new();
    for event in parts {
        let mut changes = Changes::new(projection.tables());
        changes.begin(placed);
        let project = || {
            match event {
                Some(index) => projection.project_event(&entry, index, &mut changes)?,
                None => projection.project(&entry, &mut changes)?,
            }
            changes.end()
        };
        catch_unwind(AssertUnwindSafe(project)).unwrap_or(Err(ProjectError::Panicked))?;
        for (row, running) in rows.iter_mut().enumerate() {
            let name = running.table.name;
            let folds = changes.tables().iter();
            for fold in folds.filter(|fold| fold.table.name == name) {
                if let Some((effect, cells)) = running.take(fold) {
                    all.push(Given {
                        row,
                        event,
                        effect,
                        cells,
                    });
                }
            }
        }
    }
    Ok(all)
}
