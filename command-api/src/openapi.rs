//! This door's part of the OpenAPI document, made from the registered commands.
//!
//! Invariant: each registered command has its own path. The path's stream pattern admits only the
//! command's category, and its body is the command's JSON Schema. Deliberately absent: components
//! that both doors use ([`door::openapi`]).

use std::collections::BTreeMap;

use door::openapi::{Fragment, SCHEMAS_PATH, header_ref, parameter_ref, responses, schema_ref};
use kernel::registry::{Registry, definitions_of};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::batch::MEDIA_TYPE;
use crate::line::CommandLine;

/// The pattern of an id in a stream's name, as in JSON Schema.
const STREAM_ID_PATTERN: &str = "[A-Za-z0-9._~-]{1,128}";
/// The pattern of a command id without quotes.
const ID_PATTERN: &str = r"[!#-\[\]-~]{1,255}";
/// The statuses of the problems that can answer a command.
const COMMAND_PROBLEMS: [u16; 8] = [400, 404, 408, 412, 413, 415, 422, 503];

/// A command's name, with the category and body schema of each aggregate that has a command of this
/// name.
type ByName = BTreeMap<&'static str, Vec<(&'static str, Value)>>;

/// The routes of this door, for the commands of `registry`.
#[must_use]
pub fn fragment(registry: &Registry) -> Fragment {
    let mut generator = Registry::schema_generator(SCHEMAS_PATH);
    let mut fragment = Fragment::default();
    fragment.tag("commands", "Send commands, and learn their outcomes.");
    fragment.codes(crate::code::ALL);
    let mut open_categories = Vec::new();
    for (name, owners) in by_name(registry, &mut generator, &mut open_categories) {
        let categories: Vec<_> = owners.iter().map(|(category, _)| *category).collect();
        let body = match <[_; 1]>::try_from(owners) {
            Ok([(_, schema)]) => schema,
            Err(owners) => {
                json!({"anyOf": owners.into_iter().map(|(_, schema)| schema).collect::<Vec<_>>()})
            }
        };
        let path = format!("/v1/streams/{{stream}}/{name}");
        fragment.operation(&path, "post", command_operation(name, &categories, &body));
    }
    if !open_categories.is_empty() {
        let mut operation = command_operation("any", &open_categories, &json!({}));
        let command = json!({"name": "command", "in": "path", "required": true,
                             "schema": {"type": "string"}});
        operation["parameters"]
            .as_array_mut()
            .into_iter()
            .for_each(|list| list.push(command.clone()));
        fragment.operation("/v1/streams/{stream}/{command}", "post", operation);
    }
    fragment.operation("/v1/commands", "post", batch_operation());
    fragment.operation(
        "/v1/streams/{stream}/commands/{id}",
        "get",
        outcome_operation(),
    );
    generator.subschema_for::<CommandLine>();
    for (name, schema) in definitions_of(generator) {
        fragment.schema(&name, schema.to_value());
    }
    for (name, schema) in answer_schemas() {
        fragment.schema(name, schema);
    }
    crate::peer::describe_topology(&mut fragment);
    fragment
}

fn by_name(
    registry: &Registry,
    generator: &mut SchemaGenerator,
    open_categories: &mut Vec<&'static str>,
) -> ByName {
    let mut commands = ByName::new();
    for aggregate in registry.iter() {
        let types = aggregate.command_types(generator);
        if types.is_empty() {
            open_categories.push(aggregate.category());
        }
        for command in types {
            let owner = (aggregate.category(), command.schema.to_value());
            commands.entry(command.name).or_default().push(owner);
        }
    }
    commands
}

fn command_operation(name: &str, categories: &[&str], body: &Value) -> Value {
    let mut responses = responses(&COMMAND_PROBLEMS);
    responses.insert("200".to_owned(), accepted());
    let category = categories.first().copied().unwrap_or("stream");
    let mut parameters = vec![json!({
        "name": "stream", "in": "path", "required": true,
        "description": "The stream: its category, a dash and its id.",
        "schema": {
            "type": "string",
            "pattern": format!("^({})-{STREAM_ID_PATTERN}$", categories.join("|")),
        },
        "example": format!("{category}-1"),
    })];
    parameters.extend(command_headers());
    json!({
        "operationId": format!("{}_{name}", categories.join("_")),
        "tags": ["commands"],
        "summary": format!("{name} ({})", categories.join(", ")),
        "parameters": parameters,
        "requestBody": {"required": true, "content": {"application/json": {"schema": body}}},
        "responses": responses,
    })
}

fn header(name: &str, description: &str, schema: Value, example: &str) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": schema,
           "example": example})
}

