//! What can be wrong with declarations, found before anything runs: all faults at once, each with its
//! table and column.
//!
//! Invariant: declarations without a fault make SQL that Postgres accepts, but for the pieces that are
//! SQL themselves: conditions, joins and computed columns. Postgres judges these (`store::trial`).
//! Deliberately absent: I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::declare::column_type::{ColumnType, DECIMAL_SCALE_MAX};
use crate::declare::model::Model;
use crate::declare::projection::Projection;
use crate::declare::table::{
    Empty, Index, IndexTenant, KeyColumn, KeyIs, Merge, OWNER_COLUMN, RowsOf, Shown, Table, Texts,
    ValueColumn,
};
use crate::declare::value::KEY_TEXT_BYTES_MAX;
use crate::store::history;

/// The most bytes of a table's name: with version and generation it must fit into an identifier.
const TABLE_NAME_BYTES_MAX: usize = 40;
/// The most bytes of a column's name: the companions of a `latest` column have longer ones.
const COLUMN_NAME_BYTES_MAX: usize = 53;
/// The most bytes of an entry in an index, and of a tenant in it.
const INDEX_ENTRY_BYTES_MAX: usize = 2_700;
const TENANT_BYTES_MAX: usize = 64;

/// What is wrong with one declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclarationFault {
    /// The projection.
    pub projection: &'static str,
    /// The table; absent: the projection itself.
    pub table: Option<&'static str>,
    /// The column; absent: the table itself.
    pub column: Option<&'static str>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for DeclarationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projection {}", self.projection)?;
        if let Some(table) = self.table {
            write!(f, ", table {table}")?;
        }
        if let Some(column) = self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// All that is wrong with the declarations of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclarationFaults(pub Vec<DeclarationFault>);

impl fmt::Display for DeclarationFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the read models are declared wrongly:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for DeclarationFaults {}

/// Checks the declarations of all projections of a program.
///
/// # Errors
/// Every fault that can be found without Postgres.
pub fn check_declarations(projections: &[Arc<dyn Projection>]) -> Result<(), DeclarationFaults> {
    let mut faults = Vec::new();
    let mut names: BTreeMap<&str, ()> = BTreeMap::new();
    let mut tables: BTreeMap<&str, &str> = BTreeMap::new();
    for projection in projections {
        let mut found = Found {
            projection: projection.name(),
            faults: &mut faults,
        };
        if !is_name(projection.name()) {
            found.add(None, None, "its name may have a-z, 0-9 and _ only");
        }
        if names.insert(projection.name(), ()).is_some() {
            found.add(None, None, "another projection has the same name");
        }
        let is_number = (1..=i32::MAX.unsigned_abs()).contains(&projection.version());
        if !is_number {
            found.add(None, None, "its version must be a number from 1 on");
        }
        check_own_sql(&mut found, &**projection);
        for table in projection.tables() {
            if let Some(other) = tables.insert(table.name, projection.name()) {
                let reason = format!("the projection {other} has a table of the same name");
                found.add(Some(table.name), None, reason);
            }
            check_table(&mut found, table, projection.tables());
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(DeclarationFaults(faults))
    }
}

/// A projection with SQL of its own writes its own tables, or those of others.
fn check_own_sql(found: &mut Found<'_>, projection: &dyn Projection) {
    let Some(own) = projection.own_sql() else {
        return;
    };
    match (own.reset(), projection.tables()) {
        (None, []) => found.add(
            None,
            None,
            "it declares no tables: a rebuild of tables that others made needs `reset`",
        ),
        (Some(_), [_, ..]) => found.add(
            None,
            None,
            "it has tables of its own and `reset`, which is for tables that others made: make two \
             projections of it",
        ),
        (Some(_), []) if !own.prepare().is_empty() => found.add(
            None,
            None,
            "it has `prepare`, which is for tables of its own: whoever made the tables that it fills \
             prepares them",
        ),
        (None, [_, ..]) | (Some(_), []) => {}
    }
}

/// Where faults of one projection are noted.
struct Found<'a> {
    projection: &'static str,
    faults: &'a mut Vec<DeclarationFault>,
}

impl Found<'_> {
    fn add(
        &mut self,
        table: Option<&'static str>,
        column: Option<&'static str>,
        reason: impl Into<String>,
    ) {
        self.faults.push(DeclarationFault {
            projection: self.projection,
            table,
            column,
            reason: reason.into(),
        });
    }
}

fn is_name(name: &str) -> bool {
    let is_in_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !name.is_empty() && name.bytes().all(is_in_name)
}

