//! Why a row of a read model is what it is: the contributions that made it, oldest first, each with the
//! value that its columns then had.
//!
//! The caller finds the commits ([`Why::find`]), reads them from the log in their order, gives each of
//! them ([`Why::take`]), and asks whether they add up to the stored row ([`Why::differences`]).
//!
//! Deliberately absent: reading the log, and HTTP.

use std::sync::Arc;

use event_log::subscription::Placed;
use kernel::TenantId;
use position::{Partition, Position};
use serde_json::value::RawValue;
use sqlx::PgConnection;

use crate::declare::model::{Model, Source, Sum};
use crate::declare::projection::Projection;
use crate::declare::table::{Merge, Table};
use crate::declare::value::Value;
use crate::error::explain_project;
use crate::fold::cell::Cell;
use crate::fold::contributions::{Effect, RunningRow, contribute};
use crate::run::reached::RowsVersion;
use crate::store::as_of::joined_tables;
use crate::store::why::{
    Asking, Found, WhyCommit, WhyError, WhyFrom, WhyPlace, WhyUntil, find, held_behind,
};

/// What is asked of a row.
#[derive(Clone, Debug)]
pub struct WhyAsked {
    /// The tenant.
    pub tenant: TenantId,
    /// The name of the read model.
    pub model: &'static str,
    /// The values of the row's key.
    pub key: Vec<Value>,
    /// Up to where commits count.
    pub until: WhyUntil,
    /// The last commit of the page before.
    pub after: Option<WhyPlace>,
    /// The most commits of a page.
    pub limit: u32,
    /// How many partitions the log has.
    pub partitions: u32,
}

/// The commits that made a row, and the row as those that were taken made it.
pub struct Why {
    projection: Arc<dyn Projection>,
    table: &'static Table,
    asked: WhyAsked,
    found: Found,
}

/// What one event, or one commit, gave a row.
#[derive(Debug)]
pub struct Contribution {
    /// The table of the row.
    pub table: &'static str,
    /// The key of the row, its columns joined by commas.
    pub key: String,
    /// The index of the event; absent if the projection looks at commits as a whole.
    pub event: Option<usize>,
    /// What it did: `began`, `changed`, `replaced` or `removed`.
    pub effect: &'static str,
    /// What it gave to columns.
    pub cells: Vec<ContributedCell>,
}

/// What was given to one column.
#[derive(Debug)]
pub struct ContributedCell {
    /// The column.
    pub column: &'static str,
    /// Its rule: `set`, `add`, `min`, `max` or `latest`.
    pub rule: &'static str,
    /// What was given, in JSON; null if the column was emptied.
    pub given: Box<RawValue>,
    /// What the column holds with it.
    pub value: Box<RawValue>,
}

/// A place where the contributions do not add up to the stored row.
#[derive(Debug)]
pub struct WhyDifference {
    /// The table of the row.
    pub table: &'static str,
    /// The column; absent if only one of the two is there.
    pub column: Option<&'static str>,
    /// What is stored, in JSON.
    pub stored: Box<RawValue>,
    /// What the contributions give.
    pub contributed: Box<RawValue>,
}

impl Why {
    /// Finds the commits that made a row. `tx` must be a transaction with one snapshot.
    ///
    /// # Errors
    /// [`WhyError`].
    ///
    /// # Panics
    /// If the projection has no such read model.
    pub async fn find(
        tx: &mut PgConnection,
        projection: &Arc<dyn Projection>,
        asked: WhyAsked,
    ) -> Result<Self, WhyError> {
        let mut tables = projection.tables().iter();
        let table = tables.find(|table| table.name == asked.model);
        let table = table.expect("a read model of the projection");
        let found = find(tx, &asking(&**projection, table, &asked)).await?;
        Ok(Self {
            projection: Arc::clone(projection),
            table,
            asked,
            found,
        })
    }

    /// The commits, oldest first. If the log tells them, those of earlier pages are among them.
    #[must_use]
    pub fn commits(&self) -> &[WhyCommit] {
        &self.found.commits
    }

    /// How they were found.
    #[must_use]
    pub fn from(&self) -> WhyFrom {
        self.found.from
    }

