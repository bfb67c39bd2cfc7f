//! Row changes: what a projection contributes, folded in memory by the same merge rules that SQL
//! applies (`sql`).
//!
//! Invariant: folding a batch and merging the result into the stored rows gives the rows that
//! merging one contribution after the other gives. Null contributes nothing.

use std::collections::BTreeMap;

use engine::ids::{Partition, Position};
use engine::subscription::Placed;

use super::entry::ProjectError;
use super::table::{Merge, Table, ValueColumn};
use super::value::Value;

/// What a column of a row holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Cell {
    /// Nothing was contributed.
    #[default]
    Null,
    /// A value.
    Value(Value),
    /// A value with what decides whether it is the latest.
    Latest(Value, Rank),
}

/// What decides which contribution is the latest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) by: Value,
    pub(crate) partition: i64,
    pub(crate) position: i64,
}

/// A sum left the range of bigint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl Cell {
    /// Merges a later contribution into this cell.
    pub(crate) fn merge(&mut self, given: Cell, rule: Merge) -> Result<(), Overflow> {
        let replaces = match (&*self, &given, rule) {
            (_, Cell::Null, _) => false,
            (Cell::Null, _, _) | (_, _, Merge::Set) => true,
            (Cell::Value(Value::Bigint(sum)), Cell::Value(Value::Bigint(more)), Merge::Add) => {
                *self = Cell::Value(Value::Bigint(sum.checked_add(*more).ok_or(Overflow)?));
                return Ok(());
            }
            (Cell::Value(held), Cell::Value(value), Merge::Min) => value < held,
            (Cell::Value(held), Cell::Value(value), Merge::Max) => value > held,
            (Cell::Latest(_, held), Cell::Latest(_, rank), Merge::Latest { .. }) => rank >= held,
            (
                Cell::Value(_) | Cell::Latest(..),
                Cell::Value(_) | Cell::Latest(..),
                Merge::Add | Merge::Min | Merge::Max | Merge::Latest { .. },
            ) => unreachable!("contributions are checked against their column's declaration"),
        };
        if replaces {
            *self = given;
        }
        Ok(())
    }
}

/// The rows of one table as folded so far, by key, the tenant first.
pub(crate) struct TableFold {
    pub(crate) table: &'static Table,
    pub(crate) rows: BTreeMap<Box<[Value]>, Box<[Cell]>>,
}

/// The row changes of one projection, folded.
pub struct Changes {
    tables: Vec<TableFold>,
    tenant: Value,
    place: (Partition, Position),
    overflow: Option<ProjectError>,
}

impl Changes {
    /// No changes to any of `tables`.
    #[must_use]
    pub fn new(tables: &'static [Table]) -> Self {
        let tables = tables
            .iter()
            .map(|table| TableFold {
                table,
                rows: BTreeMap::new(),
            })
            .collect();
        Self {
            tables,
            tenant: Value::from(kernel::TenantId::MAIN),
            place: (Partition(0), Position(0)),
            overflow: None,
        }
    }

    /// Says which commit the following contributions come from: its tenant owns the rows.
    pub fn begin(&mut self, placed: &Placed) {
        let tenant = placed.commit.tenant.as_str();
        if !matches!(&self.tenant, Value::Text(held) if **held == *tenant) {
            self.tenant = Value::from(tenant);
        }
        self.place = (placed.partition, placed.position);
    }

    /// The row of `table` with this key, for contributing to it. It comes to be, even if nothing
    /// is contributed.
    ///
    /// # Panics
    /// If the key or the table is not as declared: a bug of the projection.
    pub fn row<const N: usize>(&mut self, table: &'static Table, key: [Value; N]) -> Row<'_> {
        assert_eq!(N, table.key.len(), "the key of {} as declared", table.name);
        for (value, declared) in key.iter().zip(table.key) {
            let (found, expected) = (value.column_type(), declared.column_type);
            assert_eq!(found, expected, "the type of {}", declared.name);
        }
        let fold = self
            .tables
            .iter_mut()
            .find(|fold| fold.table.name == table.name)
            .unwrap_or_else(|| panic!("{} is not a table of this projection", table.name));
        let mut whole = Vec::with_capacity(N + 1);
        whole.push(self.tenant.clone());
        whole.extend(key);
        let cells = fold
            .rows
            .entry(whole.into())
            .or_insert_with(|| vec![Cell::Null; table.values.len()].into());
        Row {
            table,
            cells,
            place: self.place,
            overflow: &mut self.overflow,
        }
    }

    /// Whether all contributions so far could be merged.
    ///
    /// # Errors
    /// [`ProjectError::Overflow`].
    pub fn check(&self) -> Result<(), ProjectError> {
        self.overflow.clone().map_or(Ok(()), Err)
    }

    /// How many rows changed.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.tables.iter().map(|fold| fold.rows.len()).sum()
    }

    pub(crate) fn tables(&self) -> &[TableFold] {
        &self.tables
    }
}

/// One row, for contributing to its columns.
pub struct Row<'a> {
    table: &'static Table,
    cells: &'a mut [Cell],
    place: (Partition, Position),
    overflow: &'a mut Option<ProjectError>,
}

impl Row<'_> {
    /// Contributes a value to a column, by the column's merge rule.
    ///
    /// # Panics
    /// If the column is not declared so: a bug of the projection.
    pub fn put(&mut self, column: &str, value: impl Into<Value>) -> &mut Self {
        let index = self.index(column);
        let value = value.into();
        let declared = &self.table.values[index];
        let by = matches!(declared.merge, Merge::Latest { .. });
        assert!(!by, "{column} needs a by-value");
        assert_eq!(value.column_type(), declared.column_type, "{column}");
        self.merge(index, declared, Cell::Value(value))
    }

    /// Contributes a value to a column, if there is one.
    ///
    /// # Panics
    /// As [`Self::put`].
    pub fn put_if(&mut self, column: &str, value: Option<impl Into<Value>>) -> &mut Self {
        match value {
            Some(value) => self.put(column, value),
            None => self,
        }
    }

    /// Contributes a value with its by-value to a column of the rule `Latest`.
    ///
    /// # Panics
    /// As [`Self::put`].
    pub fn put_latest(
        &mut self,
        column: &str,
        value: impl Into<Value>,
        by: impl Into<Value>,
    ) -> &mut Self {
        let index = self.index(column);
        let (value, by) = (value.into(), by.into());
        let declared = &self.table.values[index];
        let expected = Merge::Latest {
            by: by.column_type(),
        };
        assert_eq!(expected, declared.merge, "{column}");
        assert_eq!(value.column_type(), declared.column_type, "{column}");
        let rank = Rank {
            by,
            partition: self.place.0.0.into(),
            position: super::value::count_of(self.place.1.0),
        };
        self.merge(index, declared, Cell::Latest(value, rank))
    }

    fn merge(&mut self, index: usize, declared: &ValueColumn, given: Cell) -> &mut Self {
        if self.cells[index].merge(given, declared.merge).is_err() {
            *self.overflow = Some(ProjectError::Overflow {
                table: self.table.name,
                column: declared.name,
            });
        }
        self
    }

    fn index(&self, column: &str) -> usize {
        self.table
            .values
            .iter()
            .position(|declared| declared.name == column)
            .unwrap_or_else(|| panic!("{} has no column {column}", self.table.name))
    }
}
