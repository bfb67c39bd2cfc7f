//! This door's part of the OpenAPI document.
//!
//! Invariant: every status that can occur is listed. Deliberately absent: components that all doors
//! use ([`door::openapi`]).

mod parked;
mod replays;

use door::PROBLEM_MEDIA_TYPE;
use door::openapi::{
    Fragment, header_ref, integer, nullable, object, parameter_ref, responses, schema_ref, text,
    with_codes,
};
use projector::STREAM_INDEX;
use serde_json::{Map, Value, json};

use super::{KEEP_SECONDS_DEFAULT, KEEP_SECONDS_MAX, code};

/// The name of this door in the document.
const DOOR: &str = "Admin";
const TAG: &str = "operation";

/// The actions on a projection, each with its summary and its description.
const ACTIONS: [(&str, &str, &str); 7] = [
    (
        "pause",
        "Let a projection stand still",
        "Its rows stay as they are until it is resumed; the other projections go on.",
    ),
    (
        "resume",
        "Let a projection go on",
        "A paused or stopped projection goes on from the place where it stands.",
    ),
    (
        "rebuild",
        "Build a projection again",
        "The running projectors build new tables beside the live ones, compare both, and switch \
         unless `no_switch` is true. The answer comes at once; `GET` shows the progress. A \
         projection that fills tables of another program empties them first.",
    ),
    (
        "verify",
        "Compare a projection with the log",
        "The running projectors fold the log into tables of their own and compare them with the \
         live ones. The answer comes at once; the generation's `verified` shows the result.",
    ),
    (
        "cancel",
        "Drop what a rebuild is making",
        "The live tables stay.",
    ),
    (
        "switch",
        "Show what a rebuild has made",
        "The generation that is ready becomes live; the old one is kept for `keep_seconds`.",
    ),
    (
        "rollback",
        "Show again what was shown before",
        "The generation that was live before becomes live again, if it is kept and current.",
    ),
];

/// The routes of this door.
#[must_use]
pub fn fragment() -> Fragment {
    let mut fragment = Fragment::of(DOOR, code::ALL);
    fragment.tag(
        TAG,
        "How the read models are doing, and what can be done about them.",
    );
    fragment.operation("/v1/projections", "get", list_operation());
    fragment.operation("/v1/projections/{name}", "get", one_operation());
    for (action, summary, description) in ACTIONS {
        fragment.operation(
            &format!("/v1/projections/{{name}}/{action}"),
            "post",
            control_operation(action, summary, description),
        );
    }
    fragment.operation("/v1/members", "get", members_operation());
    fragment.operation("/v1/projections/{name}/drop", "post", drop_operation());
    parked::describe(&mut fragment);
    replays::describe(&mut fragment);
    schemas(&mut fragment);
    fragment
}

fn moment(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}

fn number(description: &str) -> Value {
    json!({"type": "number", "minimum": 0, "description": description})
}

fn list(of: Value, description: &str) -> Value {
    json!({"type": "array", "items": of, "description": description})
}

fn schemas(fragment: &mut Fragment) {
    fragment.schema(
        "Projections",
        object(
            "The projections.",
            json!({"projections": list(schema_ref("Projection"), "The projections, by name.")}),
        ),
    );
    fragment.schema("Projection", projection_schema());
    fragment.schema("ProjectionGeneration", generation_schema());
    fragment.schema("ProjectionPartition", partition_schema());
    fragment.schema(
        "ProjectionPause",
        object(
            "Who paused a projection, when and why.",
            json!({
                "at": moment("When."),
                "by": text("By whom."),
                "reason": text("Why."),
            }),
        ),
    );
    fragment.schema(
        "ProjectionError",
        object(
            "Why a projection does not move, or what it could not take up last.",
            json!({
                "at": nullable(&moment("Since when, if that is known.")),
                "partition": nullable(&integer(0, "In which partition; null: in all.")),
                "offset": nullable(&integer(0, "At which record, if one record is the cause.")),
                "tenant": nullable(&text("The tenant of the record's stream.")),
                "stream": nullable(&text("The record's stream.")),
                "event_type": nullable(&text("The type of the event that is the cause.")),
                "reason": text("Why."),
                "remedy": text("What to do."),
            }),
        ),
    );
    fragment.schema(
        "ProjectionOwner",
        object(
            "The process that takes up a partition.",
            json!({"member": text("Its id."), "name": text("Its machine and process id.")}),
        ),
    );
    fragment.schema(
        "Members",
        object(
            "The processes that run projections.",
            json!({"members": list(schema_ref("Member"), "The processes, the eldest first.")}),
        ),
    );
    fragment.schema(
        "Member",
        object(
            "A process that runs projections.",
            json!({
                "id": text("Its id; a new one at each start."),
                "name": text("Its machine and process id."),
                "started_at": moment("When it joined the others."),
                "seen_at": moment("When it last said that it is alive."),
                "leases": integer(0, "How many partitions of generations it holds."),
            }),
        ),
    );
    comparison_schemas(fragment);
    fragment.schema(
        "DroppedProjection",
        object(
            "What was dropped.",
            json!({
                "name": text("The projection."),
                "generations": integer(1, "How many generations of its tables it had."),
            }),
        ),
    );
    fragment.schema("ControlRequest", control_schema());
}