fn command_headers() -> Vec<Value> {
    let pattern = |pattern: &str| json!({"type": "string", "pattern": pattern});
    vec![
        header(
            "Idempotency-Key",
            "The command's id: your name for this intent, with or without quotes. The same id \
             again gives the same answer. If it is absent, the server makes up an id and returns \
             it.",
            pattern(&format!("^(\"{ID_PATTERN}\"|{ID_PATTERN})$")),
            "\"3f8c2a52-0f5e-4b7e-9d57-2b1f1c4f7a10\"",
        ),
        header(
            "If-Match",
            "The stream version that you saw; the command is refused with 412 if the stream has \
             another version.",
            pattern("^\"[0-9]{1,18}\"$"),
            "\"3\"",
        ),
        header(
            "If-None-Match",
            "The stream has no events yet; the command is refused with 412 if it has events.",
            json!({"type": "string", "const": "*"}),
            "*",
        ),
        header(
            "Annals-Actor",
            "Who sends the command: kind:id. Never personal data.",
            pattern("^(user|service|process|import):[!-~]{1,255}$"),
            "service:checkout",
        ),
        header(
            "Annals-Causation-Id",
            "The direct cause of this command.",
            pattern(&format!("^{ID_PATTERN}$")),
            "01890a5d-ac96-774b-bcce-b302099a8057",
        ),
        header(
            "Annals-Occurred-At",
            "Business time; if absent, the time of the server's clock.",
            json!({"type": "string", "format": "date-time"}),
            "2018-06-04T16:44:48Z",
        ),
        header(
            "traceparent",
            "W3C Trace Context; a malformed value is ignored.",
            json!({"type": "string"}),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        parameter_ref("Tenant"),
        parameter_ref("CorrelationId"),
        parameter_ref("TimeoutMs"),
    ]
}

fn accepted() -> Value {
    json!({
        "description": "The command is accepted, and its commit is durable.",
        "headers": {
            "ETag": {
                "description": "The stream's version, for If-Match.",
                "required": true,
                "schema": {"type": "string", "pattern": "^\"[0-9]+\"$"},
            },
            "Annals-Position": header_ref("Position"),
            "Idempotency-Key": {
                "description": "The command's id, quoted.",
                "required": true,
                "schema": {"type": "string"},
            },
            "Annals-Correlation-Id": header_ref("CorrelationId"),
        },
        "content": {"application/json": {"schema": schema_ref("CommandAnswer")}},
    })
}

fn batch_operation() -> Value {
    let mut responses = responses(&[400, 415]);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "One `AnswerLine` for each line that is not blank, in the order of the \
                            lines. Answers begin while the client still sends.",
            "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        }),
    );
    json!({
        "operationId": "submit_commands",
        "tags": ["commands"],
        "summary": "Many commands, as NDJSON",
        "description": "Each line is a `CommandLine` of at most 256 KiB and has its own outcome. \
                        An unreadable line does not affect other lines. Commands for one stream \
                        are decided in the order of their lines. After a command without an \
                        answer (503), later commands for the same stream are not attempted. \
                        `Annals-Timeout-Ms` applies to each line. `Annals-Correlation-Id` applies \
                        to lines without a `correlation_id`, and `traceparent` to all lines.",
        "parameters": [parameter_ref("CorrelationId"), parameter_ref("TimeoutMs")],
        "requestBody": {
            "required": true,
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        "responses": responses,
    })
}

fn outcome_operation() -> Value {
    let mut responses = responses(&[400, 404, 503]);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "The outcome in the log.",
            "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
            "content": {"application/json": {"schema": schema_ref("CommandOutcome")}},
        }),
    );
    json!({
        "operationId": "command_outcome",
        "tags": ["commands"],
        "summary": "The outcome of a command",
        "parameters": [
            parameter_ref("Stream"),
            {
                "name": "id", "in": "path", "required": true,
                "description": "The command's id.",
                "schema": {"type": "string", "pattern": format!("^{ID_PATTERN}$")},
            },
            parameter_ref("Tenant"),
            parameter_ref("CorrelationId"),
            parameter_ref("TimeoutMs"),
        ],
        "responses": responses,
    })
}

/// The members of every answer from the log.
fn answer_properties() -> Map<String, Value> {
    let properties = json!({
        "stream": {"type": "string", "description": "The stream."},
        "version": {
            "type": "integer", "minimum": 0,
            "description": "The stream's version after the command.",
        },
        "position": {
            "type": "string",
            "description": "The place of the command's commit, as a position token.",
        },
        "events": {
            "type": "array",
            "description": "The events; none if the intent was already fulfilled.",
            "items": schema_ref("EventReference"),
        },
    });
    match properties {
        Value::Object(properties) => properties,
        _ => Map::new(),
    }
}

fn answer_schemas() -> [(&'static str, Value); 4] {
    let with = |more: Value| {
        let mut properties = answer_properties();
        properties.extend(more.as_object().cloned().into_iter().flatten());
        properties
    };
    let repeated = json!({
        "type": "boolean",
        "description": "True if a command with this id was already answered; this is then the \
                        same answer.",
    });
    let command_id = json!({"type": "string", "description": "The command's id."});
    let answer = json!({
        "type": "object",
        "description": "An accepted command.",
        "properties": with(json!({"repeated": repeated})),
        "required": ["stream", "version", "position", "events", "repeated"],
    });
    let event = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "type": {"type": "string"},
            "version": {"type": "integer", "minimum": 1},
        },
        "required": ["id", "type", "version"],
    });
    let outcome = json!({
        "type": "object",
        "description": "The outcome of a command in the log: its events, or its rejection.",
        "properties": with(json!({
            "command_id": command_id,
            "outcome": {"type": "string", "enum": ["accepted", "rejected"]},
            "rejection": {
                "type": "object",
                "properties": {
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                    "facts": {"type": "object"},
                },
                "required": ["code", "detail"],
            },
        })),
        "required": ["stream", "command_id", "outcome", "version", "position"],
    });
    let line = json!({
        "type": "object",
        "description": "The outcome of one line. With status 200 it also has the members of \
                        `CommandAnswer`, otherwise those of `Problem`.",
        "properties": {
            "line_number": {"type": "integer", "minimum": 1},
            "status": {"type": "integer"},
            "command_id": command_id,
        },
        "required": ["line_number", "status"],
    });
    [
        ("CommandAnswer", answer),
        ("EventReference", event),
        ("CommandOutcome", outcome),
        ("AnswerLine", line),
    ]
}
