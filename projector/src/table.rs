//! How a read model's tables and views are declared: keys, columns, and a merge rule per column.
//!
//! Invariant: the tenant is the first column of every key; the runtime puts it there, so that no
//! declaration can forget it. Deliberately absent: SQL (`sql`) and rows (`changes`).

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
}

/// A table of a projection.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name, unique among all projections.
    pub name: &'static str,
    /// The columns of its key behind the tenant.
    pub key: &'static [KeyColumn],
    /// Its other columns.
    pub values: &'static [ValueColumn],
}

impl Table {
    /// The type of a column, of the key or not.
    #[must_use]
    pub(crate) fn column_type(&self, name: &str) -> Option<ColumnType> {
        let keys = self.key.iter().map(|key| (key.name, key.column_type));
        let values = self
            .values
            .iter()
            .map(|value| (value.name, value.column_type));
        let mut columns = keys.chain(values);
        columns
            .find(|(known, _)| *known == name)
            .map(|(_, found)| found)
    }
}

/// A column of a key.
#[must_use]
pub const fn key(name: &'static str, column_type: ColumnType) -> KeyColumn {
    KeyColumn { name, column_type }
}

/// A column written by one stream only.
#[must_use]
pub const fn set(name: &'static str, column_type: ColumnType) -> ValueColumn {
    ValueColumn {
        name,
        column_type,
        merge: Merge::Set,
    }
}

/// A sum of amounts that others choose: whatever they are, it has room.
#[must_use]
pub const fn add(name: &'static str) -> ValueColumn {
    ValueColumn {
        name,
        column_type: ColumnType::Numeric,
        merge: Merge::Add,
    }
}

/// A sum of small numbers, such as how many there are: what is contributed is within
/// ±[`TALLIED_MAX`], so that 64 bits hold more than a log has.
#[must_use]
pub const fn tally(name: &'static str) -> ValueColumn {
    ValueColumn {
        name,
        column_type: ColumnType::Bigint,
        merge: Merge::Add,
    }
}

/// The most that one contribution adds to a [`tally`]: with 2^31 of them 64 bits are full.
pub const TALLIED_MAX: u64 = 1 << 32;

/// A least value.
#[must_use]
pub const fn min(name: &'static str, column_type: ColumnType) -> ValueColumn {
    ValueColumn {
        name,
        column_type,
        merge: Merge::Min,
    }
}

/// A greatest value.
#[must_use]
pub const fn max(name: &'static str, column_type: ColumnType) -> ValueColumn {
    ValueColumn {
        name,
        column_type,
        merge: Merge::Max,
    }
}

/// The value with the greatest by-value.
#[must_use]
pub const fn latest(name: &'static str, column_type: ColumnType, by: ColumnType) -> ValueColumn {
    ValueColumn {
        name,
        column_type,
        merge: Merge::Latest { by },
    }
}

/// A view in the schema `read`: what a projection shows of its tables.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Its name in SQL and in the query door.
    pub name: &'static str,
    /// One sentence for people.
    pub about: &'static str,
    /// The table whose rows it shows, one for each; `r` in expressions.
    pub table: &'static str,
    /// `LEFT JOIN`s with the projection's other tables, whose names stand in braces.
    pub joins: &'static str,
    /// Which rows are whole; absent: all.
    pub filter: Option<&'static str>,
    /// Its columns behind the tenant; those of the table's key among them.
    pub columns: &'static [ModelColumn],
    /// Where it is shown.
    pub shown: Shown,
}

/// Where a view is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// In SQL and in the query door.
    Everywhere,
    /// In SQL alone: it serves the machinery.
    InSqlOnly,
}

/// A column of a view.
#[derive(Clone, Copy, Debug)]
pub struct ModelColumn {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub null: Null,
    /// What it is computed from.
    pub source: Source,
}

/// Whether a column may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Null {
    /// Every row has a value.
    Never,
    /// What has not happened is null.
    Possible,
}

/// What a view's column is computed from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The table's column of the same name.
    Same,
    /// The table's column of the same name, 0 where it is null.
    OrZero,
    /// An expression.
    Sql(&'static str),
    /// A sum: null where 64 bits do not hold it.
    Sum(Sum),
    /// The names of the row's sums that 64 bits do not hold; null where there are none.
    TooLarge,
}

/// What a view's sum is computed from.
#[derive(Clone, Copy, Debug)]
pub enum Sum {
    /// The table's column of the same name, 0 where it is null.
    Same,
    /// An expression of the type numeric that is never null.
    Sql(&'static str),
}

/// A column that every row of the view has.
#[must_use]
pub const fn column(name: &'static str, column_type: ColumnType) -> ModelColumn {
    ModelColumn {
        name,
        column_type,
        null: Null::Never,
        source: Source::Same,
    }
}

/// A column that may be null.
#[must_use]
pub const fn nullable(name: &'static str, column_type: ColumnType) -> ModelColumn {
    ModelColumn {
        name,
        column_type,
        null: Null::Possible,
        source: Source::Same,
    }
}

/// A number that is 0 where nothing was counted.
#[must_use]
pub const fn count(name: &'static str) -> ModelColumn {
    ModelColumn {
        name,
        column_type: ColumnType::Bigint,
        null: Null::Never,
        source: Source::OrZero,
    }
}

/// A sum that is 0 where nothing was added, and null where 64 bits do not hold it. A view with sums
/// has the column [`too_large`].
#[must_use]
pub const fn sum(name: &'static str) -> ModelColumn {
    ModelColumn {
        name,
        column_type: ColumnType::Bigint,
        null: Null::Possible,
        source: Source::Sum(Sum::Same),
    }
}

/// The same, computed by an expression of the type numeric that is never null.
#[must_use]
pub const fn sum_of(name: &'static str, expression: &'static str) -> ModelColumn {
    ModelColumn {
        source: Source::Sum(Sum::Sql(expression)),
        ..sum(name)
    }
}

/// The flag of a view with sums: the names of those that are null because 64 bits do not hold them.
#[must_use]
pub const fn too_large() -> ModelColumn {
    ModelColumn {
        name: "too_large",
        column_type: ColumnType::Text,
        null: Null::Possible,
        source: Source::TooLarge,
    }
}

/// A number computed by an expression that is never null.
#[must_use]
pub const fn computed(name: &'static str, expression: &'static str) -> ModelColumn {
    ModelColumn {
        name,
        column_type: ColumnType::Bigint,
        null: Null::Never,
        source: Source::Sql(expression),
    }
}
