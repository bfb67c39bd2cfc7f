//! Cells: what one column of a row holds, and how a contribution is merged into it by the rules that
//! SQL also applies (`sql`).
//!
//! Invariant: merging contributions into a cell, and the cell into a stored one, gives what merging
//! them one by one gives. Null contributes nothing. Deliberately absent: rows (`changes`).

use crate::declare::column_type::ColumnType;
use crate::declare::exact::Exact;
use crate::declare::table::{Merge, TALLIED_MAX, Texts, ValueColumn};
use crate::declare::value::Value;

/// What a column of a row holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Cell {
    /// Nothing was contributed.
    #[default]
    Null,
    Value(Value),
    /// A value, with the rank that decides whether it is the latest. The rank lies elsewhere, so
    /// that the cells of all other rules stay small.
    Latest(Value, Box<Rank>),
    /// The column was emptied, and nothing was contributed since.
    Emptied,
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
            (Cell::Value(Value::Decimal(sum)), Cell::Value(Value::Decimal(more)), Merge::Add) => {
                *self = Cell::Value(Value::Decimal(Box::new(sum.plus(**more))));
                return;
            }
            (Cell::Value(held), Cell::Value(value), Merge::Min) => value < held,
            (Cell::Value(held), Cell::Value(value), Merge::Max) => value > held,
            (Cell::Latest(_, held), Cell::Latest(_, rank), Merge::Latest { .. }) => rank >= held,
            (
                Cell::Value(_) | Cell::Latest(..) | Cell::Emptied,
                Cell::Value(_) | Cell::Latest(..) | Cell::Emptied,
                Merge::Add | Merge::Min | Merge::Max | Merge::Latest { .. },
            ) => unreachable!("contributions are checked against their column's declaration"),
        };
        if replaces {
            *self = given;
        }
    }
}

/// A contribution in the type and the length of its column.
#[inline]
pub(super) fn fitted(declared: &ValueColumn, value: Value) -> Value {
    match (declared.column_type, declared.texts) {
        (ColumnType::Decimal { .. }, _) => rounded(declared.column_type, value),
        (_, Texts::Shortened) => value.into_key(),
        (_, Texts::Whole) => value,
    }
}

/// A contribution to a sum, in the type of its column.
pub(super) fn added(declared: &ValueColumn, number: i64) -> Value {
    if declared.column_type == ColumnType::Numeric {
        return Value::Numeric(number.into());
    }
    if matches!(declared.column_type, ColumnType::Decimal { .. }) {
        return rounded(declared.column_type, number.into());
    }
    let is_small = number.unsigned_abs() <= TALLIED_MAX;
    assert!(is_small, "{} takes small numbers", declared.name);
    Value::Bigint(number)
}

/// A number with the digits that its column has.
pub(super) fn rounded(column_type: ColumnType, value: Value) -> Value {
    let ColumnType::Decimal { scale } = column_type else {
        return value;
    };
    match value {
        Value::Decimal(number) => Value::Decimal(Box::new(number.rounded(scale))),
        Value::Bigint(number) => Value::Decimal(Box::new(Exact::from(number).rounded(scale))),
        value => value,
    }
}
