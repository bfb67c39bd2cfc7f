//! Row changes: what a projection contributes to rows, folded in memory.
//!
//! Invariant: folding a batch and merging the result into the stored rows gives the same rows as
//! applying the commits one by one. Deliberately absent: how contributions to one column are merged
//! (`cell`), and which rows go away (`ownership`).

use std::collections::BTreeMap;
use std::collections::btree_map::{Entry, OccupiedEntry};
use std::sync::Arc;

use event_log::subscription::Placed;
use kernel::{StreamName, Timestamp};
use position::{Partition, Position};

use crate::declare::entry::ProjectError;
use crate::declare::history::History;
use crate::declare::table::{Empty, Merge, RowsOf, Table, ValueColumn};
use crate::declare::value::Value;
use crate::fold::cell::{Cell, Rank, added, fitted, rounded};
use crate::fold::history::{Chain, Place, Versions};
use crate::fold::ownership::{Clears, Life, Step};

/// The rows of one table as folded so far, by key. A key begins with the tenant.
pub(crate) struct TableFold {
    pub(crate) table: &'static Table,
    pub(crate) rows: BTreeMap<Arc<[Value]>, RowFold>,
    /// The streams that removed all of their rows.
    pub(crate) clears: Clears,
    /// The versions of its rows, if they are kept.
    pub(crate) versions: Option<Versions>,
}

/// One row as folded so far.
pub(crate) struct RowFold {
    pub(crate) cells: Box<[Cell]>,
    /// Whose it is, in a table whose rows belong to one stream each.
    pub(crate) life: Option<Box<Life>>,
    /// What each partition made of it, if versions are kept.
    chains: Vec<Chain>,
}

/// The cells to which a commit contributes: those of the row, and those of its version.
type Touched<'r> = (&'r mut [Cell], Option<&'r mut [Cell]>);

/// A row to be written.
#[derive(Clone, Copy)]
pub(crate) struct Remaining<'a> {
    pub(crate) key: &'a [Value],
    pub(crate) cells: &'a [Cell],
    /// The stream that it belongs to, if it belongs to one.
    pub(crate) owner: Option<&'a StreamName>,
}

impl TableFold {
    fn new(table: &'static Table, history: History) -> Self {
        Self {
            table,
            rows: BTreeMap::new(),
            clears: Clears::default(),
            versions: history.is_kept().then(|| Versions::new(history)),
        }
    }

    /// Whether nothing is to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.clears.0.is_empty()
    }

    /// The rows that remain, in the order of their keys.
    pub(crate) fn remaining(&self) -> Vec<Remaining<'_>> {
        let mut remaining = Vec::with_capacity(self.rows.len());
        for (key, row) in &self.rows {
            let owner = match &row.life {
                None => None,
                Some(life) => match life.owner(&key[0], &self.clears) {
                    None => continue,
                    owner => owner,
                },
            };
            let cells = &*row.cells;
            remaining.push(Remaining { key, cells, owner });
        }
        remaining
    }

    /// The row with this key, to which a stream contributes.
    fn row(&mut self, key: Arc<[Value]>, now: &Now) -> Result<Touched<'_>, ProjectError> {
        let (table, count) = (self.table, self.table.values.len());
        let is_owned = table.rows == RowsOf::OneStream;
        let versions = self.versions.as_mut();
        let versions = versions.map(|versions| (versions, Arc::clone(&key)));
        let entry = match self.rows.entry(key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                let begun = || Box::new(Life::begun(&now.stream, now.step));
                let row = entry.insert(RowFold {
                    cells: nothing(count),
                    life: is_owned.then(begun),
                    chains: Vec::new(),
                });
                return Ok(touched(versions, row, now));
            }
        };
        let is_gone = is_owned && touch(table, &entry, now, &self.clears)?;
        let row = entry.into_mut();
        if let Some(life) = &mut row.life {
            life.touched(now.step);
            if is_gone {
                life.begin(&now.stream);
                row.cells.fill(Cell::Null);
            }
        }
        Ok(touched(versions, row, now))
    }

    fn remove(&mut self, key: Arc<[Value]>, now: &Now) -> Result<(), ProjectError> {
        let (table, count) = (self.table, self.table.values.len());
        let versions = self.versions.as_mut();
        let versions = versions.map(|versions| (versions, Arc::clone(&key)));
        let row = match self.rows.entry(key) {
            Entry::Vacant(entry) => entry.insert(RowFold {
                cells: nothing(count),
                life: Some(Box::new(Life::removed(&now.stream, now.step))),
                chains: Vec::new(),
            }),
            Entry::Occupied(entry) => {
                touch(table, &entry, now, &self.clears)?;
                let row = entry.into_mut();
                if let Some(life) = &mut row.life {
                    life.touched(now.step);
                    life.end();
                }
                row.cells.fill(Cell::Null);
                row
            }
        };
        if let Some((versions, key)) = versions {
            versions.remove(&mut row.chains, &key, count, now.place, &now.stream);
        }
        Ok(())
    }

    fn remove_all(&mut self, tenant: &Value, now: &Now) {
        self.clears.add(tenant, &now.stream, now.step);
        let Some(versions) = &mut self.versions else {
            return;
        };
        for key in versions.clear(tenant, &now.stream, now.place) {
            if let Some(row) = self.rows.get_mut(&key) {
                versions.cleared(&mut row.chains, &key, now.place, &now.stream);
            }
        }
    }

    /// Leaves a version of each row that the commit touched.
    fn end(&mut self, place: Place) {
        let Some(versions) = &mut self.versions else {
            return;
        };
        for key in versions.end() {
            if let Some(row) = self.rows.get_mut(&key) {
                versions.leave(&mut row.chains, key, place);
            }
        }
    }
}

