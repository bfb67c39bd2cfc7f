//! `commit_index`: every accepted commit, refusals included, with its place in the log and what it
//! can be found by.
//!
//! Invariant: one row for each commit, which never changes, with its offset and its record's hash. So
//! a search reads the commits that it finds and no others, and can check that their records are
//! unchanged. The places of one value lie side by side in an index, in the order of the log.
//! Deliberately absent: the content of events; no event is decoded, so nothing can be parked.

use crate::{
    Changes, ColumnType, Entry, History, OnError, ProjectError, Projection, Table, Value, View,
    asc, count_of, index, key, max, set,
};

/// The projection by which commits are found.
pub const COMMIT_INDEX: &str = "commit_index";

const PARTITION: &str = "The partition of the log that holds it.";
const POSITION: &str = "Its number among the accepted records of the partition.";

const COMMITS: Table = Table {
    name: COMMIT_INDEX,
    about: "Every accepted commit, refusals included, with its place in the log and what it can be \
            found by.",
    key: &[
        key("partition", ColumnType::Bigint, PARTITION),
        key("position", ColumnType::Bigint, POSITION),
    ],
    values: &[
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
        max(
            "recorded_at",
            ColumnType::Timestamptz,
            "When it was recorded, or the latest such time before it in its partition: it never falls \
             from one position to the next.",
        ),
        set(
            "stream",
            ColumnType::Text,
            "The stream: its category, a dash and its id.",
        )
        .shortened(),
        set("category", ColumnType::Text, "The stream's category.").shortened(),
        set(
            "from_version",
            ColumnType::Bigint,
            "The stream's version before the commit.",
        ),
        set(
            "version",
            ColumnType::Bigint,
            "The stream's version behind the commit.",
        ),
        set(
            "outcome",
            ColumnType::Text,
            "`accepted` or `refused`: what became of the command.",
        ),
        set(
            "code",
            ColumnType::Text,
            "The stable code of the rule that a refused command broke.",
        )
        .nullable(),
        set(
            "command_id",
            ColumnType::Text,
            "The client's name for the intent.",
        )
        .shortened(),
        set("command", ColumnType::Text, "The type of the command."),
        set(
            "actor_kind",
            ColumnType::Text,
            "The kind of actor that asked; null if the client did not say.",
        )
        .nullable(),
        set(
            "actor_id",
            ColumnType::Text,
            "The actor's name within its kind.",
        )
        .shortened()
        .nullable(),
        set(
            "correlation_id",
            ColumnType::Text,
            "The conversation; the command's id if the client named none.",
        )
        .shortened(),
        set(
            "causation_id",
            ColumnType::Text,
            "The direct cause; the command's id if the client named none.",
        ),
        set(
            "event_types",
            ColumnType::TextArray,
            "The types of its events, in their order.",
        ),
    ],
    view: View::IN_SQL_ONLY,
    indexes: &[
        index(&[asc("stream"), asc("partition"), asc("position")]),
        index(&[asc("category"), asc("partition"), asc("position")]),
        index(&[asc("actor_id"), asc("partition"), asc("position")]),
        index(&[asc("correlation_id"), asc("partition"), asc("position")]),
        index(&[asc("command_id"), asc("partition"), asc("position")]),
        // A time is a position in each partition, whatever the tenant, and is found by bisection.
        index(&[asc("partition"), asc("position")]).over_all_tenants(),
    ],
    ..Table::PLAIN
};

const TYPES: Table = Table {
    name: "commit_types",
    about: "Which types of event each commit holds.",
    key: &[
        key(
            "event_type",
            ColumnType::Text,
            "The frozen name of the event's type.",
        ),
        key("partition", ColumnType::Bigint, PARTITION),
        key("position", ColumnType::Bigint, POSITION),
    ],
    values: &[
        set(
            "category",
            ColumnType::Text,
            "The category of the commit's stream.",
        ),
        set(
            "events",
            ColumnType::Bigint,
            "How many events of this type the commit holds.",
        ),
    ],
    view: View::IN_SQL_ONLY,
    ..Table::PLAIN
};

/// The rule of `commit_index`.
#[derive(Clone, Copy, Debug)]
pub struct CommitIndex;

impl Projection for CommitIndex {
    fn name(&self) -> &'static str {
        COMMIT_INDEX
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[COMMITS, TYPES]
    }

    /// A gap in it would look like a gap in the log.
    fn on_error(&self) -> OnError {
        OnError::Stop
    }

    /// A row never changes: its place and time tell what there was at a moment.
    fn history(&self) -> History {
        History::Off
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        let commit = entry.commit();
        let (partition, position) = (entry.partition().0, count_of(entry.position().0));
        let place = [Value::from(partition), Value::from(position)];
        let types: Vec<&str> = commit.events.iter().map(|e| e.type_name.as_str()).collect();
        let (outcome, code) = match &commit.rejection {
            None => ("accepted", None),
            Some(rejection) => ("refused", Some(rejection.code.as_str())),
        };
        let actor = commit.actor.as_ref();
        changes
            .row(&COMMITS, place.clone())
            .put("offset", count_of(entry.offset().0))
            .put("record_hash", entry.record_hash().0)
            .put("recorded_at", entry.latest_recorded_at())
            .put("stream", commit.stream.as_str())
            .put("category", entry.category())
            .put("from_version", count_of(commit.from_version))
            .put("version", count_of(commit.version()))
            .put("outcome", outcome)
            .put_if("code", code)
            .put("command_id", commit.command.id.as_str())
            .put("command", commit.command.type_name.as_str())
            .put_if("actor_kind", actor.map(|actor| actor.kind.as_str()))
            .put_if("actor_id", actor.map(|actor| actor.id.as_str()))
            .put("correlation_id", commit.correlation_id())
            .put("causation_id", commit.causation_id())
            .put("event_types", &types[..]);
        let mut counted = types.clone();
        counted.sort_unstable();
        for same in counted.chunk_by(|one, other| one == other) {
            let [partition, position] = place.clone();
            changes
                .row(&TYPES, [Value::from(same[0]), partition, position])
                .put("category", entry.category())
                .put("events", count_of(same.len()));
        }
        Ok(())
    }
}
