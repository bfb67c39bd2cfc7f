//! Row changes: what a projection contributes to rows. They are folded in memory by the merge rules
//! that SQL also applies (`sql`).
//!
//! Invariant: folding a batch and merging the result into the stored rows gives the same rows as
//! merging the contributions one by one. Null contributes nothing.

use std::collections::BTreeMap;

use event_log::subscription::Placed;
use position::{Partition, Position};

use crate::declare::table::{ColumnType, Merge, TALLIED_MAX, Table, ValueColumn};
use crate::declare::value::Value;

/// What a column of a row holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Cell {
    /// Nothing was contributed.
    #[default]
    Null,
    Value(Value),
    /// A value, with the rank that decides whether it is the latest.
    Latest(Value, Rank),
}

/// The contribution with the greatest rank is the latest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) by: Value,
    pub(crate) partition: i64,
    pub(crate) position: i64,
}

impl Cell {
    /// Merges a later contribution into this cell.
    pub(crate) fn merge(&mut self, given: Cell, rule: Merge) {
        let replaces = match (&*self, &given, rule) {
            (_, Cell::Null, _) => false,
            (Cell::Null, _, _) | (_, _, Merge::Set) => true,
            (Cell::Value(Value::Bigint(sum)), Cell::Value(Value::Bigint(more)), Merge::Add) => {
                let sum = sum.checked_add(*more);
                *self = Cell::Value(Value::Bigint(sum.expect("small numbers are added")));
                return;
            }
            (Cell::Value(Value::Numeric(sum)), Cell::Value(Value::Numeric(more)), Merge::Add) => {
                let sum = sum.checked_add(*more);
                *self = Cell::Value(Value::Numeric(sum.expect("memory holds fewer than 2^63")));
                return;
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
    }
}

/// The rows of one table as folded so far, by key. A key begins with the tenant.
pub(crate) struct TableFold {
    pub(crate) table: &'static Table,
    pub(crate) rows: BTreeMap<Box<[Value]>, Box<[Cell]>>,
}

/// The row changes of one projection, folded.
pub struct Changes {
    tables: Vec<TableFold>,
    tenant: Value,
    place: (Partition, Position),
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
        }
    }

    /// Names the commit that the following contributions come from. Its tenant owns the rows.
    pub fn begin(&mut self, placed: &Placed) {
        let tenant = placed.commit.tenant.as_str();
        if !matches!(&self.tenant, Value::Text(held) if **held == *tenant) {
            self.tenant = Value::from(tenant);
        }
        self.place = (placed.partition, placed.position);
    }