fn check_table(found: &mut Found<'_>, table: &'static Table, all: &[Table]) {
    let of_table = Some(table.name);
    if !is_name(table.name) {
        found.add(of_table, None, "its name may have a-z, 0-9 and _ only");
    }
    if table.name.len() > TABLE_NAME_BYTES_MAX {
        let reason = format!("its name has more than {TABLE_NAME_BYTES_MAX} bytes");
        found.add(of_table, None, reason);
    }
    if table.about.trim().is_empty() {
        found.add(of_table, None, "it has no description");
    }
    if table.key.is_empty() {
        found.add(of_table, None, "it has no key");
    }
    for key in table.key {
        if !key.column_type.may_be_key() {
            let reason = format!("a key cannot have the type {}", key.column_type.sql());
            found.add(of_table, Some(key.name), reason);
        }
    }
    let key_bytes = table.key.iter().map(|key| bytes_of(key.column_type));
    if TENANT_BYTES_MAX + key_bytes.sum::<usize>() > INDEX_ENTRY_BYTES_MAX {
        found.add(of_table, None, "its key has too many texts for an index");
    }
    let is_text = |key: &KeyColumn| key.column_type == ColumnType::Text;
    if table.key_is != KeyIs::NoStream && !table.key.first().is_some_and(is_text) {
        let reason = "its key names a stream, so its first column must be a text";
        found.add(of_table, None, reason);
    }
    for value in table.values {
        if let Some(reason) = wrong_rule(value) {
            found.add(of_table, Some(value.name), reason);
        }
    }
    check_names(found, table);
    check_view(found, table, all);
    for (number, index) in table.indexes.iter().enumerate() {
        if table.indexes[..number].contains(index) {
            found.add(of_table, None, "it has the same index twice");
        }
        check_index(found, table, index);
    }
}

/// Why a column's type cannot do what its declaration says.
fn wrong_rule(value: &ValueColumn) -> Option<String> {
    let named = |rule: &str, column_type: ColumnType| {
        Some(format!("{rule} cannot have the type {}", column_type.sql()))
    };
    let column_type = value.column_type;
    match value.merge {
        Merge::Add if !column_type.may_be_summed() => return named("a sum", column_type),
        Merge::Min if !column_type.is_ordered() => return named("a least value", column_type),
        Merge::Max if !column_type.is_ordered() => return named("a greatest value", column_type),
        Merge::Latest { by } if !by.is_ordered() => return named("a by-value", by),
        Merge::Latest {
            by: ColumnType::Numeric,
        } => {
            return Some("numeric is for sums; use Decimal".to_owned());
        }
        Merge::Set | Merge::Add | Merge::Min | Merge::Max | Merge::Latest { .. } => {}
    }
    if column_type == ColumnType::Numeric && value.merge != Merge::Add {
        return Some("numeric is for sums; use Decimal".to_owned());
    }
    if let ColumnType::Decimal { scale } = column_type
        && scale > DECIMAL_SCALE_MAX
    {
        return Some(format!(
            "it has more than {DECIMAL_SCALE_MAX} digits after the point"
        ));
    }
    if value.empty == Empty::Zero && column_type.zero().is_none() {
        return Some(format!(
            "there is no zero of the type {}",
            column_type.sql()
        ));
    }
    let is_shortened = value.texts == Texts::Shortened;
    (is_shortened && column_type != ColumnType::Text).then(|| "only texts can be shortened".into())
}

/// All columns have names of their own, and descriptions.
fn check_names(found: &mut Found<'_>, table: &'static Table) {
    let of_table = Some(table.name);
    let keys = table.key.iter().map(|key| (key.name, key.about));
    let values = table.values.iter().map(|value| (value.name, value.about));
    let computed = table.view.computed.iter();
    let computed = computed.map(|column| (column.name, column.about));
    let sql_only = table.view.sql_only.iter();
    let computed = computed.chain(sql_only.map(|column| (column.name, column.about)));
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    taken.insert("tenant".to_owned(), "the tenant has this name");
    if table.rows == RowsOf::OneStream {
        let reason = "the stream that a row belongs to has this name";
        taken.insert(OWNER_COLUMN.to_owned(), reason);
    }
    let is_sum = |column: &crate::ModelColumn| matches!(column.source, crate::Source::Sum(_));
    if Model::of(table).columns.iter().any(is_sum) {
        let reason = "the names of sums that are too large stand in a column of this name";
        taken.insert("too_large".to_owned(), reason);
    }
    for value in table.values {
        if let Merge::Latest { .. } = value.merge {
            for suffix in ["_by", "_partition", "_position"] {
                let name = format!("{}{suffix}", value.name);
                taken.insert(name, "what a latest column keeps of its own has this name");
            }
        }
    }
    for (name, about) in keys.chain(values).chain(computed) {
        if !is_name(name) {
            found.add(
                of_table,
                Some(name),
                "its name may have a-z, 0-9 and _ only",
            );
        }
        if name.len() > COLUMN_NAME_BYTES_MAX {
            let reason = format!("its name has more than {COLUMN_NAME_BYTES_MAX} bytes");
            found.add(of_table, Some(name), reason);
        }
        if about.trim().is_empty() {
            found.add(of_table, Some(name), "it has no description");
        }
        if name.starts_with(history::TAKEN) {
            let reason = "columns of the versions of rows have such names";
            found.add(of_table, Some(name), reason);
        }
        let again = "the table has another column of this name";
        if let Some(reason) = taken.insert(name.to_owned(), again) {
            found.add(of_table, Some(name), reason);
        }
    }
}

