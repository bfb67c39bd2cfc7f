//! What the document says of stories.
//!
//! Deliberately absent: streams (`streams`, `life`).

use door::openapi::{Fragment, integer, nullable, object, schema_ref, text};
use serde_json::{Value, json};

use super::streams::moment;
use super::{common_parameters, known_parameter, ok, position_schema, problems, tag};
use crate::story::{COMMITS_MAX, EVENTS_MAX, EVENTS_SHOWN_MAX};

/// Adds the route.
pub(super) fn describe(fragment: &mut Fragment) {
    fragment.tag(
        "stories",
        "What belongs to one conversation, and what caused what.",
    );
    fragment.operation("/v1/stories/{correlation}", "get", operation());
    fragment.schema("Story", story_schema());
    fragment.schema("StoryCommit", commit_schema());
    fragment.schema("StoryEvent", event_schema());
}

fn operation() -> Value {
    let mut parameters = vec![
        json!({"name": "correlation", "in": "path", "required": true,
               "description": "The correlation id. A command without one begins a conversation whose \
                               id is its own.",
               "schema": {"type": "string", "pattern": r"^[!#-\[\]-~]{1,255}$"}}),
        known_parameter(),
    ];
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 503]);
    responses.insert(
        "200".to_owned(),
        ok("The conversation.", schema_ref("Story")),
    );
    let about = "Stands for the answer, apart from `position`.";
    tag(&mut responses, about, "^W/\"[0-9a-f]{24}\"$");
    json!({
        "operationId": "story",
        "tags": ["stories"],
        "summary": "A conversation as a tree",
        "description": format!(
            "The commits with one correlation id, refusals included, each after what caused it. At \
             most the earliest {COMMITS_MAX} commits; of more than {EVENTS_MAX} events, only the \
             first ones of each commit are looked at, so that causes may not be found. `complete` \
             says whether this is all."
        ),
        "parameters": parameters,
        "responses": responses,
    })
}

fn story_schema() -> Value {
    object(
        "A conversation.",
        json!({
            "correlation_id": text("The correlation id."),
            "commits": {"type": "array", "items": schema_ref("StoryCommit"),
                        "maxItems": COMMITS_MAX,
                        "description": "The commits in the order of the tree: each before those that \
                                        it caused."},
            "streams": integer(1, "How many streams they belong to."),
            "refused": integer(0, "How many of them are refusals."),
            "began_at": moment("When the first of them was recorded."),
            "ended_at": moment("When the last of them was recorded."),
            "complete": {"type": "boolean",
                         "description": "Whether these are all, with all of their causes."},
            "position": nullable(&position_schema()),
        }),
    )
}

fn commit_schema() -> Value {
    object(
        "What one command left, in its place in the tree.",
        json!({
            "commit": {"type": "string", "format": "uuid", "description": "The commit's id."},
            "depth": integer(0, "How many commits stand above it."),
            "cause": {"type": "string",
                      "enum": ["none", "command", "event", "outside", "circle"],
                      "description": "What caused it: nothing that it names, a command or an event of \
                                      the conversation, something outside of it, or one of several \
                                      that name each other."},
            "parent": nullable(&json!({"type": "string", "format": "uuid",
                "description": "The commit below which it stands."})),
            "parent_event": nullable(&json!({"type": "string", "format": "uuid",
                "description": "The event of that commit that caused it, if an event did."})),
            "after_ms": nullable(&json!({"type": "integer", "format": "int64",
                "description": "How long after that commit it was recorded, in milliseconds; below \
                                zero where the clocks of two nodes differ."})),
            "stream": text("The stream."),
            "command_id": text("The id of the command."),
            "command": text("The name of the command's type."),
            "causation_id": text("What the command names as its direct cause."),
            "actor": nullable(&schema_ref("Actor")),
            "traceparent": nullable(&text("W3C Trace Context of the command.")),
            "occurred_at": moment("Business time of the command."),
            "recorded_at": moment("When the engine recorded it."),
            "outcome": {"type": "string", "enum": ["accepted", "refused"],
                        "description": "What became of the command."},
            "code": nullable(&text("The stable code of the rule that refused it.")),
            "detail": nullable(&text("What that rule says, for people.")),
            "version": integer(0, "The stream's version behind the commit."),
            "events": {"type": "array", "items": schema_ref("StoryEvent"),
                       "maxItems": EVENTS_SHOWN_MAX,
                       "description": "Its first events, in their order."},
            "event_count": integer(0, "How many events it has."),
            "position": nullable(&position_schema()),
        }),
    )
}

fn event_schema() -> Value {
    object(
        "An event of a story.",
        json!({
            "id": {"type": "string", "format": "uuid", "description": "The event's id."},
            "type": text("The name of its type."),
            "version": integer(1, "The stream's version with the event."),
            "occurred_at": moment("Business time."),
        }),
    )
}