    /// Whether more commits come behind these.
    #[must_use]
    pub fn is_more(&self) -> bool {
        self.found.is_more
    }

    /// The version of the rows.
    #[must_use]
    pub fn version(&self) -> &RowsVersion {
        &self.found.version
    }

    /// The parked streams of the tenant, each with the commit that could not be taken up: the rows lack
    /// what these streams contribute from there on. At most some of them.
    #[must_use]
    pub fn parked(&self) -> &[(String, Partition, Position)] {
        &self.found.parked
    }

    /// Takes the next commit. Returns what it gave to the row, and to rows that the view joins with it.
    ///
    /// # Errors
    /// Why the projection cannot take it up, for people.
    pub fn take(&mut self, placed: &Placed) -> Result<Vec<Contribution>, String> {
        let given = contribute(&*self.projection, placed, &mut self.found.rows);
        let given = given.map_err(|error| explain_project(&error))?;
        let shown = given.into_iter().map(|given| {
            let row = &self.found.rows[given.row];
            let cell = |cell: crate::fold::contributions::GivenCell| {
                let declared = &row.table.values[cell.column];
                ContributedCell {
                    column: declared.name,
                    rule: rule_name(declared.merge),
                    given: json_of(&cell.given),
                    value: json_of(&cell.value),
                }
            };
            Contribution {
                table: row.table.name,
                key: crate::fold::changes::shown(&row.key),
                event: given.event,
                effect: match given.effect {
                    Effect::Began => "began",
                    Effect::Changed => "changed",
                    Effect::Replaced => "replaced",
                    Effect::Removed => "removed",
                },
                cells: given.cells.into_iter().map(cell).collect(),
            }
        });
        Ok(shown.collect())
    }

    /// Reads the row as it is stored behind a commit of this page, where all versions are kept: the page
    /// ends there.
    ///
    /// # Errors
    /// [`WhyError`].
    pub async fn end_at(
        &mut self,
        connection: &mut PgConnection,
        last: WhyPlace,
    ) -> Result<(), WhyError> {
        self.found.is_more = true;
        self.found.held = None;
        if self.found.from == WhyFrom::History {
            let asking = asking(&*self.projection, self.table, &self.asked);
            let (version, rows) = (&self.found.version, &self.found.rows);
            let held = held_behind(connection, &asking, version, rows, last).await?;
            self.found.held = Some(held);
        }
        Ok(())
    }

    /// Whether there is a row with what was taken.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.found.rows[0].is_there
    }

    /// Whether there is anything of the row: it is stored, or some commit contributed to it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        let held = self.found.held.as_ref();
        self.is_there() || held.is_some_and(|held| held[0].is_there)
    }

    /// Where what was taken does not add up to the stored row; absent if the row as it was is not kept.
    #[must_use]
    pub fn differences(&self) -> Option<Vec<WhyDifference>> {
        let held = self.found.held.as_ref()?;
        let rows = self.found.rows.iter().zip(held);
        Some(
            rows.flat_map(|(row, held)| differences(row, held))
                .collect(),
        )
    }
}

fn asking<'a>(
    projection: &'a dyn Projection,
    table: &'static Table,
    asked: &'a WhyAsked,
) -> Asking<'a> {
    Asking {
        projection,
        tenant: &asked.tenant,
        table,
        key: &asked.key,
        until: &asked.until,
        after: asked.after,
        limit: asked.limit,
        partitions: asked.partitions,
    }
}

fn differences(row: &RunningRow, held: &RunningRow) -> Vec<WhyDifference> {
    let table = row.table.name;
    if row.is_there != held.is_there || row.owner != held.owner {
        let there = |row: &RunningRow| {
            let owner = row.owner.as_ref();
            raw(match (row.is_there, owner) {
                (false, _) => "null".to_owned(),
                (true, None) => "\"a row\"".to_owned(),
                (true, Some(owner)) => format!("\"a row of {owner}\""),
            })
        };
        return vec![WhyDifference {
            table,
            column: None,
            stored: there(held),
            contributed: there(row),
        }];
    }
    let cells = row
        .table
        .values
        .iter()
        .zip(row.cells.iter().zip(&held.cells));
    let different = cells.filter(|(_, (cell, held))| !is_same(cell, held));
    let different = different.map(|(declared, (cell, held))| WhyDifference {
        table,
        column: Some(declared.name),
        stored: json_of(held),
        contributed: json_of(cell),
    });
    different.collect()
}

