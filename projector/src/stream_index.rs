//! `stream_index`: every stream, and where in the log its events stand.
//!
//! Invariant: `stream_commits` has a row for each commit that holds events, with its offset and its
//! record's hash, so that reading a stream costs no scan and what is read again is recognised.
//! Deliberately absent: the events themselves; the log alone holds them. Refusals and commits
//! without events are counted in the times of a stream, and have no row among its commits.

use crate::{
    Changes, ColumnType, Entry, Model, ProjectError, Projection, Shown, Table, Value, column,
    count, count_of, key, max, min, set, tally,
};

/// The name of the projection that streams are read with.
pub const STREAM_INDEX: &str = "stream_index";

const STREAMS: Table = Table {
    name: "stream_index",
    key: &[key("stream", ColumnType::Text)],
    values: &[
        set("category", ColumnType::Text),
        set("version", ColumnType::Bigint),
        tally("events"),
        min("first_recorded_at", ColumnType::Timestamptz),
        max("last_recorded_at", ColumnType::Timestamptz),
        set("partition", ColumnType::Bigint),
        min("first_position", ColumnType::Bigint),
        max("last_position", ColumnType::Bigint),
    ],
};

const COMMITS: Table = Table {
    name: "stream_commits",
    key: &[
        key("stream", ColumnType::Text),
        // The stream's version behind the commit.
        key("version", ColumnType::Bigint),
    ],
    values: &[
        set("from_version", ColumnType::Bigint),
        set("partition", ColumnType::Bigint),
        set("position", ColumnType::Bigint),
        set("offset", ColumnType::Bigint),
        set("record_hash", ColumnType::Bytea),
    ],
};

const MODELS: &[Model] = &[
    Model {
        name: "stream_index",
        about: "Streams with their versions, times and places in the log.",
        table: "stream_index",
        joins: "",
        filter: None,
        columns: &[
            column("stream", ColumnType::Text),
            column("category", ColumnType::Text),
            column("version", ColumnType::Bigint),
            count("events"),
            column("first_recorded_at", ColumnType::Timestamptz),
            column("last_recorded_at", ColumnType::Timestamptz),
            column("partition", ColumnType::Bigint),
            column("first_position", ColumnType::Bigint),
            column("last_position", ColumnType::Bigint),
        ],
        shown: Shown::Everywhere,
    },
    Model {
        name: "stream_commits",
        about: "Commits that hold events, with their places and hashes.",
        table: "stream_commits",
        joins: "",
        filter: None,
        columns: &[
            column("stream", ColumnType::Text),
            column("version", ColumnType::Bigint),
            column("from_version", ColumnType::Bigint),
            column("partition", ColumnType::Bigint),
            column("position", ColumnType::Bigint),
            column("offset", ColumnType::Bigint),
            column("record_hash", ColumnType::Bytea),
        ],
        shown: Shown::InSqlOnly,
    },
];

/// The rule of `stream_index`.
#[derive(Clone, Copy, Debug)]
pub struct StreamIndex;

impl Projection for StreamIndex {
    fn name(&self) -> &'static str {
        STREAM_INDEX
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[STREAMS, COMMITS]
    }

    fn models(&self) -> &'static [Model] {
        MODELS
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        let commit = entry.commit();
        let stream = || Value::from(commit.stream.as_str());
        let events = count_of(commit.events.len());
        let version = count_of(commit.version());
        let position = count_of(entry.position().0);
        let partition = entry.partition().0;
        changes
            .row(&STREAMS, [stream()])
            .put("category", entry.category())
            .put("version", version)
            .put("events", events)
            .put("first_recorded_at", commit.recorded_at)
            .put("last_recorded_at", commit.recorded_at)
            .put("partition", partition)
            .put("first_position", position)
            .put("last_position", position);
        if events > 0 {
            changes
                .row(&COMMITS, [stream(), Value::from(version)])
                .put("from_version", count_of(commit.from_version))
                .put("partition", partition)
                .put("position", position)
                .put("offset", count_of(entry.offset().0))
                .put("record_hash", entry.record_hash().0);
        }
        Ok(())
    }
}
