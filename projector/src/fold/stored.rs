//! Rows as Postgres keeps them, in memory: what the statements of a batch do, for tests.
//!
//! Invariant: this is what `store::rows` does, statement by statement. Deliberately absent: views.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::StreamName;

use crate::declare::entry::ProjectError;
use crate::declare::table::Table;
use crate::declare::value::Value;
use crate::fold::cell::Cell;
use crate::fold::changes::{Changes, TableFold, shown};

/// The rows of one table.
pub(crate) type Rows = BTreeMap<Arc<[Value]>, StoredRow>;

/// A stored row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredRow {
    pub(crate) cells: Box<[Cell]>,
    owner: Option<StreamName>,
}

/// The rows of some tables, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stored(pub(crate) Vec<Rows>);

impl Stored {
    /// Writes what a batch changes.
    pub(crate) fn apply(&mut self, changes: &Changes) -> Result<(), ProjectError> {
        self.0.resize(changes.tables().len(), Rows::new());
        for (rows, fold) in self.0.iter_mut().zip(changes.tables()) {
            write(rows, fold)?;
        }
        Ok(())
    }
}

fn write(rows: &mut Rows, fold: &TableFold) -> Result<(), ProjectError> {
    let table = fold.table;
    let met = fold.rows.iter().filter_map(|(key, row)| {
        let life = row.life.as_ref()?;
        Some((key, life))
    });
    if let Some(last) = fold.clears.last() {
        for (key, life) in met.clone().filter(|(_, life)| life.since < last) {
            let owner = rows.get(key).and_then(|row| row.owner.as_ref());
            let is_cleared =
                |owner: &StreamName| fold.clears.is_before(&key[0], owner.as_str(), life.since);
            if let Some(owner) = owner.filter(|owner| !is_cleared(owner)) {
                require(table, key, owner, &life.first)?;
            }
        }
        rows.retain(|key, row| {
            let owner = row.owner.clone().map(|owner| (key[0].clone(), owner));
            owner.is_none_or(|owner| !fold.clears.0.contains_key(&owner))
        });
    }
    for (key, life) in met.filter(|(_, life)| life.is_reset) {
        if let Some(owner) = rows.get(key).and_then(|row| row.owner.as_ref()) {
            require(table, key, owner, &life.first)?;
            rows.remove(key);
        }
    }
    for given in fold.remaining() {
        let row = rows.entry(given.key.into()).or_insert_with(|| StoredRow {
            cells: vec![Cell::Null; given.cells.len()].into(),
            owner: given.owner.cloned(),
        });
        if let (Some(owner), Some(stream)) = (&row.owner, given.owner) {
            require(table, given.key, owner, stream)?;
        }
        let cells = row.cells.iter_mut().zip(given.cells);
        for ((held, given), declared) in cells.zip(table.values) {
            held.merge(given.clone(), declared.merge);
            if *held == Cell::Emptied {
                *held = Cell::Null;
            }
        }
    }
    Ok(())
}

fn require(
    table: &Table,
    key: &[Value],
    owner: &StreamName,
    stream: &StreamName,
) -> Result<(), ProjectError> {
    if owner == stream {
        return Ok(());
    }
    Err(ProjectError::OtherStream {
        table: table.name,
        key: shown(key),
        owner: owner.to_string(),
        stream: stream.to_string(),
    })
}