fn is_same(cell: &Cell, held: &Cell) -> bool {
    match (cell, held) {
        // Postgres keeps what a document says, not how it was written.
        (Cell::Value(Value::Jsonb(one)), Cell::Value(Value::Jsonb(other))) => {
            let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
            read(one) == read(other)
        }
        (Cell::Latest(Value::Jsonb(one), rank), Cell::Latest(Value::Jsonb(other), other_rank)) => {
            let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
            rank == other_rank && read(one) == read(other)
        }
        (cell, held) => cell == held,
    }
}

fn rule_name(merge: Merge) -> &'static str {
    match merge {
        Merge::Set => "set",
        Merge::Add => "add",
        Merge::Min => "min",
        Merge::Max => "max",
        Merge::Latest { .. } => "latest",
    }
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).unwrap_or_default()
}

fn json_of(cell: &Cell) -> Box<RawValue> {
    let value = match cell {
        Cell::Null | Cell::Emptied => return raw("null".to_owned()),
        Cell::Value(value) | Cell::Latest(value, _) => value,
    };
    let text = |text: String| raw(serde_json::Value::String(text).to_string());
    match value {
        Value::Text(held) => text(held.to_string()),
        Value::Bigint(number) => raw(number.to_string()),
        // A sum that 64 bits do not hold is a text: a client would round it.
        Value::Numeric(sum) => match i64::try_from(*sum) {
            Ok(sum) => raw(sum.to_string()),
            Err(_) => text(sum.to_string()),
        },
        Value::Decimal(number) => text(number.to_string()),
        Value::Double(number) => raw(serde_json::Value::from(number.get()).to_string()),
        Value::Boolean(truth) => raw(truth.to_string()),
        Value::Uuid(id) => text(id.to_string()),
        Value::Timestamptz(moment) => text(moment.to_string()),
        Value::Date(day) => text(day.to_string()),
        Value::Bytea(bytes) => text(hex::encode(bytes)),
        Value::Jsonb(json) => raw(json.to_string()),
        Value::TextArray(texts) => {
            let texts: serde_json::Value = texts.iter().map(|text| &**text).collect();
            raw(texts.to_string())
        }
    }
}

/// The columns of tables that a column of a read model shows, each with the name of its table; absent
/// if the read model has no such column. A column of the key shows none.
#[must_use]
pub fn why_columns(model: &Model, column: &str) -> Option<Vec<(&'static str, String)>> {
    let own = |name: &str| vec![(model.name, name.to_owned())];
    let mut columns = model.columns.iter();
    let found = columns.find(|declared| declared.name == column)?;
    if model.key.iter().any(|key| key.name == column) {
        return Some(Vec::new());
    }
    Some(match found.source {
        Source::Same | Source::OrZero | Source::Sum(Sum::Same) => own(column),
        Source::Sql(expression) | Source::Sum(Sum::Sql(expression)) => named_in(model, expression),
        Source::TooLarge => {
            let sums = model.columns.iter().flat_map(|column| match column.source {
                Source::Sum(Sum::Same) => own(column.name),
                Source::Sum(Sum::Sql(expression)) => named_in(model, expression),
                Source::Same | Source::OrZero | Source::Sql(_) | Source::TooLarge => Vec::new(),
            });
            sums.collect()
        }
    })
}

/// The columns that an SQL expression of a view names.
fn named_in(model: &Model, expression: &'static str) -> Vec<(&'static str, String)> {
    let mut tables = vec![(model.name, "r")];
    tables.extend(joined_tables(model.joins));
    let is_of_name = |one: char| one.is_ascii_alphanumeric() || one == '_' || one == '.';
    let words = expression.split(|one: char| !is_of_name(one));
    let named = words.filter_map(|word| {
        let (alias, column) = word.split_once('.')?;
        let table = tables.iter().find(|(_, known)| *known == alias)?;
        Some((table.0, column.to_owned()))
    });
    named.collect()
}

#[cfg(test)]
mod tests;