    /// The row of `table` with this key, to contribute to. The row is created even if nothing is
    /// contributed.
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
        whole.extend(key.map(Value::into_key));
        let cells = fold
            .rows
            .entry(whole.into())
            .or_insert_with(|| vec![Cell::Null; table.values.len()].into());
        Row {
            table,
            cells,
            place: self.place,
        }
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
        let by = matches!(declared.merge, Merge::Latest { .. });
        assert!(!by, "{column} needs a by-value");
        let value = match (declared.merge, value) {
            (Merge::Add, Value::Bigint(number)) => added(declared, number),
            (_, value) => value,
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
            position: crate::declare::value::count_of(self.place.1.0),
        };
        self.merge(index, declared, Cell::Latest(value, rank))
    }

    fn merge(&mut self, index: usize, declared: &ValueColumn, given: Cell) -> &mut Self {
        self.cells[index].merge(given, declared.merge);
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

/// A contribution to a sum, in the type of its column.
fn added(declared: &ValueColumn, number: i64) -> Value {
    if declared.column_type == ColumnType::Numeric {
        return Value::Numeric(number.into());
    }
    let is_small = number.unsigned_abs() <= TALLIED_MAX;
    assert!(is_small, "{} takes small numbers", declared.name);
    Value::Bigint(number)
}

#[cfg(test)]
mod tests {
    use event_log::commit::Commit;
    use event_log::record::{Headers, NewRecord, Record};
    use position::Offset;
    use proptest::prelude::*;

    use super::*;
    use crate::declare::table::{add, key, latest, max, min, set, tally};

    /// Every merge rule; only one stream writes the column `own`.
    const TABLE: Table = Table {
        name: "sample",
        about: "",
        key: &[key("id", ColumnType::Bigint, "")],
        values: &[
            add("total", ""),
            tally("number", ""),
            min("least", ColumnType::Text, ""),
            max("greatest", ColumnType::Bigint, ""),
            latest("state", ColumnType::Text, ColumnType::Bigint, ""),
            set("own", ColumnType::Bigint, ""),
        ],
        view: crate::View::NONE,
    };

    fn placed(partition: u32, position: u64) -> Placed {
        let value = r#"{"commit":"0198d8a2-6b3e-7c4e-9d52-0f3c5a1b2c3d","stream":"s-1",
            "from_version":0,"recorded_at":"2018-01-01T00:00:00Z",
            "command":{"id":"c","type":"T","schema":1,"data":{}},"outcome":"accepted"}"#;
        let record = NewRecord {
            key: None,
            value: None,
            headers: Headers::default(),
        };
        Placed {
            partition: Partition(partition),
            position: Position(position),
            record: Record::at(Offset(position), record),
            commit: Commit::read(b"main/s-1", value.as_bytes()).unwrap(),
            is_checked: true,
        }
    }

    #[derive(Clone, Debug)]
    struct Contribution {
        id: i64,
        total: Option<i64>,
        least: Option<String>,
        greatest: Option<i64>,
        state: Option<(String, i64)>,
    }

    fn contribution() -> impl Strategy<Value = Contribution> {
        let text = || proptest::option::of("[a-cé]{0,2}");
        let number = || proptest::option::of(-5_i64..5);
        let state = proptest::option::of(("[a-c]", 0_i64..3));
        (0_i64..3, number(), text(), number(), state).prop_map(
            |(id, total, least, greatest, state)| Contribution {
                id,
                total,
                least,
                greatest,
                state,
            },
        )
    }

    /// Folds each contribution at its place; only partition 0 writes `own`.
    fn fold(given: &[(u32, u64, Contribution)]) -> Changes {
        const TABLES: &[Table] = &[TABLE];
        let mut changes = Changes::new(TABLES);
        for (partition, position, one) in given {
            changes.begin(&placed(*partition, *position));
            let mut row = changes.row(&TABLES[0], [Value::from(one.id)]);
            row.put_if("total", one.total)
                .put("number", 1_i64)
                .put_if("least", one.least.as_deref())
                .put_if("greatest", one.greatest);
            if let Some((state, by)) = &one.state {
                row.put_latest("state", state.as_str(), *by);
            }
            if *partition == 0 {
                row.put_if("own", one.greatest);
            }
        }
        changes
    }

    /// Does to the stored rows what the SQL upsert does.
    fn upsert(stored: &mut BTreeMap<Box<[Value]>, Box<[Cell]>>, changes: Changes) {
        for (key, cells) in changes.tables.into_iter().flat_map(|fold| fold.rows) {
            let row = stored
                .entry(key)
                .or_insert_with(|| vec![Cell::Null; cells.len()].into());
            for ((held, given), declared) in row.iter_mut().zip(cells).zip(TABLE.values) {
                held.merge(given, declared.merge);
            }
        }
    }

    proptest! {
        #[test]
        fn batches_of_any_size_in_any_interleaving_give_the_same_rows(
            given in proptest::collection::vec((0_u32..3, contribution()), 0..40),
            sizes in proptest::collection::vec(1_usize..7, 40),
            choices in proptest::collection::vec(0_usize..3, 40),
        ) {
            let given: Vec<(u32, u64, Contribution)> = given
                .into_iter()
                .enumerate()
                .map(|(index, (partition, one))| (partition, index as u64 + 1, one))
                .collect();
            let mut at_once = BTreeMap::new();
            upsert(&mut at_once, fold(&given));

            // The same commits: the order within each partition stays, the order between partitions
            // changes.
            let mut queues: Vec<Vec<_>> = (0..3)
                .map(|p| given.iter().filter(|(q, ..)| *q == p).rev().cloned().collect())
                .collect();
            let mut interleaved: Vec<(u32, u64, Contribution)> = Vec::new();
            for choice in choices {
                interleaved.extend(queues[choice].pop());
            }
            for queue in &mut queues {
                interleaved.extend(std::iter::from_fn(|| queue.pop()));
            }
            let mut stored = BTreeMap::new();
            let mut rest = &interleaved[..];
            for size in sizes {
                let (batch, behind) = rest.split_at(size.min(rest.len()));
                upsert(&mut stored, fold(batch));
                rest = behind;
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(stored, at_once);
        }
    }

    #[test]
    fn a_sum_has_room_for_whatever_is_added() {
        const TABLES: &[Table] = &[TABLE];
        let mut changes = Changes::new(TABLES);
        for amount in [i64::MAX, i64::MAX, 7] {
            let mut row = changes.row(&TABLES[0], [Value::from(1_i64)]);
            row.put("total", amount);
        }
        let (_, cells) = changes.tables[0].rows.iter().next().unwrap();
        let sum = Value::Numeric(2 * i128::from(i64::MAX) + 7);
        assert_eq!(cells[0], Cell::Value(sum));
    }

    #[test]
    fn rows_belong_to_the_tenant_of_their_commit() {
        const TABLES: &[Table] = &[TABLE];
        let mut changes = Changes::new(TABLES);
        let mut commit = placed(0, 1);
        for tenant in ["main", "other"] {
            commit.commit.tenant = tenant.parse().unwrap();
            changes.begin(&commit);
            changes
                .row(&TABLES[0], [Value::from(1_i64)])
                .put("total", 1_i64);
        }
        assert_eq!(changes.row_count(), 2);
    }
}
