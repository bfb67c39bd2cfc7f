//! Descriptions of tables, views and columns, as the database keeps them (`COMMENT ON`).
//!
//! Deliberately absent: when they are stored, and which of them users changed (`generation`,
//! `kept`).

use crate::declare::model::Model;
use crate::declare::table::{Merge, OWNER_COLUMN, RowsOf, Table};
use crate::store::history;
use crate::store::sql::{
    AS_OF_SCHEMA, HISTORY_SCHEMA, VIEW_SCHEMA, identifier, qualified_table, view_in,
};

/// The description of a table, or of one of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// The column; absent: the whole table or view.
    pub(crate) column: Option<String>,
    pub(crate) text: String,
}

impl Comment {
    fn of(column: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            column: Some(column.into()),
            text: text.into(),
        }
    }

    /// The statement that stores the description of a view in the database.
    pub(crate) fn on_view(&self, schema: &str, view: &str) -> String {
        self.on("VIEW", &view_in(schema, view))
    }

    fn on(&self, kind: &str, name: &str) -> String {
        let text = literal(&self.text);
        match &self.column {
            None => format!("COMMENT ON {kind} {name} IS {text}"),
            Some(column) => {
                let column = identifier(column);
                format!("COMMENT ON COLUMN {name}.{column} IS {text}")
            }
        }
    }
}

/// The columns of a view of versions behind those of the read model.
const VERSION_COLUMNS: [(&str, &str); 6] = [
    ("version_from", "From when on the row was so."),
    (
        "version_until",
        "Until when, which does not belong to it; null: it is so now.",
    ),
    (
        "version_partition",
        "The partition of the commit that made it so.",
    ),
    (
        "version_position",
        "The position of that commit in its partition.",
    ),
    (
        "version_ended_partition",
        "The partition of the commit that ended it.",
    ),
    (
        "version_ended_position",
        "The position of that commit in its partition.",
    ),
];

/// What the tenant means, in each table and view.
const TENANT_ABOUT: &str = "For whom the row is kept.";

/// The descriptions of a view and its columns.
pub(crate) fn comments(model: &Model, schema: &str) -> Vec<Comment> {
    let view = Comment {
        column: None,
        text: model.about.to_owned(),
    };
    let columns = model.columns.iter().map(|c| Comment::of(c.name, c.about));
    let sql_only = model.sql_only.iter();
    let sql_only = sql_only.map(|column| Comment::of(column.name, column.about));
    let tenant = Comment::of("tenant", TENANT_ABOUT);
    let first = [view, tenant].into_iter();
    let versions: &[(&str, &str)] = match schema {
        HISTORY_SCHEMA => &VERSION_COLUMNS,
        _ => &[],
    };
    let versions = versions
        .iter()
        .map(|(name, text)| Comment::of(*name, *text));
    first
        .chain(columns)
        .chain(sql_only)
        .chain(versions)
        .collect()
}

/// The statements that store descriptions of a table and its columns in the database.
pub(crate) fn describe_table(table: &Table, physical_name: &str) -> String {
    let about = format!(
        "{} This table is replaced by each rebuild: query the views in the schema {VIEW_SCHEMA}.",
        table.about
    );
    statements(columns(table, about), physical_name)
}

/// The same for the table with the versions of its rows.
pub(crate) fn describe_versions(table: &Table, physical_name: &str) -> String {
    let about = format!(
        "What the commits of each partition made of the rows of {}. This table is replaced by each \
         rebuild: query the views in the schemas {AS_OF_SCHEMA} and {HISTORY_SCHEMA}.",
        table.name
    );
    let mut comments = columns(table, about);
    let own = [
        (history::PARTITION, "The partition whose commits made it."),
        (history::AT, "From when on it is seen."),
        (
            history::POSITION,
            "The position of the commit that left it.",
        ),
        (
            history::FIRST,
            "Whether it is the first one of its partition.",
        ),
    ];
    comments.extend(own.map(|(column, text)| Comment::of(column, text)));
    if table.rows == RowsOf::OneStream {
        comments.push(Comment::of(history::GONE, "Whether the row went away."));
    }
    statements(comments, physical_name)
}

fn statements(comments: Vec<Comment>, physical_name: &str) -> String {
    let table = qualified_table(physical_name);
    let statements = comments.iter().map(|comment| comment.on("TABLE", &table));
    statements.collect::<Vec<_>>().join(";\n")
}

/// The descriptions of a table, which is about something, and of its columns.
fn columns(table: &Table, about: String) -> Vec<Comment> {
    let about = Comment {
        column: None,
        text: about,
    };
    let mut comments = vec![about, Comment::of("tenant", TENANT_ABOUT)];
    comments.extend(table.key.iter().map(|key| Comment::of(key.name, key.about)));
    if table.rows == RowsOf::OneStream {
        comments.push(Comment::of(
            OWNER_COLUMN,
            "The stream that the row belongs to.",
        ));
    }
    for value in table.values {
        comments.push(Comment::of(value.name, value.about));
        if let Merge::Latest { .. } = value.merge {
            let of = |suffix: &str, what: &str| {
                let text = format!("{what} of the contribution that {} is from.", value.name);
                Comment::of(format!("{}{suffix}", value.name), text)
            };
            comments.push(of("_by", "The rank"));
            comments.push(of("_partition", "The partition"));
            comments.push(of("_position", "The position in its partition"));
        }
    }
    comments
}

/// A text of this program as an SQL literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::column_type::ColumnType;
    use crate::declare::table::{key, latest};

    const TABLE: Table = Table {
        name: "sample",
        about: "What isn't shown.",
        key: &[key("day", ColumnType::Date, "The day.")],
        values: &[latest(
            "state",
            ColumnType::Text,
            ColumnType::Timestamptz,
            "How it is.",
        )],
        ..Table::PLAIN
    };

    #[test]
    fn each_column_is_described_with_the_words_of_its_declaration() {
        let view = comments(&Model::of(&TABLE), VIEW_SCHEMA);
        let view: Vec<String> = view
            .iter()
            .map(|comment| comment.on_view(VIEW_SCHEMA, "sample"))
            .collect();
        let wanted = [
            r#"COMMENT ON VIEW read."sample" IS 'What isn''t shown.'"#,
            r#"COMMENT ON COLUMN read."sample"."tenant" IS 'For whom the row is kept.'"#,
            r#"COMMENT ON COLUMN read."sample"."day" IS 'The day.'"#,
            r#"COMMENT ON COLUMN read."sample"."state" IS 'How it is.'"#,
        ];
        assert_eq!(view, wanted);
        let table = describe_table(&TABLE, "sample_v1_g2");
        let by = r#"COMMENT ON COLUMN projection."sample_v1_g2"."state_by" IS 'The rank "#;
        assert!(table.contains(by), "{table}");
        assert_eq!(table.matches("COMMENT ON COLUMN").count(), 6, "{table}");
    }
}