/// The cells of a row to which nothing was contributed.
pub(super) fn nothing(count: usize) -> Box<[Cell]> {
    // Made one by one: to clone a cell takes longer.
    std::iter::repeat_with(Cell::default).take(count).collect()
}

/// The cells of a row, and those of its version, to which the commit contributes.
#[inline]
fn touched<'r>(
    versions: Option<(&mut Versions, Arc<[Value]>)>,
    row: &'r mut RowFold,
    now: &Now,
) -> Touched<'r> {
    let Some((versions, key)) = versions else {
        return (&mut row.cells, None);
    };
    let owner = row.life.as_ref().map(|_| &now.stream);
    let count = row.cells.len();
    let chain = versions.chain(&mut row.chains, &key, count, now.place, owner);
    (&mut row.cells, Some(&mut chain.cells))
}

/// Whether a row that the batch has met is gone. Fails if it is there and belongs to another stream.
fn touch(
    table: &Table,
    entry: &OccupiedEntry<'_, Arc<[Value]>, RowFold>,
    now: &Now,
    clears: &Clears,
) -> Result<bool, ProjectError> {
    let key = entry.key();
    let life = entry.get().life.as_ref();
    match life.and_then(|life| life.owner(&key[0], clears)) {
        None => Ok(true),
        Some(owner) if *owner == now.stream => Ok(false),
        Some(owner) => Err(ProjectError::OtherStream {
            table: table.name,
            key: shown(key),
            owner: owner.to_string(),
            stream: now.stream.to_string(),
        }),
    }
}

