//! `stream_index`: every stream, and the places of its events in the log.
//!
//! Invariant: `stream_commits` has a row for each commit that holds events, with its offset and its
//! record's hash. So reading a stream needs no scan, and a reader can check that the record is
//! unchanged. Its `recorded_at` never falls within a partition, so a moment cuts a stream where it cuts
//! every other one of the partition. Deliberately absent: the events themselves; only the log holds
//! them. Refusals and
//! commits without events count for a stream's times, but have no row in `stream_commits`.

use crate::{
    Changes, ColumnType, Entry, History, KeyIs, OnError, ProjectError, Projection, Table, Value,
    View, count_of, key, max, min, set, tally,
};

/// The projection that says where a stream's commits are.
pub const STREAM_INDEX: &str = "stream_index";

const STREAMS: Table = Table {
    name: "stream_index",
    about: "Streams with their versions, times and places in the log.",
    key: &[key(
        "stream",
        ColumnType::Text,
        "The stream: its category, a dash and its id.",
    )],
    values: &[
        set("category", ColumnType::Text, "The stream's category."),
        set(
            "version",
            ColumnType::Bigint,
            "How many events the stream has.",
        ),
        tally("events", "The same, counted."),
        min(
            "first_recorded_at",
            ColumnType::Timestamptz,
            "When its first commit was recorded, refusals included.",
        ),
        max(
            "last_recorded_at",
            ColumnType::Timestamptz,
            "When its last commit was recorded, refusals included.",
        ),
        set(
            "partition",
            ColumnType::Bigint,
            "The partition of the log that holds it.",
        ),
        min(
            "first_position",
            ColumnType::Bigint,
            "The position of its first commit in the partition.",
        ),
        max(
            "last_position",
            ColumnType::Bigint,
            "The position of its last commit in the partition.",
        ),
    ],
    key_is: KeyIs::StreamName,
    ..Table::PLAIN
};

const COMMITS: Table = Table {
    name: "stream_commits",
    about: "Commits that hold events, with their places and hashes.",
    key: &[
        key(
            "stream",
            ColumnType::Text,
            "The stream: its category, a dash and its id.",
        ),
        key(
            "version",
            ColumnType::Bigint,
            "The stream's version behind the commit.",
        ),
    ],
    values: &[
        set(
            "from_version",
            ColumnType::Bigint,
            "The stream's version before the commit.",
        ),
        set(
            "partition",
            ColumnType::Bigint,
            "The partition of the log that holds it.",
        ),
        set(
            "position",
            ColumnType::Bigint,
            "Its number among the accepted records of the partition.",
        ),
        set(
            "offset",
            ColumnType::Bigint,
            "The log's own number of its record.",
        ),
        set(
            "record_hash",
            ColumnType::Bytea,
            "The SHA-256 hash of its record.",
        ),
        set(
            "recorded_at",
            ColumnType::Timestamptz,
            "When it was recorded, or the latest such time before it in its partition.",
        ),
    ],
    view: View::IN_SQL_ONLY,
    ..Table::PLAIN
};

/// The rule of `stream_index`.
#[derive(Clone, Copy, Debug)]
pub struct StreamIndex;

impl Projection for StreamIndex {
    fn name(&self) -> &'static str {
        STREAM_INDEX
    }

    fn version(&self) -> u32 {
        2
    }

    fn tables(&self) -> &'static [Table] {
        &[STREAMS, COMMITS]
    }

    /// A gap in it would look like a gap in the log (`run::versions`).
    fn on_error(&self) -> OnError {
        OnError::Stop
    }

    /// What was recorded up to a moment is told by its times and places themselves.
    fn history(&self) -> History {
        History::Off
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
                .put("record_hash", entry.record_hash().0)
                .put("recorded_at", entry.latest_recorded_at());
        }
        Ok(())
    }
}