fn projection_schema() -> Value {
    object(
        "How a projection is doing.",
        json!({
            "name": text("Its name."),
            "version": nullable(&integer(0, "The version of its live rule; null if it has none.")),
            "state": {"type": "string",
                "description": "`live`; `behind`: it takes up records, and lacks some; `stuck`: it has \
                    some to take up, and does not move; `parked`: it goes on without some \
                    streams; `paused`; `stopped`: it met something that it cannot take up; \
                    `outdated`: another version of its rule made the rows; `absent`: nobody \
                    made its tables yet; `unknown`: this program does not have it."},
            "tables": list(json!({"type": "string"}), "Its read models."),
            "gap": nullable(&integer(0, "The number of records that its rows lack.")),
            "lag_seconds": nullable(&number("How long the oldest of them has been in the log.")),
            "rate_per_second": nullable(&number("How many records it takes up in a second; null \
                until two requests have told.")),
            "seconds_left": nullable(&number("When it is current, at that rate.")),
            "parked_streams": integer(0, "How many streams are parked."),
            "paused": {"anyOf": [schema_ref("ProjectionPause"), {"type": "null"}]},
            "error": {"anyOf": [schema_ref("ProjectionError"), {"type": "null"}]},
            "next": nullable(&text("What can be done next, if two versions stand beside each other: \
                with the command.")),
            "generations": list(schema_ref("ProjectionGeneration"), "Its generations."),
        }),
    )
}

fn generation_schema() -> Value {
    let comparison = || json!({"anyOf": [schema_ref("Comparison"), {"type": "null"}]});
    object(
        "A generation of a projection's tables.",
        json!({
            "number": integer(1, "Its number."),
            "version": integer(0, "The version of its rule."),
            "state": text("`building`, `ready`, `live` or `retired`."),
            "created_at": moment("When it was created."),
            "keep_until": nullable(&moment("When it is dropped, if it is retired.")),
            "comparison": comparison(),
            "verified_at": nullable(&moment("When it was last compared with the log.")),
            "verified": comparison(),
            "partitions": list(schema_ref("ProjectionPartition"), "Its partitions."),
        }),
    )
}

fn partition_schema() -> Value {
    object(
        "How far a generation has come in a partition.",
        json!({
            "partition": integer(0, "The partition."),
            "position": integer(0, "The number of accepted records that it has taken up."),
            "offset": nullable(&integer(0, "The offset of the last record read.")),
            "head": nullable(&integer(0, "The offset at the end of the log.")),
            "gap": nullable(&integer(0, "The number of records that it lacks.")),
            "lag_seconds": nullable(&number("How long the first of them has been in the log.")),
            "rate_per_second": nullable(&number("How many records it takes up in a second; null \
                until it was observed twice.")),
            "seconds_left": nullable(&number("When it is current, at that rate.")),
            "owner": {"anyOf": [schema_ref("ProjectionOwner"), {"type": "null"}]},
            "trouble": nullable(&text("Why its process cannot go on now; it tries again by itself.")),
            "stopped": nullable(&text("Why it stopped here.")),
        }),
    )
}

fn comparison_schemas(fragment: &mut Fragment) {
    fragment.schema(
        "Comparison",
        object(
            "How new tables compare with the live ones, at the same places of the log.",
            json!({
                "equal": {"type": "boolean",
                          "description": "Whether they are equal in the columns that both have."},
                "tables": list(schema_ref("TableComparison"), "The tables."),
            }),
        ),
    );
    fragment.schema(
        "TableComparison",
        object(
            "How one table compares.",
            json!({
                "table": text("Its name."),
                "rows": integer(0, "The rows of the new table."),
                "rows_live": integer(0, "The rows of the live table."),
                "equal": {"type": "boolean", "description": "Whether both have the same rows."},
                "not_compared": list(json!({"type": "string"}),
                    "Columns that only one table has, or with different types."),
                "differences": list(schema_ref("RowDifference"), "Some of the differences."),
            }),
        ),
    );
    fragment.schema(
        "RowDifference",
        object(
            "A value that differs.",
            json!({
                "key": text("The key of the row, the tenant first."),
                "column": nullable(&text("The column; null if one table does not have the row.")),
                "live": nullable(&text("The value of the live table.")),
                "new": nullable(&text("The value of the new table.")),
            }),
        ),
    );
}

