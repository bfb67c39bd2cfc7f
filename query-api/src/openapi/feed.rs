//! What the document says of the feed: what may be asked, and that the answer is a stream of items.
//!
//! Deliberately absent: the form of each event's data; it is that of `RecordedEvent`.

use door::PROBLEM_MEDIA_TYPE;
use door::openapi::{
    Fragment, header_ref, integer, nullable, object, parameter_ref, responses, schema_ref, text,
    with_codes,
};
use serde_json::{Value, json};

use super::DOOR;
use crate::code;

/// Adds the route of the feed.
pub(super) fn describe(fragment: &mut Fragment) {
    fragment.tag(
        "feed",
        "All accepted commits, in the order of each partition, from any place on.",
    );
    fragment.operation("/v1/events", "get", operation());
    fragment.schema("FeedItem", item_schema());
    fragment.schema("FeedPlace", place_schema());
}

fn filter(name: &str, description: &str, pattern: &str) -> Value {
    json!({"name": name, "in": "query", "description": description,
           "schema": {"type": "string", "pattern": pattern}})
}

fn moment(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description,
           "schema": {"type": "string", "format": "date-time"}})
}

fn choice(name: &str, description: &str, values: &[&str], default: Option<&str>) -> Value {
    let mut schema = json!({"type": "string", "enum": values});
    if let Some(default) = default {
        schema["default"] = default.into();
    }
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

/// Any text that a filter can have.
const SOME: &str = r"^[^\x00]+$";

fn parameters() -> Vec<Value> {
    vec![
        filter(
            "from",
            "Where to begin: `beginning` (default), `now`, the `cursor` of an earlier item, or the \
             position token of a command, behind whose commit the feed then begins; partitions that the \
             token does not name are read from their beginning.",
            "^(beginning|now|[A-Za-z0-9_-]{20,})$",
        ),
        moment(
            "from_time",
            "Only commits that were recorded from this time on. Not together with `from`.",
        ),
        moment(
            "until",
            "Only commits that were recorded before this time. Not together with `follow`.",
        ),
        json!({"name": "follow", "in": "query",
               "description": "Whether the feed goes on with what comes. Otherwise it ends where the log \
                               ended when it was asked.",
               "schema": {"type": "boolean", "default": false}}),
        filter(
            "stream",
            "Only this stream.",
            "^[a-z][a-z0-9_]{0,62}-[A-Za-z0-9._~-]{1,128}$",
        ),
        filter("category", "Only streams of this category.", SOME),
        filter(
            "type",
            "Only events of this type. Not with `outcome=refused`.",
            SOME,
        ),
        filter(
            "actor",
            "Only what this actor asked for: its kind, a colon and its id.",
            "^(user|service|process|import):[^\\x00]+$",
        ),
        filter("correlation_id", "Only this conversation.", SOME),
        filter(
            "command_id",
            "Only what the command with this id left.",
            SOME,
        ),
        choice(
            "outcome",
            "Whether events, refused commands, or both are sent.",
            &["accepted", "refused", "all"],
            Some("accepted"),
        ),
        choice(
            "schema",
            "The shape of the events' data: as it was recorded, or the newest shape of each type.",
            &["recorded", "latest"],
            Some("recorded"),
        ),
        choice(
            "format",
            "The form of the feed; `Accept` decides if it is absent: `text/event-stream` for \
             server-sent events, else lines of JSON.",
            &["ndjson", "sse"],
            None,
        ),
        json!({"name": "Last-Event-ID", "in": "header",
               "description": "The id of the last server-sent event that came: the feed goes on behind \
                               it, whatever `from` says.",
               "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{20,}$"}}),
        json!({"name": "Annals-Tenant", "in": "header",
               "description": "The tenant of the streams; `*`: all tenants.",
               "schema": {"type": "string", "pattern": "^([a-z0-9-]{1,63}|\\*)$",
                          "default": "main"}}),
        parameter_ref("CorrelationId"),
    ]
}

fn operation() -> Value {
    let mut all = responses(DOOR, &[400, 503]);
    let changed = "The log is not the one that the cursor or the position token is of.";
    all.insert(
        "409".to_owned(),
        json!({
            "description": with_codes(changed, 409, code::ALL),
            "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema_ref("Problem")}},
        }),
    );
    let lines = "An item on each line, in the form of `FeedItem`. The last line of a feed that does not \
                 follow is of the kind `end`: without it the feed broke off.";
    all.insert(
        "200".to_owned(),
        json!({
            "description": "The items, as they are found and as they come. As server-sent events they are \
                            the data of the events, which have the item's kind as their type, and \
                            its cursor as their id.",
            "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
            "content": {
                "application/x-ndjson": {"schema": {
                    "type": "string", "description": lines,
                    "contentMediaType": "application/json", "contentSchema": schema_ref("FeedItem"),
                }},
                "text/event-stream": {},
            },
        }),
    );
    json!({
        "operationId": "feed",
        "tags": ["feed"],
        "summary": "All events, from any place on",
        "description": "Only commits that count are sent, in the order of their partition; the items of \
                        a commit stand together, and the last of them has a cursor. A client that goes \
                        on from a cursor gets everything behind it exactly once. If the log no longer \
                        holds what the cursor stands for, the answer is 409 `log_changed`, or the feed \
                        ends with an item of the kind `problem`.",
        "parameters": parameters(),
        "responses": all,
    })
}

fn place_schema() -> Value {
    object(
        "Where a commit stands in the log.",
        json!({
            "partition": integer(0, "The partition."),
            "position": integer(1, "Its number among the accepted records of the partition."),
            "offset": integer(0, "The log's own number of its record."),
        }),
    )
}

/// Not all kinds have all members, and a later server may add kinds.
fn item_schema() -> Value {
    let time = |about: &str| json!({"type": "string", "format": "date-time", "description": about});
    json!({
        "type": "object",
        "description": "An item of the feed. `event` and `refusal` have the whole envelope; `progress` \
                        says that nothing came, and how far the feed has come nevertheless; `end` is the \
                        last item of a feed that does not follow; `problem` says why a feed ends before.",
        "required": ["kind"],
        "properties": {
            "kind": text("`event`, `refusal`, `progress`, `end` or `problem`."),
            "tenant": text("For whom the stream is kept."),
            "stream": text("The stream."),
            "version": integer(0, "The stream's version with the event, or when the command was \
                                   refused."),
            "id": {"type": "string", "format": "uuid", "description": "The event's id."},
            "type": text("The name of the event's type."),
            "schema": {"type": "integer", "format": "int32", "minimum": 1,
                       "description": "The number of the shape of its data."},
            "code": text("The stable code of the rule that the refused command broke."),
            "detail": text("What the rule says, for people."),
            "occurred_at": time("Business time."),
            "recorded_at": time("When the engine recorded it."),
            "command_id": text("The id of the command."),
            "command": text("The name of that command's type."),
            "correlation_id": text("The conversation."),
            "causation_id": text("The direct cause of the command."),
            "actor": nullable(&schema_ref("Actor")),
            "traceparent": nullable(&text("W3C Trace Context of the command.")),
            "place": schema_ref("FeedPlace"),
            "data": {"description": "The event's data, or the refused command's."},
            "cursor": text("Stands for all that came up to here; opaque."),
            "problem": schema_ref("Problem"),
        },
        "additionalProperties": true,
    })
}