/// A key without its tenant, for people.
pub(crate) fn shown(key: &[Value]) -> String {
    let parts = key.iter().skip(1).map(|value| match value {
        Value::Text(text) => text.to_string(),
        Value::Bigint(number) => number.to_string(),
        Value::Timestamptz(moment) => moment.to_string(),
        Value::Date(day) => day.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Uuid(id) => id.to_string(),
        Value::Bytea(bytes) => hex::encode(bytes),
        // These are in no key.
        Value::Numeric(_)
        | Value::Decimal(_)
        | Value::Double(_)
        | Value::Jsonb(_)
        | Value::TextArray(_) => String::new(),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// The commit whose contributions are being taken, and how many of its row changes there were.
struct Now {
    stream: StreamName,
    step: Step,
    place: Place,
}

/// The row changes of one projection, folded.
pub struct Changes {
    tables: Vec<TableFold>,
    tenant: Value,
    /// Whether the rows of some table belong to one stream each.
    has_owners: bool,
    /// Whether versions of rows are kept.
    has_versions: bool,
    now: Now,
    /// Why the present commit cannot be taken up.
    fault: Option<ProjectError>,
    /// Takes the contributions to rows of other streams, which are not kept.
    scratch: Vec<Cell>,
}

impl Changes {
    /// No changes to any of `tables`, without versions of rows.
    #[must_use]
    pub fn new(tables: &'static [Table]) -> Self {
        Self::with_history(tables, History::Off)
    }

    /// No changes to any of `tables`.
    #[must_use]
    pub fn with_history(tables: &'static [Table], history: History) -> Self {
        let has_owners = tables.iter().any(|table| table.rows == RowsOf::OneStream);
        let nobody: StreamName = "none-none".parse().expect("a stream's name");
        Self {
            tables: tables
                .iter()
                .map(|table| TableFold::new(table, history))
                .collect(),
            tenant: Value::from(kernel::TenantId::MAIN),
            has_owners,
            has_versions: history.is_kept(),
            now: Now {
                stream: nobody,
                step: 0,
                place: Place {
                    partition: Partition(0),
                    at: Timestamp::from_micros(0).expect("the year 1970"),
                    position: Position(0),
                },
            },
            fault: None,
            scratch: Vec::new(),
        }
    }

    /// Names the commit that the following contributions come from. Its tenant owns the rows.
    pub fn begin(&mut self, placed: &Placed) {
        let tenant = placed.commit.tenant.as_str();
        if !matches!(&self.tenant, Value::Text(held) if **held == *tenant) {
            self.tenant = Value::from(tenant);
        }
        self.now.place = Place {
            partition: placed.partition,
            at: placed.at,
            position: placed.position,
        };
        if self.has_owners {
            self.now.stream.clone_from(&placed.commit.stream);
        }
    }

    /// Ends the commit: whether its contributions could be taken.
    ///
    /// # Errors
    /// [`ProjectError::OtherStream`] if one of them is to a row that belongs to another stream.
    pub fn end(&mut self) -> Result<(), ProjectError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if self.has_versions {
            let place = self.now.place;
            self.tables.iter_mut().for_each(|fold| fold.end(place));
        }
        Ok(())
    }

    /// The row of `table` with this key, to contribute to. The row is created even if nothing is
    /// contributed.
    ///
    /// # Panics
    /// If the key or the table is not as declared: a bug of the projection.
    pub fn row<const N: usize>(&mut self, table: &'static Table, key: [Value; N]) -> Row<'_> {
        let (index, key) = (self.index_of(table), self.key_of(table, key));
        self.now.step += 1;
        let place = self.now.place;
        let (cells, version) = match self.tables[index].row(key, &self.now) {
            Ok(touched) => touched,
            Err(fault) => {
                self.fault.get_or_insert(fault);
                self.scratch.clear();
                self.scratch.resize(table.values.len(), Cell::Null);
                (&mut self.scratch[..], None)
            }
        };
        Row {
            table,
            cells,
            version,
            place: (place.partition, place.position),
            next: 0,
        }
    }

    /// Removes the row of `table` with this key, if there is one. It must belong to the commit's
    /// stream. What is contributed later begins a new row.
    ///
    /// # Panics
    /// If the key or the table is not as declared, or the table's rows do not belong to one stream
    /// each ([`RowsOf::OneStream`]): a bug of the projection.
    pub fn remove<const N: usize>(&mut self, table: &'static Table, key: [Value; N]) {
        let (index, key) = (self.index_of_owned(table), self.key_of(table, key));
        self.now.step += 1;
        if let Err(fault) = self.tables[index].remove(key, &self.now) {
            self.fault.get_or_insert(fault);
        }
    }

    /// Removes all rows of `table` that belong to the commit's stream, whatever their keys.
    ///
    /// # Panics
    /// If the table is not as declared, or its rows do not belong to one stream each
    /// ([`RowsOf::OneStream`]): a bug of the projection.
    pub fn remove_all(&mut self, table: &'static Table) {
        let index = self.index_of_owned(table);
        self.now.step += 1;
        self.tables[index].remove_all(&self.tenant, &self.now);
    }

    fn index_of(&self, table: &Table) -> usize {
        // A constant may stand in several places of a program: then the names tell.
        let is_same =
            |fold: &TableFold| std::ptr::eq(fold.table, table) || fold.table.name == table.name;
        let mut folds = self.tables.iter();
        folds
            .position(is_same)
            .unwrap_or_else(|| panic!("{} is not a table of this projection", table.name))
    }

    fn index_of_owned(&self, table: &Table) -> usize {
        let is_owned = table.rows == RowsOf::OneStream;
        assert!(is_owned, "rows of {} never go away", table.name);
        self.index_of(table)
    }

    fn key_of<const N: usize>(&self, table: &Table, key: [Value; N]) -> Arc<[Value]> {
        assert_eq!(N, table.key.len(), "the key of {} as declared", table.name);
        for (value, declared) in key.iter().zip(table.key) {
            let (found, expected) = (value.column_type(), declared.column_type);
            assert_eq!(found, expected, "the type of {}", declared.name);
        }
        let tenant = std::iter::once(self.tenant.clone());
        tenant.chain(key.map(Value::into_key)).collect()
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
    /// The cells of its version, if versions are kept.
    version: Option<&'a mut [Cell]>,
    place: (Partition, Position),
    /// The column after the last one: rules mostly name columns in the order of their table.
    next: usize,
}

impl Row<'_> {
    /// Contributes a value to a column, by the column's merge rule.
    ///
    /// # Panics
    /// If the column's declaration does not fit the value: a bug of the projection.
    pub fn put(&mut self, column: &str, value: impl Into<Value>) -> &mut Self {
        let index = self.index(column);
        let value = value.into();
        let declared = &self.table.values[index];
        let value = match (declared.merge, value) {
            (Merge::Latest { .. }, _) => panic!("{column} needs a by-value"),
            (Merge::Add, Value::Bigint(number)) => added(declared, number),
            (_, value) => fitted(declared, value),
        };
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
        let declared = &self.table.values[index];
        let Merge::Latest { by: by_type } = declared.merge else {
            panic!("{column} takes no by-value");
        };
        let value = fitted(declared, value.into());
        let by = rounded(by_type, by.into());
        assert_eq!(by.column_type(), by_type, "{column}");
        assert_eq!(value.column_type(), declared.column_type, "{column}");
        let rank = Rank {
            by,
            partition: self.place.0.0.into(),
            position: crate::declare::value::count_of(self.place.1.0),
        };
        self.merge(index, declared, Cell::Latest(value, Box::new(rank)))
    }

    /// Makes a column empty again. What was contributed before no longer counts.
    ///
    /// # Panics
    /// If the column is not of the rule `Set`, or may not be null: a bug of the projection.
    pub fn put_nothing(&mut self, column: &str) -> &mut Self {
        let index = self.index(column);
        let declared = &self.table.values[index];
        let is_possible = declared.merge == Merge::Set && declared.empty != Empty::Never;
        assert!(is_possible, "{column} cannot become empty again");
        self.merge(index, declared, Cell::Emptied)
    }

    #[inline]
    fn merge(&mut self, index: usize, declared: &ValueColumn, given: Cell) -> &mut Self {
        if self.version.is_some() {
            self.merge_version(index, declared, &given);
        }
        contribute(&mut self.cells[index], given, declared.merge);
        self
    }

    #[inline(never)]
    fn merge_version(&mut self, index: usize, declared: &ValueColumn, given: &Cell) {
        if let Some(version) = &mut self.version {
            contribute(&mut version[index], given.clone(), declared.merge);
        }
    }

    #[inline]
    fn index(&mut self, column: &str) -> usize {
        let values = self.table.values;
        // Two equal texts of a program mostly are one: then their addresses tell.
        let is_named =
            |declared: &ValueColumn| std::ptr::eq(declared.name, column) || declared.name == column;
        let index = match values.get(self.next) {
            Some(next) if is_named(next) => self.next,
            Some(_) | None => values
                .iter()
                .position(is_named)
                .unwrap_or_else(|| panic!("{} has no column {column}", self.table.name)),
        };
        self.next = index + 1;
        index
    }
}

#[inline]
fn contribute(cell: &mut Cell, given: Cell, rule: Merge) {
    match cell {
        // Whatever the rule, the first contribution is the value.
        empty @ Cell::Null => *empty = given,
        held => held.merge(given, rule),
    }
}

#[cfg(test)]
mod tests;
