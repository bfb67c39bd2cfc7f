//! Views over the tables that a projection declares.
//!
//! Deliberately absent: their SQL (`sql`).

use crate::declare::column_type::ColumnType;
use crate::declare::projection::Projection;
use crate::declare::table::{
    Empty, Index, IndexColumn, IndexTenant, KeyColumn, KeyIs, Queries, RowsOf, Shown, SqlColumn,
    Table, ValueColumn, asc,
};

/// A view in the schema `read`: the shown part of the table with the same name.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name in SQL and in the query door.
    pub name: &'static str,
    /// A description for readers of the data.
    pub about: &'static str,
    /// The columns of its key after the tenant.
    pub key: &'static [KeyColumn],
    /// Which stream a key names.
    pub key_is: KeyIs,
    /// Which streams a row belongs to.
    pub rows: RowsOf,
    /// Its columns after the tenant, including those of its key.
    pub columns: Vec<ModelColumn>,
    /// Its columns that only SQL shows.
    pub sql_only: &'static [SqlColumn],
    /// `LEFT JOIN`s of `r` with the projection's other tables, whose names are in braces.
    pub joins: &'static str,
    /// Which rows are complete, as a condition; absent: all.
    pub filter: Option<&'static str>,
    /// Where it is shown.
    pub shown: Shown,
    /// What the query door may be asked of it.
    pub queries: Queries,
    /// The columns of each index of its table that begins with the tenant, without the tenant; the
    /// key's index is the first.
    pub indexes: Vec<Vec<IndexColumn>>,
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
    /// A description for readers of the data.
    pub about: &'static str,
}

/// Whether a column may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Null {
    /// Every row has a value.
    Never,
    /// Null until the event that gives the value has happened.
    Possible,
}

/// What a view's column is computed from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The table's column of the same name.
    Same,
    /// The table's column of the same name; 0 or false if that is null.
    OrZero,
    /// An SQL expression.
    Sql(&'static str),
    /// A sum; null if it does not fit in 64 bits.
    Sum(Sum),
    /// The names of the row's sums that do not fit in 64 bits; null if all fit.
    TooLarge,
}

/// What a view's sum is computed from.
#[derive(Clone, Copy, Debug)]
pub enum Sum {
    /// The table's column of the same name; 0 if that is null.
    Same,
    /// An SQL expression of the type numeric that is never null.
    Sql(&'static str),
}

/// A value computed by an SQL expression of exactly this type that is never null; otherwise use
/// [`nullable`](ModelColumn::nullable).
#[must_use]
pub const fn computed(
    name: &'static str,
    column_type: ColumnType,
    expression: &'static str,
    about: &'static str,
) -> ModelColumn {
    ModelColumn {
        name,
        column_type: column_type.checked(),
        null: Null::Never,
        source: Source::Sql(expression),
        about,
    }
}

/// A sum computed by an SQL expression of the type numeric that is never null.
#[must_use]
pub const fn sum_of(
    name: &'static str,
    expression: &'static str,
    about: &'static str,
) -> ModelColumn {
    ModelColumn {
        null: Null::Possible,
        source: Source::Sum(Sum::Sql(expression)),
        ..computed(name, ColumnType::Bigint, expression, about)
    }
}

impl ModelColumn {
    /// The same column, which may be null.
    #[must_use]
    pub const fn nullable(self) -> Self {
        Self {
            null: Null::Possible,
            ..self
        }
    }
}

/// Every view with sums has this column.
const TOO_LARGE: ModelColumn = ModelColumn {
    name: "too_large",
    column_type: ColumnType::Text,
    null: Null::Possible,
    source: Source::TooLarge,
    about: "The names of the row's sums that are null because 64 bits do not hold them.",
};

/// The views of a projection.
#[must_use]
pub fn models_of(projection: &dyn Projection) -> Vec<Model> {
    let tables = projection.tables().iter();
    let shown = tables.filter(|table| table.view.shown != Shown::Nowhere);
    shown.map(Model::of).collect()
}

impl Model {
    pub(crate) fn of(table: &Table) -> Self {
        let keys = table.key.iter().map(shown_key);
        let values = table.values.iter().map(shown_value);
        let computed = table.view.computed.iter().copied();
        let mut columns: Vec<ModelColumn> = keys.chain(values).chain(computed).collect();
        let is_sum = |column: &ModelColumn| matches!(column.source, Source::Sum(_));
        if columns.iter().any(is_sum) {
            columns.push(TOO_LARGE);
        }
        Self {
            name: table.name,
            about: table.about,
            key: table.key,
            key_is: table.key_is,
            rows: table.rows,
            columns,
            sql_only: table.view.sql_only,
            joins: table.view.joins,
            filter: table.view.filter,
            shown: table.view.shown,
            queries: table.view.queries,
            indexes: indexes_of(table),
        }
    }
}

fn indexes_of(table: &Table) -> Vec<Vec<IndexColumn>> {
    let key = table.key.iter().map(|key| asc(key.name)).collect();
    let of_tenant = |index: &&Index| index.tenant == IndexTenant::First;
    let others = table.indexes.iter().filter(of_tenant);
    let others = others.map(|index| index.columns.to_vec());
    std::iter::once(key).chain(others).collect()
}

fn shown_key(key: &KeyColumn) -> ModelColumn {
    ModelColumn {
        name: key.name,
        column_type: key.column_type,
        null: Null::Never,
        source: Source::Same,
        about: key.about,
    }
}

fn shown_value(value: &ValueColumn) -> ModelColumn {
    let (column_type, null, source) = match (value.empty, value.column_type) {
        (Empty::Never, kept) => (kept, Null::Never, Source::Same),
        (Empty::Null, kept) => (kept, Null::Possible, Source::Same),
        (Empty::Zero, ColumnType::Numeric) => {
            (ColumnType::Bigint, Null::Possible, Source::Sum(Sum::Same))
        }
        (Empty::Zero, kept) => (kept, Null::Never, Source::OrZero),
    };
    ModelColumn {
        name: value.name,
        column_type,
        null,
        source,
        about: value.about,
    }
}
