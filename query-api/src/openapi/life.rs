//! What the document says of a stream's life: its summary, its state at a moment, and differences.
//!
//! Deliberately absent: the forms of events and states (`streams`).

use door::openapi::{Fragment, integer, nullable, object, parameter_ref, schema_ref, text};
use kernel::registry::Registry;
use serde_json::{Value, json};

use super::streams::moment;
use super::{common_parameters, known_parameter, ok, position_schema, problems, tag};
use crate::parameters::VERSION_MAX;
use crate::streams::{CHANGES_MAX, DIFF_EVENTS_MAX};

/// Adds the routes.
pub(super) fn describe(fragment: &mut Fragment, registry: &Registry) {
    fragment.operation("/v1/streams/{stream}", "get", summary_operation());
    fragment.operation(
        "/v1/streams/{stream}/state",
        "get",
        state_operation(registry),
    );
    fragment.operation("/v1/streams/{stream}/diff", "get", diff_operation(registry));
    fragment.schema("StreamSummary", summary_schema());
    fragment.schema("StreamDiff", diff_schema());
    fragment.schema("StreamChange", change_schema());
    fragment.schema(
        "StreamStanding",
        object("A moment of a stream.", standing()),
    );
    fragment.schema(
        "EventAuthor",
        object("An event with its envelope, without its data.", author()),
    );
}

fn version_parameter(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description,
           "schema": {"type": "integer", "format": "int64", "minimum": 0,
                      "maximum": VERSION_MAX}})
}

fn time_parameter(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description,
           "schema": {"type": "string", "format": "date-time"}})
}

/// Which of an event's two times is meant.
fn which_time_parameter(of: &str) -> Value {
    let about = format!(
        "Which time {of} means: when events were recorded, or when they happened (business time)."
    );
    json!({"name": "time", "in": "query", "description": about,
           "schema": {"type": "string", "enum": ["recorded", "occurred"],
                      "default": "recorded"}})
}

fn summary_operation() -> Value {
    let mut parameters = vec![parameter_ref("Stream"), known_parameter()];
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 503]);
    let found = ok("The stream.", schema_ref("StreamSummary"));
    responses.insert("200".to_owned(), found);
    let about = "Stands for the answer, apart from `position`.";
    tag(&mut responses, about, "^W/\"[0-9a-f]{24}\"$");
    json!({
        "operationId": "stream",
        "tags": ["streams"],
        "summary": "What a stream is",
        "description": "Its version, times and place, its last event, and where the rest is.",
        "parameters": parameters,
        "responses": responses,
    })
}

fn state_operation(registry: &Registry) -> Value {
    let mut parameters = vec![
        parameter_ref("Stream"),
        version_parameter(
            "at_version",
            "The state after this many events; 0 is the empty state. If it is absent, and \
             `at_time`, too, the state after the last event.",
        ),
        time_parameter(
            "at_time",
            "The state at this time. By recorded time, the first event that was recorded later \
             ends it; before the first event, it is the empty state.",
        ),
        which_time_parameter("`at_time`"),
        known_parameter(),
    ];
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 422, 503]);
    let found = ok(
        "The state at the moment that was asked for.",
        schema_ref("StreamState"),
    );
    responses.insert("200".to_owned(), found);
    let about = "The stream's version, and what stands for its state, apart from `position`; also for \
                 `If-Match` of a command. Weak, and without the version, if the state is \
                 hypothetical.";
    let pattern = "^(\"[0-9]+-[0-9a-f]{24}(-gzip)?\"|W/\"[0-9a-f]{24}\")$";
    tag(&mut responses, about, pattern);
    json!({
        "operationId": "stream_state",
        "tags": ["streams"],
        "summary": "The state that a stream's events fold to, at any moment",
        "description": format!(
            "For streams of these categories: {}. An answer folds for a bounded time: a long stream \
             is folded over several requests (503 `fold_unfinished`).",
            registry.categories()
        ),
        "parameters": parameters,
        "responses": responses,
    })
}

