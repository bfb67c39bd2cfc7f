//! `rejections`: every recorded refusal, whatever the aggregate.
//!
//! Invariant: the key holds the position, so that the same command, refused again after its id was
//! forgotten, is another row. Deliberately absent: the refused data.

use crate::{
    Changes, ColumnType, Entry, Model, ProjectError, Projection, Shown, Table, Value, column,
    count_of, key, set,
};

const REFUSALS: Table = Table {
    name: "rejections",
    key: &[
        key("stream", ColumnType::Text),
        key("position", ColumnType::Bigint),
    ],
    values: &[
        set("command_id", ColumnType::Text),
        set("command", ColumnType::Text),
        set("code", ColumnType::Text),
        set("detail", ColumnType::Text),
        set("occurred_at", ColumnType::Timestamptz),
        set("recorded_at", ColumnType::Timestamptz),
        set("partition", ColumnType::Bigint),
    ],
};

const MODELS: &[Model] = &[Model {
    name: "rejections",
    about: "Refused commands, each with the code of the rule that it broke.",
    table: "rejections",
    joins: "",
    filter: None,
    columns: &[
        column("command_id", ColumnType::Text),
        column("stream", ColumnType::Text),
        column("command", ColumnType::Text),
        column("code", ColumnType::Text),
        column("detail", ColumnType::Text),
        column("occurred_at", ColumnType::Timestamptz),
        column("recorded_at", ColumnType::Timestamptz),
        column("partition", ColumnType::Bigint),
        column("position", ColumnType::Bigint),
    ],
    shown: Shown::Everywhere,
}];

/// The rule of `rejections`.
#[derive(Clone, Copy, Debug)]
pub struct Rejections;

impl Projection for Rejections {
    fn name(&self) -> &'static str {
        "rejections"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[REFUSALS]
    }

    fn models(&self) -> &'static [Model] {
        MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        let commit = entry.commit();
        let Some(rejection) = &commit.rejection else {
            return Ok(());
        };
        let position = count_of(entry.position().0);
        let key = [Value::from(commit.stream.as_str()), Value::from(position)];
        changes
            .row(&REFUSALS, key)
            .put("command_id", commit.command.id.as_str())
            .put("command", commit.command.type_name.as_str())
            .put("code", rejection.code.as_str())
            .put("detail", rejection.detail.as_str())
            .put("occurred_at", commit.asked_at())
            .put("recorded_at", commit.recorded_at)
            .put("partition", entry.partition().0);
        Ok(())
    }
}
