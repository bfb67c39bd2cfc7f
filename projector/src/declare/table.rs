//! How a read model's tables are declared: keys, columns with a merge rule and a description, and
//! what is shown of them.
//!
//! Invariant: the tenant is the first column of every key; the runtime adds it, so that no
//! declaration can forget it. What a type cannot do is refused when the constant is compiled.
//! Deliberately absent: the views over these tables (`model`), SQL (`sql`) and rows (`changes`).

use crate::declare::column_type::ColumnType;
use crate::declare::model::ModelColumn;

/// How contributions to one column of one row become its value. All rules except `Set` commute, so
/// that the order of partitions does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The last contribution counts; for columns that only one stream writes, in its order.
    Set,
    /// The sum.
    Add,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The contribution with the greatest by-value counts; among equal by-values the last one by
    /// partition and position. The by-value is stored beside the value.
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
    /// A description for readers of the data.
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
    /// What the view shows if nothing was contributed.
    pub empty: Empty,
    /// How long its texts may be.
    pub texts: Texts,
    /// A description for readers of the data.
    pub about: &'static str,
}

/// How long the texts of a column may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texts {
    /// As long as they are.
    Whole,
    /// The end of a long text is replaced by the text's digest, as in a key, so that it fits into an
    /// index.
    Shortened,
}

/// What a view shows of a column to which nothing was contributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// Does not happen: every row of the view has a value.
    Never,
    /// Null.
    Null,
    /// 0, or false.
    Zero,
}

/// A table of a projection.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name, unique among all projections; its view has the same name.
    pub name: &'static str,
    /// A description for readers of the data.
    pub about: &'static str,
    /// The columns of its key after the tenant.
    pub key: &'static [KeyColumn],
    /// Its other columns.
    pub values: &'static [ValueColumn],
    /// What is shown of it.
    pub view: View,
    /// Which streams a row belongs to.
    pub rows: RowsOf,
    /// How the key tells whose row it is. The query door refuses to show the row of a stream that is
    /// parked, also if there is none yet.
    pub key_is: KeyIs,
    /// Indexes beside that of the key.
    pub indexes: &'static [Index],
}

impl Table {
    /// What most tables have beside their name, description and columns: the whole table is shown,
    /// any stream contributes to its rows, and it has no further indexes.
    pub const PLAIN: Self = Self {
        name: "",
        about: "",
        key: &[],
        values: &[],
        view: View::WHOLE,
        rows: RowsOf::AnyStream,
        key_is: KeyIs::NoStream,
        indexes: &[],
    };
}

/// Which streams a row of a table belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsOf {
    /// Any stream contributes to any row. Rows never go away.
    AnyStream,
    /// A row belongs to the stream that first contributed to it, and goes away when that stream
    /// removes it. If another stream contributes to it or removes it, the projection stops.
    OneStream,
}

/// Which stream a key names: the one whose own row it is, also if other streams contribute to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyIs {
    /// None.
    NoStream,
    /// The stream of this category whose id is the first column.
    StreamId(&'static str),
    /// The stream whose name is the first column.
    StreamName,
}

/// The column in which Postgres keeps the stream that a row belongs to.
pub const OWNER_COLUMN: &str = "of_stream";

/// An index of a table beside that of its key. Its first column is the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its columns, in order.
    pub columns: &'static [IndexColumn],
    /// Whether the tenant comes first.
    pub tenant: IndexTenant,
}

/// Whether an index begins with the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexTenant {
    /// It does: for queries of one tenant, as those of the query door.
    First,
    /// It does not: for queries in SQL over all tenants.
    Absent,
}

/// A column of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexColumn {
    /// The column of the key, or another one.
    pub name: &'static str,
    /// Its order.
    pub order: IndexOrder,
}

/// The order of a column in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexOrder {
    /// The least value first, and null last.
    Ascending,
    /// Null first, then the greatest value.
    Descending,
}

/// An index over the tenant and these columns.
#[must_use]
pub const fn index(columns: &'static [IndexColumn]) -> Index {
    Index {
        columns,
        tenant: IndexTenant::First,
    }
}

impl Index {
    /// The same index without the tenant: for queries over all tenants.
    #[must_use]
    pub const fn over_all_tenants(self) -> Self {
        Self {
            tenant: IndexTenant::Absent,
            ..self
        }
    }
}

/// A column of an index, the least value first.
#[must_use]
pub const fn asc(name: &'static str) -> IndexColumn {
    IndexColumn {
        name,
        order: IndexOrder::Ascending,
    }
}

/// A column of an index, the greatest value first.
#[must_use]
pub const fn desc(name: &'static str) -> IndexColumn {
    IndexColumn {
        name,
        order: IndexOrder::Descending,
    }
}

impl Table {
    /// Whether each of its rows belongs to one stream, as columns of the rule `Set` demand. Then
    /// what is wrong with a row is a matter of that stream alone.
    pub(crate) fn is_of_streams(&self) -> bool {
        self.values.iter().any(|value| value.merge == Merge::Set)
    }
}

/// What is shown of a table: by default all of its columns, and one row for each of its rows.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Where it is shown.
    pub shown: Shown,
    /// Which rows are complete, as a condition on the table's row `r`; absent: all.
    pub filter: Option<&'static str>,
    /// `LEFT JOIN`s of `r` with the projection's other tables, whose names are in braces.
    pub joins: &'static str,
    /// Columns that the view computes in addition to the table's own.
    pub computed: &'static [ModelColumn],
    /// Columns that only SQL shows.
    pub sql_only: &'static [SqlColumn],
    /// What the query door may be asked of it.
    pub queries: Queries,
}

