//! What a generation was made from, as stored with it, and how this program's declarations differ.
//!
//! Invariant: all that decides what is in tables and views is compared; descriptions and indexes are
//! not, since they change without a rebuild. Deliberately absent: what follows from a difference
//! (`generation`).

use serde::{Deserialize, Serialize};

use crate::declare::column_type::ColumnType;
use crate::declare::history::History;
use crate::declare::model::Model;
use crate::declare::projection::Projection;
use crate::declare::table::{Merge, RowsOf, Shown, Table, Texts};
use crate::store::sql::create_view;

/// The declarations of a projection, as stored in Postgres.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Declaration {
    tables: Vec<TableDeclaration>,
    /// What it does with SQL of its own beside writing rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    own_sql: Option<OwnSqlDeclaration>,
    /// How much of its past is kept; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    history: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OwnSqlDeclaration {
    prepare: String,
    reset: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct TableDeclaration {
    name: String,
    key: Vec<Column>,
    columns: Vec<Column>,
    /// Whose its rows are.
    rows: String,
    /// The SQL of its view; absent: it has none.
    view: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    column_type: String,
    /// How contributions become its value; absent in a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

impl Declaration {
    pub(crate) fn of(projection: &dyn Projection) -> Self {
        Self {
            tables: projection.tables().iter().map(table).collect(),
            own_sql: projection.own_sql().map(|own| OwnSqlDeclaration {
                prepare: own.prepare().to_owned(),
                reset: own.reset().map(str::to_owned),
            }),
            history: match projection.history() {
                History::Full => None,
                history => Some(history.name().to_owned()),
            },
        }
    }

    /// The declarations as text.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("names and texts have a JSON form")
    }

    /// How `new` differs from the declarations that `stored` holds; absent if it does not.
    pub(crate) fn difference(stored: &str, new: &Self) -> Option<String> {
        let Ok(old) = serde_json::from_str::<Self>(stored) else {
            return Some(
                "another program declared it, in a form that is not known here".to_owned(),
            );
        };
        if old == *new {
            return None;
        }
        let mut found = Vec::new();
        pairs(
            &old.tables,
            &new.tables,
            |table| &table.name,
            |name, old, new| match (old, new) {
                (Some(old), Some(new)) => old.compare(new, &mut found),
                (Some(_), None) => found.push(format!("the table {name} is gone")),
                (None, _) => found.push(format!("the table {name} is new")),
            },
        );
        match (&old.own_sql, &new.own_sql) {
            (old, new) if old == new => {}
            (Some(_), Some(_)) => found.push("its own SQL changed".to_owned()),
            (None, _) => found.push("it has SQL of its own now".to_owned()),
            (Some(_), None) => found.push("it has no SQL of its own any more".to_owned()),
        }
        if old.history != new.history {
            let name = |history: &Option<String>| match history {
                None => History::Full.name().to_owned(),
                Some(name) => name.clone(),
            };
            let (old, new) = (name(&old.history), name(&new.history));
            found.push(format!("its history was {old:?} and is {new:?}"));
        }
        if found.is_empty() {
            found.push("its tables are in another order".to_owned());
        }
        Some(found.join("; "))
    }
}

impl TableDeclaration {
    fn compare(&self, new: &Self, found: &mut Vec<String>) {
        let table = &self.name;
        let count = found.len();
        if self.key != new.key {
            let (old, new) = (shown(&self.key), shown(&new.key));
            found.push(format!("the key of {table} was ({old}) and is ({new})"));
        }
        pairs(
            &self.columns,
            &new.columns,
            |column| &column.name,
            |name, old, new| match (old, new) {
                (Some(old), Some(new)) if old == new => {}
                (Some(old), Some(new)) => {
                    let (old, new) = (old.shown(), new.shown());
                    found.push(format!(
                        "the column {name} of {table} was {old} and is {new}"
                    ));
                }
                (Some(_), None) => found.push(format!("the column {name} of {table} is gone")),
                (None, Some(new)) => {
                    found.push(format!(
                        "the column {name} of {table} is new: {}",
                        new.shown()
                    ));
                }
                (None, None) => {}
            },
        );
        if self.rows != new.rows {
            let (old, new) = (&self.rows, &new.rows);
            found.push(format!(
                "the rows of {table} belonged to {old} and belong to {new}"
            ));
        }
        if self.columns != new.columns && found.len() == count {
            found.push(format!("the columns of {table} are in another order"));
        }
        // A view's text follows from its columns, too.
        if self.view != new.view && found.len() == count {
            found.push(match (&self.view, &new.view) {
                (Some(old), Some(new)) => {
                    let (old, new) = first_difference(old, new);
                    format!("the view of {table} had {old:?} and has {new:?}")
                }
                (None, _) => format!("the view of {table} is new"),
                (Some(_), None) => format!("the view of {table} is gone"),
            });
        }
    }
}

impl Column {
    fn shown(&self) -> String {
        match &self.rule {
            None => self.column_type.clone(),
            Some(rule) => format!("{} ({rule})", self.column_type),
        }
    }
}

fn shown(columns: &[Column]) -> String {
    let of = |column: &Column| format!("{} {}", column.name, column.shown());
    columns.iter().map(of).collect::<Vec<_>>().join(", ")
}