fn reason_schema() -> Value {
    json!({
        "type": "object",
        "description": "What is asked for.",
        "required": ["reason"],
        "properties": {"reason": {"type": "string", "minLength": 1, "pattern": "\\S",
            "description": "Why; it is kept with the record of what was done."}},
        "additionalProperties": false,
        "examples": [{"reason": "a trial"}],
    })
}

fn control_schema() -> Value {
    let mut schema = reason_schema();
    schema["properties"]["keep_seconds"] = json!({
        "type": ["integer", "null"], "format": "int64", "minimum": 0,
        "maximum": KEEP_SECONDS_MAX,
        "description": format!("For how long the live tables are kept after a switch; \
            {KEEP_SECONDS_DEFAULT} if absent.")});
    schema["properties"]["no_switch"] = json!({
        "type": ["boolean", "null"],
        "description": "Whether a rebuild leaves the new tables beside the live ones."});
    schema
}

fn ok(description: &str, schema: &str) -> Value {
    json!({
        "description": description,
        "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
        "content": {"application/json": {"schema": schema_ref(schema)}},
    })
}

/// Problem responses of this door that others do not have.
fn problems(statuses: &[u16], own: &[u16]) -> Map<String, Value> {
    let mut all = responses(DOOR, statuses);
    for &status in own {
        let description = match status {
            404 => "What the path names does not exist.",
            _ => "The state does not allow it; nothing was changed.",
        };
        all.insert(
            status.to_string(),
            json!({
                "description": with_codes(description, status, code::ALL),
                "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
                "content": {PROBLEM_MEDIA_TYPE: {"schema": schema_ref("Problem")}},
            }),
        );
    }
    all
}

/// `example` is what every program has.
fn path(name: &str, example: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description,
           "schema": {"type": "string", "minLength": 1}, "example": example})
}

fn actor_parameter() -> Value {
    json!({"name": "Annals-Actor", "in": "header",
           "description": "Who asks; it is kept with the record of what was done.",
           "schema": {"type": "string", "minLength": 1}})
}

fn list_operation() -> Value {
    let mut responses = problems(&[400], &[]);
    responses.insert("200".to_owned(), ok("The projections.", "Projections"));
    json!({
        "operationId": "projections",
        "tags": [TAG],
        "summary": "How every projection is doing",
        "description": "State, gap, lag, rate, owners and errors, for each generation and partition.",
        "parameters": [parameter_ref("CorrelationId")],
        "responses": responses,
    })
}

fn members_operation() -> Value {
    let mut responses = problems(&[400], &[]);
    responses.insert("200".to_owned(), ok("The processes.", "Members"));
    json!({
        "operationId": "members",
        "tags": [TAG],
        "summary": "The processes that run projections",
        "description": "A process that has not been seen for two seconds is dead, and the others \
                        take over.",
        "parameters": [parameter_ref("CorrelationId")],
        "responses": responses,
    })
}

fn one_operation() -> Value {
    let mut responses = problems(&[400], &[404]);
    responses.insert("200".to_owned(), ok("The projection.", "Projection"));
    json!({
        "operationId": "projection",
        "tags": [TAG],
        "summary": "How a projection is doing",
        "description": "State, gap, lag, rate, owners and errors, for each generation and partition.",
        "parameters": [path("name", STREAM_INDEX, "The projection."), parameter_ref("CorrelationId")],
        "responses": responses,
    })
}

fn control_operation(action: &str, summary: &str, description: &str) -> Value {
    let mut responses = problems(&[400, 408, 413, 415], &[404, 409]);
    let (status, said) = match action {
        "rebuild" | "verify" => (
            "202",
            "It was asked for; this is how the projection is doing.",
        ),
        _ => ("200", "It was done; this is how the projection is doing."),
    };
    responses.insert(status.to_owned(), ok(said, "Projection"));
    json!({
        "operationId": format!("{action}_projection"),
        "tags": [TAG],
        "summary": summary,
        "description": description,
        "parameters": [
            path("name", STREAM_INDEX, "The projection."),
            actor_parameter(),
            parameter_ref("CorrelationId"),
        ],
        "requestBody": {"required": true,
            "content": {"application/json": {"schema": schema_ref("ControlRequest")}}},
        "responses": responses,
    })
}

fn drop_operation() -> Value {
    let mut operation = control_operation(
        "drop",
        "Drop a projection that the program does not have any more",
        "Its views, tables, places and parked streams are dropped. A projection of this program is \
         not dropped: a projector would make it again.",
    );
    let said = ok("It was dropped.", "DroppedProjection");
    operation["responses"]["200"] = said;
    operation
}
