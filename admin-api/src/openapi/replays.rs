//! Replays in the OpenAPI document.
//!
//! Deliberately absent: what other routes share with them (`openapi`).

use door::openapi::{Fragment, integer, nullable, object, parameter_ref, schema_ref, text};
use projector::{DENSITY_PARTS_MAX, STREAM_INDEX};
use serde_json::{Value, json};

use super::{TAG, actor_parameter, list, moment, ok, path, problems};
use crate::replays::CHANGE_WAIT;

/// The schema of a replay in examples.
const EXAMPLE: &str = "replay_stream_index";

/// The actions on a replay: each with its summary, its description and the schema of its body.
const ACTIONS: [(&str, &str, &str, &str); 4] = [
    (
        "play",
        "Let a replay go on",
        "It goes on until it is asked to pause, its condition becomes true, or everything is there. A \
         replay that plays already goes on at the new speed.",
        "PlayRequest",
    ),
    (
        "pause",
        "Let a replay stand still",
        "A replay that stands still and is not asked for anything ends after 15 minutes.",
        "EmptyRequest",
    ),
    (
        "step",
        "Take the next commit or event",
        "Only what concerns the projection counts. `step` then shows what was taken, and the rows \
         before and after.",
        "StepRequest",
    ),
    (
        "end",
        "End a replay",
        "Its schema stays, with the rows as they are.",
        "EmptyRequest",
    ),
];

/// Adds the routes and the schemas.
pub(super) fn describe(fragment: &mut Fragment) {
    let mut responses = problems(&[400], &[]);
    responses.insert("200".to_owned(), ok("The replays.", "Replays"));
    let all = json!({
        "operationId": "replays",
        "tags": [TAG],
        "summary": "The replays of this node",
        "description": "The newest first; ended ones stay for a while, until the node stops.",
        "parameters": [parameter_ref("CorrelationId")],
        "responses": responses,
    });
    fragment.operation("/v1/replays", "get", all);
    fragment.operation("/v1/replays", "post", begin_operation());
    fragment.operation("/v1/replays/{schema}", "get", one_operation());
    for (action, summary, description, body) in ACTIONS {
        let mut responses = problems(&[400, 408, 413, 415], &[404, 409]);
        let said = ok(
            "It was asked for; this is how the replay is doing.",
            "Replay",
        );
        responses.insert("202".to_owned(), said);
        let operation = json!({
            "operationId": format!("{action}_replay"),
            "tags": [TAG],
            "summary": summary,
            "description": description,
            "parameters": [
                path("schema", EXAMPLE, "The schema of the replay."),
                actor_parameter(),
                parameter_ref("CorrelationId"),
            ],
            "requestBody": {"required": true,
                "content": {"application/json": {"schema": schema_ref(body)}}},
            "responses": responses,
        });
        fragment.operation(
            &format!("/v1/replays/{{schema}}/{action}"),
            "post",
            operation,
        );
    }
    requests(fragment);
    let all = json!({"replays": list(schema_ref("Replay"), "The replays.")});
    fragment.schema("Replays", object("The replays of a node.", all));
    fragment.schema("Replay", replay_schema());
    fragment.schema("ReplayStep", step_schema());
    fragment.schema("ReplayEvent", event_schema());
}

fn begin_operation() -> Value {
    let mut responses = problems(&[400, 408, 413, 415], &[404, 409]);
    responses.insert(
        "202".to_owned(),
        ok("It begins; once it has, it is paused.", "Replay"),
    );
    json!({
        "operationId": "begin_replay",
        "tags": [TAG],
        "summary": "Begin a replay of a projection",
        "description": "Makes a schema of its own with the empty read models of the projection, or with \
            their rows as of `from_snapshot`. Nothing live changes.",
        "parameters": [actor_parameter(), parameter_ref("CorrelationId")],
        "requestBody": {"required": true,
            "content": {"application/json": {"schema": schema_ref("NewReplay")}}},
        "responses": responses,
    })
}

fn one_operation() -> Value {
    let mut responses = problems(&[400], &[404]);
    responses.insert("200".to_owned(), ok("The replay.", "Replay"));
    let after = format!(
        "Wait until the revision is above this, for at most {} seconds.",
        CHANGE_WAIT.as_secs()
    );
    json!({
        "operationId": "replay",
        "tags": [TAG],
        "summary": "How a replay is doing, and its last step",
        "description": "To follow it, ask again with its `revision` as `after`.",
        "parameters": [
            path("schema", EXAMPLE, "The schema of the replay."),
            {"name": "after", "in": "query", "description": after,
             "schema": {"type": "integer", "format": "int64", "minimum": 0}},
            parameter_ref("CorrelationId"),
        ],
        "responses": responses,
    })
}

fn request(about: &str, required: &[&str], properties: &Value, example: &Value) -> Value {
    json!({
        "type": "object",
        "description": about,
        "required": required,
        "properties": properties,
        "additionalProperties": false,
        "examples": [example],
    })
}

