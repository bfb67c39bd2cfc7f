//! `rejections`: every recorded refusal, whatever the aggregate.
//!
//! Invariant: the key contains the position. If a command is refused again after its id was
//! forgotten, this makes a second row. Deliberately absent: the refused data.

use crate::{
    Changes, ColumnType, Entry, KeyIs, ProjectError, Projection, Table, Value, asc, count_of,
    index, key, set,
};

const REFUSALS: Table = Table {
    name: "rejections",
    about: "Refused commands, each with the code of the rule that it broke.",
    key: &[
        key(
            "stream",
            ColumnType::Text,
            "The stream that the command was for.",
        ),
        key(
            "position",
            ColumnType::Bigint,
            "The refusal's number among the accepted records of the partition.",
        ),
    ],
    values: &[
        set(
            "command_id",
            ColumnType::Text,
            "The client's name for the intent.",
        ),
        set("command", ColumnType::Text, "The type of the command."),
        set(
            "code",
            ColumnType::Text,
            "The stable code of the broken rule.",
        )
        .shortened(),
        set(
            "detail",
            ColumnType::Text,
            "What the rule says, for people.",
        ),
        set(
            "occurred_at",
            ColumnType::Timestamptz,
            "The business time of the command.",
        ),
        set(
            "recorded_at",
            ColumnType::Timestamptz,
            "When the refusal was recorded.",
        ),
        set(
            "partition",
            ColumnType::Bigint,
            "The partition of the log that holds it.",
        ),
    ],
    indexes: &[
        index(&[asc("code"), asc("recorded_at")]),
        index(&[asc("recorded_at")]),
    ],
    key_is: KeyIs::StreamName,
    ..Table::PLAIN
};

/// The rule of `rejections`.
#[derive(Clone, Copy, Debug)]
pub struct Rejections;

impl Projection for Rejections {
    fn name(&self) -> &'static str {
        "rejections"
    }

    fn version(&self) -> u32 {
        3
    }

    fn tables(&self) -> &'static [Table] {
        &[REFUSALS]
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