fn diff_operation(registry: &Registry) -> Value {
    let mut parameters = vec![
        parameter_ref("Stream"),
        version_parameter(
            "from",
            "The earlier version; if it is absent, and `from_time`, too, the one before `to`.",
        ),
        version_parameter(
            "to",
            "The later version; if it is absent, and `to_time`, too, the stream's last one.",
        ),
        time_parameter("from_time", "The earlier moment, by time."),
        time_parameter("to_time", "The later moment, by time."),
        which_time_parameter("`from_time` or `to_time`"),
        known_parameter(),
    ];
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 422, 503]);
    let found = ok("The fields that differ.", schema_ref("StreamDiff"));
    responses.insert("200".to_owned(), found);
    let about = "Stands for the answer, apart from `position`.";
    tag(&mut responses, about, "^W/\"[0-9a-f]{24}\"$");
    json!({
        "operationId": "stream_diff",
        "tags": ["streams"],
        "summary": "What differs between two states of a stream, field by field",
        "description": format!(
            "For streams of these categories: {}. At most {DIFF_EVENTS_MAX} events may lie between \
             the two (422 `range_too_long`).",
            registry.categories()
        ),
        "parameters": parameters,
        "responses": responses,
    })
}

/// The members of every answer that stands on a moment.
pub(super) fn standing() -> Value {
    json!({
        "version": integer(0, "The version of the last event that counts; 0 is the empty state."),
        "commit": nullable(&json!({
            "type": "string", "format": "uuid",
            "description": "The id of that event's commit; null for version 0."})),
        "recorded_at": nullable(&moment("When that commit was recorded; null for version 0.")),
        "hypothetical": {"type": "boolean", "description":
            "Whether the stream never was in this state: by business time, events are left out \
             although they come earlier in the stream."},
        "skipped": integer(0, "How many events up to `version` are left out."),
        "provisional": {"type": "boolean", "description":
            "Whether records that are still to come may change the answer: the moment is by time, \
             and it is not known to be over."},
    })
}

fn summary_schema() -> Value {
    object(
        "A stream.",
        json!({
            "stream": text("The stream."),
            "category": text("Its category."),
            "known": {"type": "boolean",
                      "description": "Whether this program has rules for the category."},
            "version": integer(0, "How many events it has, as far as the index has read the log."),
            "partition": integer(0, "The partition of the log that holds it."),
            "first_recorded_at": moment("When its first commit was recorded, refusals included."),
            "last_recorded_at": moment("When its last commit was recorded, refusals included."),
            "refused": {"type": "boolean",
                        "description": "Whether commands for it were refused; the read model \
                                        `rejections` has them."},
            "last_event": nullable(&schema_ref("RecordedEvent")),
            "links": object("Where the rest is.", json!({
                "events": text("Its events."),
                "state": nullable(&text("Its state; null if the category is not known.")),
                "diff": nullable(&text("What its last event changed; null if the category is not \
                                        known.")),
            })),
            "position": nullable(&position_schema()),
        }),
    )
}

fn diff_schema() -> Value {
    object(
        "What differs between two states of a stream.",
        json!({
            "stream": text("The stream."),
            "category": text("Its category."),
            "from": schema_ref("StreamStanding"),
            "to": schema_ref("StreamStanding"),
            "changes": {"type": "array", "items": schema_ref("StreamChange"),
                        "maxItems": CHANGES_MAX,
                        "description": "The fields that differ. Applied in this order to the earlier \
                                        state, they give the later one."},
            "complete": {"type": "boolean",
                         "description": "Whether these are all; otherwise there are more."},
            "position": nullable(&position_schema()),
        }),
    )
}

fn change_schema() -> Value {
    object(
        "A field that differs.",
        json!({
            "path": text("Where it is in the state: a JSON pointer (RFC 6901). Elements of arrays \
                          are named by their index."),
            "kind": {"type": "string", "enum": ["added", "removed", "changed"],
                     "description": "What happened to it."},
            "before": {"description": "Its value before; null if it was added."},
            "after": {"description": "Its value after; null if it was removed."},
            "by": nullable(&schema_ref("EventAuthor")),
        }),
    )
}

fn author() -> Value {
    json!({
        "version": integer(1, "The stream's version with the event."),
        "id": {"type": "string", "format": "uuid", "description": "The event's id."},
        "type": text("The name of its type."),
        "occurred_at": moment("Business time."),
        "recorded_at": moment("When the engine recorded it."),
        "command_id": text("The id of the command that caused it."),
        "command": text("The name of that command's type."),
        "correlation_id": text("The conversation."),
        "causation_id": text("The direct cause of the command."),
        "actor": nullable(&schema_ref("Actor")),
        "traceparent": nullable(&text("W3C Trace Context of the command.")),
    })
}