fn check_view(found: &mut Found<'_>, table: &'static Table, all: &[Table]) {
    let (of_table, view) = (Some(table.name), &table.view);
    let has_columns = !view.computed.is_empty() || !view.sql_only.is_empty();
    let has_more = view.filter.is_some() || !view.joins.is_empty() || has_columns;
    if view.shown == Shown::Nowhere && has_more {
        found.add(of_table, None, "it has no view, and the declaration of one");
    }
    for column in view.computed {
        if column.column_type == ColumnType::Numeric {
            let reason = "a view cannot show numeric; use Decimal, Bigint or sum_of";
            found.add(of_table, Some(column.name), reason);
        }
    }
    let mut rest = view.joins;
    while let Some((_, behind)) = rest.split_once('{') {
        let Some((name, behind)) = behind.split_once('}') else {
            found.add(of_table, None, "its joins have a brace that is not closed");
            return;
        };
        if !all.iter().any(|other| other.name == name) {
            let reason = format!("its joins name {name}, which is no table of the projection");
            found.add(of_table, None, reason);
        }
        rest = behind;
    }
}

fn check_index(found: &mut Found<'_>, table: &'static Table, index: &'static Index) {
    let of_table = Some(table.name);
    if index.columns.is_empty() {
        found.add(of_table, None, "one of its indexes has no columns");
    }
    let mut bytes = match index.tenant {
        IndexTenant::First => TENANT_BYTES_MAX,
        IndexTenant::Absent => 0,
    };
    for (number, column) in index.columns.iter().enumerate() {
        let is_same = |other: &crate::IndexColumn| other.name == column.name;
        if index.columns[..number].iter().any(is_same) {
            found.add(of_table, Some(column.name), "it stands twice in one index");
        }
        let mut keys = table.key.iter();
        let mut values = table.values.iter();
        let key = keys.find(|key| key.name == column.name);
        let value = values.find(|value| value.name == column.name);
        let (column_type, is_short) = match (key, value) {
            (Some(key), _) => (key.column_type, true),
            (None, Some(value)) => (value.column_type, value.texts == Texts::Shortened),
            (None, None) => {
                found.add(
                    of_table,
                    Some(column.name),
                    "an index names it, and it does not exist",
                );
                continue;
            }
        };
        if matches!(column_type, ColumnType::Jsonb | ColumnType::TextArray) {
            let reason = format!("an index cannot have the type {}", column_type.sql());
            found.add(of_table, Some(column.name), reason);
        } else if column_type == ColumnType::Text && !is_short {
            let reason = "long texts do not fit into an index: declare it as shortened()";
            found.add(of_table, Some(column.name), reason);
        }
        bytes += bytes_of(column_type);
    }
    if bytes > INDEX_ENTRY_BYTES_MAX {
        found.add(of_table, None, "one of its indexes has too many texts");
    }
}

/// The most bytes that a value takes in an index.
fn bytes_of(column_type: ColumnType) -> usize {
    match column_type {
        ColumnType::Text => KEY_TEXT_BYTES_MAX,
        ColumnType::Bytea => 33,
        ColumnType::Numeric | ColumnType::Decimal { .. } => 48,
        ColumnType::Bigint
        | ColumnType::Double
        | ColumnType::Boolean
        | ColumnType::Uuid
        | ColumnType::Timestamptz
        | ColumnType::Date
        | ColumnType::Jsonb
        | ColumnType::TextArray => 16,
    }
}

#[cfg(test)]
mod tests;