/// The first lines in which two texts differ.
fn first_difference<'a>(old: &'a str, new: &'a str) -> (&'a str, &'a str) {
    let (mut old, mut new) = (old.lines(), new.lines());
    loop {
        match (old.next(), new.next()) {
            (Some(old), Some(new)) if old == new => {}
            (old, new) => {
                return (
                    old.unwrap_or_default().trim(),
                    new.unwrap_or_default().trim(),
                );
            }
        }
    }
}

/// Calls `each` for every name in `old` or `new`, with what both have under it.
fn pairs<'a, T>(
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&'a T) -> &'a str,
    mut each: impl FnMut(&str, Option<&'a T>, Option<&'a T>),
) {
    for one in old {
        let other = new.iter().find(|other| name(other) == name(one));
        each(name(one), Some(one), other);
    }
    for one in new {
        if !old.iter().any(|other| name(other) == name(one)) {
            each(name(one), None, Some(one));
        }
    }
}

fn table(table: &Table) -> TableDeclaration {
    let key = table.key.iter().map(|key| Column {
        name: key.name.to_owned(),
        column_type: type_name(key.column_type),
        rule: None,
    });
    let columns = table.values.iter().map(|value| Column {
        name: value.name.to_owned(),
        column_type: type_name(value.column_type),
        rule: Some(rule_name(value.merge, value.texts)),
    });
    let plain = |name: &str| name.to_owned();
    let is_shown = table.view.shown != Shown::Nowhere;
    TableDeclaration {
        name: table.name.to_owned(),
        key: key.collect(),
        columns: columns.collect(),
        rows: match table.rows {
            RowsOf::AnyStream => "any stream".to_owned(),
            RowsOf::OneStream => "one stream each".to_owned(),
        },
        view: is_shown.then(|| create_view(&Model::of(table), &plain)),
    }
}

fn type_name(column_type: ColumnType) -> String {
    match column_type {
        ColumnType::Decimal { scale } => format!("numeric with {scale} digits"),
        plain => plain.sql().to_owned(),
    }
}

fn rule_name(merge: Merge, texts: Texts) -> String {
    let rule = match merge {
        Merge::Set => "set".to_owned(),
        Merge::Add => "add".to_owned(),
        Merge::Min => "min".to_owned(),
        Merge::Max => "max".to_owned(),
        Merge::Latest { by } => format!("latest by {}", type_name(by)),
    };
    match texts {
        Texts::Whole => rule,
        Texts::Shortened => format!("{rule}, shortened"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::rules::Rules;
    use crate::declare::table::{View, add, asc, index, key, latest, max, set};

    const KEY: &[crate::KeyColumn] = &[key("id", ColumnType::Text, "An id.")];
    const OLD: Table = Table {
        name: "sample",
        about: "A sample.",
        key: KEY,
        values: &[
            set("kept", ColumnType::Text, "Kept."),
            set("gone", ColumnType::Text, "Gone."),
            set("other", ColumnType::Bigint, "Another type."),
            max("rule", ColumnType::Bigint, "Another rule."),
        ],
        ..Table::PLAIN
    };

    fn difference(old: &'static [Table], new: &'static [Table]) -> Option<String> {
        let of = |tables| Declaration::of(&Rules::new("sample", 1, tables));
        Declaration::difference(&of(old).to_text(), &of(new))
    }

    #[test]
    fn every_difference_is_named() {
        const NEW: Table = Table {
            key: &[key("id", ColumnType::Bigint, "An id.")],
            values: &[
                set("kept", ColumnType::Text, "Described otherwise."),
                set("other", ColumnType::Decimal { scale: 2 }, "Another type."),
                latest(
                    "rule",
                    ColumnType::Bigint,
                    ColumnType::Date,
                    "Another rule.",
                ),
                add("new", "New."),
            ],
            rows: RowsOf::OneStream,
            ..OLD
        };
        const MORE: Table = Table {
            name: "more",
            ..OLD
        };
        let found = difference(&[OLD, MORE], &[NEW]).unwrap();
        let expected = "the key of sample was (id text) and is (id bigint); \
            the column gone of sample is gone; \
            the column other of sample was bigint (set) and is numeric with 2 digits (set); \
            the column rule of sample was bigint (max) and is bigint (latest by date); \
            the column new of sample is new: numeric (add); \
            the rows of sample belonged to any stream and belong to one stream each; \
            the table more is gone";
        assert_eq!(found, expected);
    }

    #[test]
    fn descriptions_and_indexes_are_no_difference_and_a_views_condition_is() {
        const SAME: Table = Table {
            about: "Described otherwise.",
            indexes: &[index(&[asc("other")])],
            ..OLD
        };
        const FILTERED: Table = Table {
            view: View {
                filter: Some("r.other > 0"),
                ..View::WHOLE
            },
            ..OLD
        };
        assert_eq!(difference(&[OLD], &[SAME]), None);
        let found = difference(&[OLD], &[FILTERED]).unwrap();
        assert_eq!(
            found,
            r#"the view of sample had "" and has "WHERE r.other > 0""#
        );
        let new = Declaration::of(&Rules::new("sample", 1, &[OLD]));
        assert!(Declaration::difference("CREATE TABLE", &new).is_some());
    }
}
