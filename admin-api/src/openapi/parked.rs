//! Parked streams in the OpenAPI document.
//!
//! Deliberately absent: what other routes share with them (`openapi`).

use door::openapi::{Fragment, integer, nullable, object, parameter_ref, schema_ref, text};
use projector::{STREAM_INDEX, WAITING_MAX};
use serde_json::{Value, json};

use super::{TAG, actor_parameter, list, moment, ok, path, problems, reason_schema};
use crate::parked::{LIMIT_DEFAULT, LIMIT_MAX, WAITING_DEFAULT};

/// The actions on a parked stream, each with its summary and its description.
const ACTIONS: [(&str, &str, &str); 2] = [
    (
        "retry",
        "Take a parked stream up again",
        "A running projector takes up the waiting commits in their order; if it fails again, the \
         stream stays parked.",
    ),
    (
        "discard",
        "Leave a parked commit out for ever",
        "The first waiting commit of the stream is left out by this projection, also by each \
         rebuild; the rest stays parked until it is retried.",
    ),
];

/// Adds the routes and the schemas.
pub(super) fn describe(fragment: &mut Fragment) {
    fragment.operation("/v1/parked", "get", parked_operation());
    let one = "/v1/parked/{projection}/{stream}";
    fragment.operation(one, "get", one_parked_operation());
    for (action, summary, description) in ACTIONS {
        let operation = wish_operation(action, summary, description);
        fragment.operation(&format!("{one}/{action}"), "post", operation);
    }
    fragment.schema(
        "ParkedStreams",
        object(
            "A page of parked streams.",
            json!({
                "parked": list(schema_ref("ParkedStream"), "The streams."),
                "next": nullable(&text("The `after` of the next page; null on the last page.")),
            }),
        ),
    );
    fragment.schema("ParkedStream", parked_schema());
    fragment.schema(
        "ParkedWish",
        object(
            "What was asked for.",
            json!({
                "projection": text("The projection."),
                "tenant": text("The tenant."),
                "stream": text("The stream."),
                "wish": text("`retry` or `discard`."),
            }),
        ),
    );
    waiting_schemas(fragment);
    fragment.schema("ParkedRequest", reason_schema());
}

fn waiting_schemas(fragment: &mut Fragment) {
    let mut members = parked_members();
    members["waiting"] = list(
        schema_ref("WaitingCommit"),
        "The first commits that wait, in their order.",
    );
    members["more"] = integer(0, "How many more wait.");
    let about = "A stream that a projection could not take up, with what waits.";
    fragment.schema("ParkedStreamDetails", object(about, members));
    fragment.schema(
        "WaitingCommit",
        object(
            "A commit of a parked stream, as the log has it.",
            json!({
                "position": integer(1, "Its position in the partition."),
                "offset": integer(0, "The log's own number of its record."),
                "unreadable": nullable(&text("Why it cannot be shown: its record is gone, or \
                    another one stands there. Then nothing else is known.")),
                "recorded_at": nullable(&moment("When it was recorded.")),
                "command": nullable(&text("The type of its command.")),
                "command_id": nullable(&text("The id of its command.")),
                "correlation_id": nullable(&text("The conversation.")),
                "causation_id": nullable(&text("The direct cause of the command.")),
                "actor": nullable(&object("Who asked, if the client said it.", json!({
                    "id": text("The actor's name within its kind."),
                    "kind": text("The kind of actor."),
                }))),
                "traceparent": nullable(&text("W3C Trace Context of the command, if the client \
                                               sent one.")),
                "refusal": nullable(&text("The code of the refusal, if the command was refused.")),
                "events": list(schema_ref("WaitingEvent"), "Its events, in their order."),
            }),
        ),
    );
    fragment.schema(
        "WaitingEvent",
        object(
            "An event of a commit that waits.",
            json!({
                "type": text("The name of its type."),
                "schema": integer(1, "The number of its data's shape."),
                "version": integer(1, "The stream's version with it."),
                "occurred_at": moment("When it happened."),
                "data": {"description": "Its data, as it was recorded."},
            }),
        ),
    );
}

fn parked_schema() -> Value {
    object(
        "A stream that a projection could not take up.",
        parked_members(),
    )
}

fn parked_members() -> Value {
    json!({
        "projection": text("The projection."),
        "tenant": text("The tenant."),
        "stream": text("The stream."),
        "partition": integer(0, "Its partition."),
        "position": integer(0, "The position of the commit that could not be taken up."),
        "event_type": nullable(&text("The type of that commit's first event.")),
        "commits": integer(0, "How many commits wait."),
        "reason": text("Why."),
        "parked_at": moment("Since when."),
        "attempts": integer(1, "How often it was tried."),
        "wish": nullable(&text("What an operator asked for, until it is done.")),
    })
}

fn parked_operation() -> Value {
    let mut responses = problems(&[400], &[]);
    responses.insert("200".to_owned(), ok("The parked streams.", "ParkedStreams"));
    json!({
        "operationId": "parked_streams",
        "tags": [TAG],
        "summary": "Streams that projections could not take up",
        "description": "By projection, tenant and stream.",
        "parameters": [
            {"name": "projection", "in": "query", "description": "Only those of this projection.",
             "schema": {"type": "string"}},
            {"name": "after", "in": "query",
             "description": "Where the page begins: the `next` of the page before.",
             "schema": {"type": "string", "pattern": "^[^/]*/[^/]*/[^/]*$"}},
            {"name": "limit", "in": "query", "description": "The most streams in a page.",
             "schema": {"type": "integer", "format": "int32", "minimum": 1, "maximum": LIMIT_MAX,
                        "default": LIMIT_DEFAULT}},
            parameter_ref("CorrelationId"),
        ],
        "responses": responses,
    })
}

fn one_parked_operation() -> Value {
    let mut responses = problems(&[400], &[404]);
    let schema = "ParkedStreamDetails";
    responses.insert("200".to_owned(), ok("The parked stream.", schema));
    json!({
        "operationId": "parked_stream",
        "tags": [TAG],
        "summary": "A parked stream with what waits",
        "description": "Why it is parked, and the first commits that wait, with their events.",
        "parameters": [
            path("projection", STREAM_INDEX, "The projection."),
            path("stream", "example-1", "The stream."),
            {"name": "limit", "in": "query", "description": "The most commits that are shown.",
             "schema": {"type": "integer", "format": "int32", "minimum": 1,
                        "maximum": WAITING_MAX, "default": WAITING_DEFAULT}},
            parameter_ref("Tenant"),
            parameter_ref("CorrelationId"),
        ],
        "responses": responses,
    })
}

fn wish_operation(action: &str, summary: &str, description: &str) -> Value {
    let mut responses = problems(&[400, 408, 413, 415], &[404]);
    responses.insert("202".to_owned(), ok("It was asked for.", "ParkedWish"));
    json!({
        "operationId": format!("{action}_parked_stream"),
        "tags": [TAG],
        "summary": summary,
        "description": description,
        "parameters": [
            path("projection", STREAM_INDEX, "The projection."),
            path("stream", "example-1", "The stream."),
            parameter_ref("Tenant"),
            actor_parameter(),
            parameter_ref("CorrelationId"),
        ],
        "requestBody": {"required": true,
            "content": {"application/json": {"schema": schema_ref("ParkedRequest")}}},
        "responses": responses,
    })
}
