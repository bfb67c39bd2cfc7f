//! How a read model's tables are declared: keys, columns with a merge rule and a sentence for people, and
//! what is shown of them.
//!
//! Invariant: the tenant is the first column of every key; the runtime puts it there, so that no
//! declaration can forget it. Deliberately absent: views as they are made of this (`model`), SQL (`sql`)
//! and rows (`changes`).

use super::model::ModelColumn;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Text, ordered by its bytes (`COLLATE "C"`), as it is in memory.
    Text,
    /// A 64-bit integer.
    Bigint,
    /// A whole number of any size: a sum. Views show it as `bigint` ([`sum`]).
    Numeric,
    /// A moment.
    Timestamptz,
    /// A day.
    Date,
    /// Bytes.
    Bytea,
}

impl ColumnType {
    /// Its name in SQL.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bigint => "bigint",
            Self::Numeric => "numeric",
            Self::Timestamptz => "timestamptz",
            Self::Date => "date",
            Self::Bytea => "bytea",
        }
    }
}

/// How contributions to one column of one row become its value. All but `Set` commute, so that the
/// order of partitions does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The last contribution counts; for columns that one stream alone writes, in its order.
    Set,
    /// The sum.
    Add,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The contribution with the greatest by-value counts; among equals the one that stands last,
    /// by partition and position. The by-value is stored beside it.
    Latest {
        /// The type of the by-value.
        by: ColumnType,
    },
}

/// A column of a key.
#[derive(Clone, Copy, Debug)]
pub struct KeyColumn {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// A sentence for people.
    pub about: &'static str,
}

/// A column that contributions are merged into.
#[derive(Clone, Copy, Debug)]
pub struct ValueColumn {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// How contributions become its value.
    pub merge: Merge,
    /// What is shown where nothing was contributed.
    pub empty: Empty,
    /// A sentence for people.
    pub about: &'static str,
}

/// What a view shows of a column to which nothing was contributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// That does not happen: every row of the view has a value.
    Never,
    /// Null.
    Null,
    /// 0.
    Zero,
}

/// A table of a projection.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name, unique among all projections; also its view's.
    pub name: &'static str,
    /// A sentence for people.
    pub about: &'static str,
    /// The columns of its key behind the tenant.
    pub key: &'static [KeyColumn],
    /// Its other columns.
    pub values: &'static [ValueColumn],
    /// What is shown of it.
    pub view: View,
}

/// What is shown of a table: all of its columns, one row for each of its rows, unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Where it is shown.
    pub shown: Shown,
    /// Which rows are whole, as a condition on the table's row `r`; absent: all.
    pub filter: Option<&'static str>,
    /// `LEFT JOIN`s of `r` with the projection's other tables, whose names stand in braces.
    pub joins: &'static str,
    /// Columns that are computed beside the table's own.
    pub computed: &'static [ModelColumn],
}

impl View {
    /// The whole table, in SQL and in the query door.
    pub const WHOLE: Self = Self {
        shown: Shown::Everywhere,
        filter: None,
        joins: "",
        computed: &[],
    };
    /// The whole table, in SQL alone: it serves the machinery.
    pub const IN_SQL_ONLY: Self = Self {
        shown: Shown::InSqlOnly,
        ..Self::WHOLE
    };
    /// Nothing; the views of other tables join it.
    pub const NONE: Self = Self {
        shown: Shown::Nowhere,
        ..Self::WHOLE
    };
}

/// Where a view is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// In SQL and in the query door.
    Everywhere,
    /// In SQL alone.
    InSqlOnly,
    /// Nowhere: there is no view.
    Nowhere,
}

/// A column of a key.
#[must_use]
pub const fn key(name: &'static str, column_type: ColumnType, about: &'static str) -> KeyColumn {
    KeyColumn {
        name,
        column_type,
        about,
    }
}

/// A column written by one stream only. Every row of the view has a value in it; else say
/// [`nullable`](ValueColumn::nullable).
#[must_use]
pub const fn set(name: &'static str, column_type: ColumnType, about: &'static str) -> ValueColumn {
    ValueColumn {
        name,
        column_type,
        merge: Merge::Set,
        empty: Empty::Never,
        about,
    }
}

/// A sum of amounts that others choose: whatever they are, it has room. The view shows null where 64
/// bits do not hold it, and says so in its column `too_large`.
#[must_use]
pub const fn add(name: &'static str, about: &'static str) -> ValueColumn {
    ValueColumn {
        merge: Merge::Add,
        empty: Empty::Zero,
        ..set(name, ColumnType::Numeric, about)
    }
}

/// A sum of small numbers, such as how many there are: what is contributed is within
/// ±[`TALLIED_MAX`], so that 64 bits hold more than a log has.
#[must_use]
pub const fn tally(name: &'static str, about: &'static str) -> ValueColumn {
    ValueColumn {
        merge: Merge::Add,
        empty: Empty::Zero,
        ..set(name, ColumnType::Bigint, about)
    }
}

/// The most that one contribution adds to a [`tally`]: with 2^31 of them 64 bits are full.
pub const TALLIED_MAX: u64 = 1 << 32;

/// A least value.
#[must_use]
pub const fn min(name: &'static str, column_type: ColumnType, about: &'static str) -> ValueColumn {
    ValueColumn {
        merge: Merge::Min,
        ..set(name, column_type, about)
    }
}

/// A greatest value.
#[must_use]
pub const fn max(name: &'static str, column_type: ColumnType, about: &'static str) -> ValueColumn {
    ValueColumn {
        merge: Merge::Max,
        ..set(name, column_type, about)
    }
}

/// The value with the greatest by-value.
#[must_use]
pub const fn latest(
    name: &'static str,
    column_type: ColumnType,
    by: ColumnType,
    about: &'static str,
) -> ValueColumn {
    ValueColumn {
        merge: Merge::Latest { by },
        ..set(name, column_type, about)
    }
}

impl ValueColumn {
    /// The same, shown as null where nothing was contributed.
    #[must_use]
    pub const fn nullable(self) -> Self {
        Self {
            empty: Empty::Null,
            ..self
        }
    }

    /// The same, shown as 0 where nothing was contributed.
    #[must_use]
    pub const fn or_zero(self) -> Self {
        Self {
            empty: Empty::Zero,
            ..self
        }
    }
}
