//! Read models as the door shows them: their keys and orders, and their rows in JSON.
//!
//! Invariant: JSON members are in the order of the columns. Deliberately absent: statements
//! (`statement`), cursors and filters.

use std::sync::Arc;

use door::tag;
use projector::{History, Model, Projection, Shown, Value, models_of};
use sqlx::postgres::PgRow;

use super::asked::Asked;
use super::cursor;
use super::lookups::Lookups;
use super::offered::{Direction, Offered};
use super::statement::Parts;
use super::values::{Cell, value_of};

/// A read model that the door shows.
pub(super) struct ShownModel {
    pub(super) model: Model,
    pub(super) projection: &'static str,
    /// What may be asked of it.
    pub(super) offered: Offered,
    /// The most characters that a cursor of it can have.
    pub(super) cursor_length_max: usize,
    pub(super) parts: Parts,
    /// Requests for rows by key that are read together.
    pub(super) lookups: Lookups,
    /// How much of its past is kept.
    pub(super) history: History,
    /// What stands for the form in which this program shows it.
    pub(super) made_by: String,
    /// The places of the key's columns.
    key: Vec<usize>,
}

/// The read models of `projections` that the door shows, in order of name.
pub(super) fn shown_models(projections: &[Arc<dyn Projection>]) -> Vec<ShownModel> {
    let mut shown = Vec::new();
    for projection in projections {
        let models = models_of(&**projection).into_iter();
        let models = models.filter(|model| model.shown == Shown::Everywhere);
        shown.extend(models.map(|model| {
            let history = projection.history();
            ShownModel::new(model, projection.name(), history)
        }));
    }
    shown.sort_by_key(|shown| shown.model.name);
    shown
}

impl ShownModel {
    pub(super) fn new(model: Model, projection: &'static str, history: History) -> Self {
        let place = |name: &str| model.columns.iter().position(|column| column.name == name);
        let mut shown = Self {
            offered: Offered::of(&model),
            key: model.key.iter().filter_map(|key| place(key.name)).collect(),
            cursor_length_max: 0,
            parts: Parts::of(&model),
            lookups: Lookups::new(),
            history,
            made_by: made_by(&model),
            model,
            projection,
        };
        shown.cursor_length_max = cursor::length_max(&shown);
        shown
    }

    /// The columns of a query's order: those of `sort`, and the rest of the key, which goes the way
    /// of the last of them.
    pub(super) fn order(&self, asked: &Asked) -> Vec<(usize, Direction)> {
        let mut order = asked.sort.clone();
        let way = order.last().map_or(Direction::Ascending, |(_, way)| *way);
        for &at in &self.key {
            if asked.sort.iter().all(|(by, _)| *by != at) {
                order.push((at, way));
            }
        }
        order
    }

    /// The key that a path names, its columns joined by commas; absent if no row can have that key.
    /// A long text may be given as it is, or shortened as the row shows it.
    pub(super) fn key_of_path(&self, text: &str) -> Option<Vec<Value>> {
        let mut columns = self.model.key.iter();
        let mut key = Vec::with_capacity(columns.len());
        for text in text.splitn(self.model.key.len(), ',') {
            let value = value_of(columns.next()?.column_type, text)?;
            key.push(match value.is_shortened() {
                true => value,
                false => value.into_key(),
            });
        }
        columns.next().is_none().then_some(key)
    }

    /// The values of a row, whose first column stands at `from`.
    pub(super) fn cells<'r>(
        &self,
        row: &'r PgRow,
        from: usize,
    ) -> impl Iterator<Item = Result<Cell<'r>, sqlx::Error>> {
        let columns = self.model.columns.iter().enumerate();
        columns.map(move |(index, column)| Cell::of(row, from + index, column.column_type))
    }

    /// Adds a row to a JSON text.
    pub(super) fn write_json(
        &self,
        row: &PgRow,
        from: usize,
        json: &mut Vec<u8>,
    ) -> Result<(), sqlx::Error> {
        for (number, (cell, column)) in self.cells(row, from).zip(&self.model.columns).enumerate() {
            json.extend_from_slice(if number == 0 { b"{\"" } else { b",\"" });
            // Names of columns need no escapes.
            json.extend_from_slice(column.name.as_bytes());
            json.extend_from_slice(b"\":");
            let written = cell?.write_json(json);
            written.map_err(|error| sqlx::Error::Encode(error.into()))?;
        }
        json.push(b'}');
        Ok(())
    }
}

/// A digest of the program's version and the columns as they are declared.
fn made_by(model: &Model) -> String {
    let columns = model.columns.iter();
    let columns: Vec<String> = columns
        .map(|column| format!("{} {}", column.name, column.column_type.sql()))
        .collect();
    let text = format!("{} {}", env!("CARGO_PKG_VERSION"), columns.join(","));
    tag::digest(text.as_bytes())
}

#[cfg(test)]
mod tests;