/// A column of a view that only SQL shows: its type may be any that Postgres has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlColumn {
    /// Its name.
    pub name: &'static str,
    /// An SQL expression over the table's row `r` and what is joined.
    pub expression: &'static str,
    /// A description for readers of the data.
    pub about: &'static str,
}

/// Which filters and orders the query door offers for a view.
///
/// A declaration names no column here: what can be asked follows from the key and the indexes, so
/// that no request reads all of a large table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queries {
    /// Those that the key or an index of the table serves.
    Indexed,
    /// Every column. The view has few rows, as sums by day have: each query may read all of them.
    FewRows,
}

impl View {
    /// The whole table, in SQL and in the query door.
    pub const WHOLE: Self = Self {
        shown: Shown::Everywhere,
        filter: None,
        joins: "",
        computed: &[],
        sql_only: &[],
        queries: Queries::Indexed,
    };
    /// The whole table, which has few rows: the query door filters and orders it by every column.
    pub const FEW_ROWS: Self = Self {
        queries: Queries::FewRows,
        ..Self::WHOLE
    };
    /// The whole table, only in SQL: it is for internal use.
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
    /// Only in SQL.
    InSqlOnly,
    /// Nowhere: there is no view.
    Nowhere,
}

/// A column of a key.
#[must_use]
pub const fn key(name: &'static str, column_type: ColumnType, about: &'static str) -> KeyColumn {
    assert!(
        column_type.may_be_key(),
        "a key has texts, integers, booleans, UUIDs, moments, days and bytes only"
    );
    KeyColumn {
        name,
        column_type,
        about,
    }
}

/// A column that only one stream writes. Every row of the view must have a value in it; otherwise
/// use [`nullable`](ValueColumn::nullable).
#[must_use]
pub const fn set(name: &'static str, column_type: ColumnType, about: &'static str) -> ValueColumn {
    ValueColumn {
        name,
        column_type: column_type.checked(),
        merge: Merge::Set,
        empty: Empty::Never,
        texts: Texts::Whole,
        about,
    }
}

/// A sum of amounts that clients choose; it cannot overflow. If it does not fit in 64 bits, the
/// view shows null and names it in its column `too_large`.
#[must_use]
pub const fn add(name: &'static str, about: &'static str) -> ValueColumn {
    ValueColumn {
        merge: Merge::Add,
        empty: Empty::Zero,
        ..set(name, ColumnType::Numeric, about)
    }
}

/// A sum of small numbers, such as a count. Each contribution is within ±[`TALLIED_MAX`], so that
/// the sum of all records of a log fits in 64 bits.
#[must_use]
pub const fn tally(name: &'static str, about: &'static str) -> ValueColumn {
    ValueColumn {
        merge: Merge::Add,
        empty: Empty::Zero,
        ..set(name, ColumnType::Bigint, about)
    }
}

/// The most that one contribution adds to a [`tally`]: 2^31 such contributions fill 64 bits.
pub const TALLIED_MAX: u64 = 1 << 32;

/// An exact sum of decimal numbers with `scale` digits after the point; it cannot overflow.
#[must_use]
pub const fn add_decimal(name: &'static str, scale: u8, about: &'static str) -> ValueColumn {
    ValueColumn {
        merge: Merge::Add,
        empty: Empty::Zero,
        ..set(name, ColumnType::Decimal { scale }, about)
    }
}

/// The least value contributed.
#[must_use]
pub const fn min(name: &'static str, column_type: ColumnType, about: &'static str) -> ValueColumn {
    assert!(column_type.is_ordered(), "jsonb has no least value");
    ValueColumn {
        merge: Merge::Min,
        ..set(name, column_type, about)
    }
}

/// The greatest value contributed.
#[must_use]
pub const fn max(name: &'static str, column_type: ColumnType, about: &'static str) -> ValueColumn {
    assert!(column_type.is_ordered(), "jsonb has no greatest value");
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
    assert!(by.is_ordered(), "jsonb has no greatest by-value");
    ValueColumn {
        merge: Merge::Latest { by },
        ..set(name, column_type, about)
    }
}

impl ValueColumn {
    /// The same column, shown as null if nothing was contributed.
    #[must_use]
    pub const fn nullable(self) -> Self {
        Self {
            empty: Empty::Null,
            ..self
        }
    }

    /// The same column, shown as 0 if nothing was contributed.
    #[must_use]
    pub const fn or_zero(self) -> Self {
        let is_number =
            self.column_type.may_be_summed() || matches!(self.column_type, ColumnType::Double);
        assert!(is_number, "only numbers can be shown as 0");
        Self {
            empty: Empty::Zero,
            ..self
        }
    }

    /// The same column of texts, of which long ones are shortened as in a key: an index needs it.
    #[must_use]
    pub const fn shortened(self) -> Self {
        let is_text = matches!(self.column_type, ColumnType::Text);
        assert!(is_text, "only texts can be shortened");
        Self {
            texts: Texts::Shortened,
            ..self
        }
    }

    /// The same column, shown as false if nothing was contributed.
    #[must_use]
    pub const fn or_false(self) -> Self {
        let is_boolean = matches!(self.column_type, ColumnType::Boolean);
        assert!(is_boolean, "only booleans can be shown as false");
        Self {
            empty: Empty::Zero,
            ..self
        }
    }
}