fn requests(fragment: &mut Fragment) {
    let begin = json!({
        "projection": text("The projection."),
        "until": nullable(&text("How far it goes by itself: a time, a position token, or a condition \
            such as `orders > 100`, at which it pauses. Absent: to the end of the log.")),
        "from_snapshot": nullable(&text("Begin with the rows as of this time, instead of with none.")),
        "schema": {"type": ["string", "null"], "pattern": "^[a-z_][a-z0-9_]{0,62}$",
            "description": "The schema; `replay_` and the name of the projection if absent."},
        "replace": {"type": ["boolean", "null"],
            "description": "Whether a schema that an earlier replay made is replaced."},
    });
    let example = json!({"projection": STREAM_INDEX, "replace": true});
    let begin = request("What is to be replayed.", &["projection"], &begin, &example);
    fragment.schema("NewReplay", begin);
    let speed = json!({"speed": {"type": ["number", "null"], "exclusiveMinimum": 0,
        "description": "How many times faster than it was recorded time passes; as fast as possible \
            if absent."}});
    let play = request("How to go on.", &[], &speed, &json!({"speed": 60}));
    fragment.schema("PlayRequest", play);
    let by = json!({"by": {"type": ["string", "null"], "enum": ["commit", "event", null],
        "description": "What is taken: `commit`, which is taken if it is absent, or `event`."}});
    let step = request("What to take.", &[], &by, &json!({"by": "event"}));
    fragment.schema("StepRequest", step);
    let empty = request("Nothing more is to be said.", &[], &json!({}), &json!({}));
    fragment.schema("EmptyRequest", empty);
}

fn replay_schema() -> Value {
    let stands = json!({
        "at": moment("When the commit was recorded."),
        "partition": integer(0, "Its partition."),
        "position": integer(1, "Its position there."),
    });
    let progress = json!({
        "records_read": integer(0, "How many records were read."),
        "records": integer(0, "How many there are to read at most."),
        "commits": integer(0, "How many commits were folded."),
    });
    let density = json!({
        "from": moment("When the first commit was recorded."),
        "to": moment("When the last one was recorded."),
        "commits": list(integer(0, "The commits of a part."), &format!(
            "How many commits were recorded in each of {DENSITY_PARTS_MAX} parts of equal time.")),
    });
    let aside = json!({"stream": text("The stream."), "reason": text("Why.")});
    object(
        "A replay.",
        json!({
            "schema": text("The schema that it fills."),
            "projection": text("The projection."),
            "until": nullable(&text("How far it goes by itself, as it was asked for.")),
            "until_at": nullable(&moment("The time up to which it goes, if it is a time.")),
            "from_snapshot": nullable(&moment("The time of the rows with which it began.")),
            "begun_at": moment("When it was asked for."),
            "by": text("By whom."),
            "state": text("`beginning`, `running`, `paused`, `finished`: everything is there; \
                `stopped`: it was ended before; `failed`: `error` says why."),
            "why": nullable(&text("Why it paused: `begun`, `stepped`, `condition`, `asked`. Why it \
                ended: `until`, `end` of the log, `asked`, `idle`, `shutdown`, `stuck`, `failed`.")),
            "error": nullable(&text("Why it failed.")),
            "speed": nullable(&json!({"type": "number", "exclusiveMinimum": 0,
                "description": "How fast it plays; null: as fast as possible, or not at all."})),
            "revision": integer(1, "Becomes greater with each change of what is shown."),
            "progress": object("How far it has come.", progress),
            "stands": nullable_object("The last commit that was folded.", stands),
            "says": nullable(&text("What stands in the schema, for people.")),
            "step": {"anyOf": [schema_ref("ReplayStep"), {"type": "null"}]},
            "set_aside": list(object("A stream of which nothing more is folded.", aside),
                "Some streams that were set aside."),
            "set_aside_streams": integer(0, "How many there are."),
            "density": nullable_object("How densely the commits lie that concern the projection.",
                density),
            "density_missing": nullable(&text("Why the density is not known.")),
        }),
    )
}

fn nullable_object(about: &str, properties: Value) -> Value {
    json!({"anyOf": [object(about, properties), {"type": "null"}]})
}

fn actor_schema() -> Value {
    let actor = json!({"id": text("The actor's name."), "kind": text("The kind of actor.")});
    nullable_object("Who asked, if the client said it.", actor)
}

fn step_schema() -> Value {
    let row = json!({
        "model": text("The read model."),
        "key": list(json!({"type": "string"}), "The columns of its key."),
        "before": {"type": ["object", "null"], "description": "The row before; null: none."},
        "after": {"type": ["object", "null"], "description": "The row after; null: none."},
        "is_hit": {"type": "boolean", "description": "Whether the condition became true for it."},
    });
    object(
        "What a replay took last, step by step or where its condition became true.",
        json!({
            "tenant": text("The tenant of the stream."),
            "stream": text("The stream."),
            "at": moment("When the commit was recorded."),
            "partition": integer(0, "Its partition."),
            "position": integer(1, "Its position there."),
            "offset": integer(0, "The log's own number of its record."),
            "command": text("The type of its command."),
            "command_id": text("The id of its command."),
            "correlation_id": text("The conversation."),
            "actor": actor_schema(),
            "refusal": nullable(&text("The code of the refusal, if the command was refused.")),
            "event": nullable(&integer(1, "Which event was taken, if it was one alone.")),
            "of": integer(0, "How many events the commit has."),
            "events": list(schema_ref("ReplayEvent"), "The events that were taken."),
            "rows": list(object("A row that changed.", row), "Some of the rows that changed."),
            "more": integer(0, "How many more rows changed."),
        }),
    )
}

fn event_schema() -> Value {
    object(
        "An event of a step, as the log has it.",
        json!({
            "id": text("The event's id."),
            "type": text("The name of its type."),
            "schema": integer(1, "The number of its data's shape."),
            "version": integer(1, "The stream's version with it."),
            "occurred_at": moment("When it happened."),
            "recorded_at": moment("When it was recorded."),
            "data": {"description": "Its data, as it was recorded."},
            "command_id": text("The id of its command."),
            "command": text("The type of its command."),
            "correlation_id": text("The conversation."),
            "causation_id": text("The direct cause of the command."),
            "actor": actor_schema(),
            "traceparent": nullable(&text("W3C Trace Context of the command, if there is one.")),
        }),
    )
}
