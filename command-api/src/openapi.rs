//! This door's part of the OpenAPI document, made from the registered commands.
//!
//! Invariant: each registered command has its own path. The path's stream pattern admits only the
//! command's category, and its body is the command's JSON Schema. Deliberately absent: components
//! that both doors use ([`door::openapi`]).

mod batch;
mod refusals;

use std::collections::BTreeMap;

use door::openapi::{
    DOMAIN_PATH, Fragment, SCHEMAS_PATH, header_ref, integer, nullable, object, parameter_ref,
    responses, schema_ref, text,
};
use kernel::registry::{Registry, definitions_of};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::line::CommandLine;
use refusals::Refusals;

/// The pattern of an id in a stream's name, as in JSON Schema.
const STREAM_ID_PATTERN: &str = "[A-Za-z0-9._~-]{1,128}";
/// The pattern of a command id without quotes.
const ID_PATTERN: &str = r"[!#-\[\]-~]{1,255}";
/// The name of this door in the document.
pub(crate) const DOOR: &str = "Command";
/// The statuses of the problems that can answer a command.
const COMMAND_PROBLEMS: [u16; 8] = [400, 404, 408, 412, 413, 415, 422, 503];

/// A command's name, with the category and body schema of each aggregate that has a command of this
/// name.
type ByName = BTreeMap<&'static str, Vec<(&'static str, Value)>>;

/// What the document says of a command that needs no members.
const NO_BODY: &str = "It needs no members: the body may be `null`, or left out if there is an \
                       `Idempotency-Key` or a `Content-Type`.";

/// The definition that a command's schema refers to.
fn definition(generator: &mut SchemaGenerator, body: &Value) -> Option<Value> {
    let name = body["$ref"].as_str()?.strip_prefix('#')?;
    let name = name.strip_prefix(DOMAIN_PATH)?;
    generator.definitions().get(name).cloned()
}

fn needs_no_members(schema: &Value) -> bool {
    schema["type"] == "object" && schema["required"].as_array().is_none_or(Vec::is_empty)
}

/// The routes of this door, for the commands of `registry`. `domain` makes the schemas of their
/// types ([`door::openapi::domain_generator`]).
#[must_use]
pub fn fragment(registry: &Registry, domain: &mut SchemaGenerator) -> Fragment {
    let mut fragment = Fragment::of(DOOR, crate::code::ALL);
    fragment.tag("commands", "Send commands, and learn their outcomes.");
    let mut open_categories = Vec::new();
    let aggregates = registry.iter().map(AsRef::as_ref);
    let refusals = Refusals::of(aggregates, domain);
    for (name, owners) in by_name(registry, domain, &mut open_categories) {
        let categories: Vec<_> = owners.iter().map(|(category, _)| *category).collect();
        let schemas: Vec<_> = owners
            .iter()
            .filter_map(|(_, body)| definition(domain, body))
            .collect();
        let said = schemas.first().map(|schema| schema["description"].clone());
        let needs_body = schemas.len() < owners.len() || !schemas.iter().any(needs_no_members);
        let body = match <[_; 1]>::try_from(owners) {
            Ok([(_, schema)]) => schema,
            Err(owners) => {
                json!({"anyOf": owners.into_iter().map(|(_, schema)| schema).collect::<Vec<_>>()})
            }
        };
        // Many generated clients send null if the program gives no body.
        let body = if needs_body { body } else { nullable(&body) };
        let path = format!("/v1/streams/{{stream}}/{name}");
        let mut operation = command_operation(name, &categories, &body, needs_body);
        if let Some(refusal) = refusals.response(&categories) {
            operation["responses"]["422"] = refusal;
        }
        let said = said.filter(Value::is_string);
        operation["description"] = said.unwrap_or_else(|| format!("The command {name}.").into());
        if !needs_body {
            let about = operation["description"].as_str().unwrap_or_default();
            operation["description"] = format!("{about} {NO_BODY}").into();
        }
        fragment.operation(&path, "post", operation);
    }
    if !open_categories.is_empty() {
        let mut operation = command_operation("any", &open_categories, &json!({}), true);
        let command = json!({"name": "command", "in": "path", "required": true,
                             "description": "The name of the command's type.",
                             "schema": {"type": "string"}});
        operation["parameters"]
            .as_array_mut()
            .into_iter()
            .for_each(|list| list.push(command.clone()));
        fragment.operation("/v1/streams/{stream}/{command}", "post", operation);
    }
    let examples = batch::examples(registry, domain);
    fragment.operation("/v1/commands", "post", batch::operation(&examples));
    fragment.operation(
        "/v1/streams/{stream}/commands/{id}",
        "get",
        outcome_operation(),
    );
    refusals.describe(&mut fragment);
    let mut generator = Registry::schema_generator(SCHEMAS_PATH);
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

/// An operation that sends a command. A command that needs no members needs no body.
fn command_operation(name: &str, categories: &[&str], body: &Value, needs_body: bool) -> Value {
    let mut responses = responses(DOOR, &COMMAND_PROBLEMS);
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
        "requestBody": {
            "required": needs_body,
            "content": {"application/json": {"schema": body}},
        },
        "responses": responses,
    })
}

/// An optional header. It has no example: a page that tries requests out would send it.
fn header(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": schema})
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
        ),
        header(
            "If-Match",
            "The stream version that you saw, in quotes, or the `ETag` of the stream's state; the \
             command is refused with 412 if the stream has another version.",
            pattern("^\"[0-9]{1,18}(-[0-9a-f]{24}(-gzip)?)?\"$"),
        ),
        header(
            "If-None-Match",
            "`*`: the stream has no events yet; the command is refused with 412 if it has events.",
            pattern(r"^\*$"),
        ),
        header(
            "Annals-Actor",
            "Who sends the command: kind:id. Never personal data.",
            pattern("^(user|service|process|import):[!-~]{1,255}$"),
        ),
        header(
            "Annals-Causation-Id",
            "The direct cause of this command.",
            pattern(&format!("^{ID_PATTERN}$")),
        ),
        header(
            "Annals-Occurred-At",
            "Business time (RFC 3339), as in `2018-06-04T16:44:48Z`; if absent, the time of the \
             server's clock. It is no `date-time` here: clients would send their own form of dates.",
            json!({"type": "string"}),
        ),
        header(
            "traceparent",
            "W3C Trace Context; a malformed value is ignored.",
            json!({"type": "string"}),
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

fn outcome_operation() -> Value {
    let mut responses = responses(DOOR, &[400, 404, 503]);
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
        "description": "What became of a command that was sent earlier, by its id: as the log says.",
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
        "version": integer(0, "The stream's version after the command."),
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

fn answer_schemas() -> [(&'static str, Value); 5] {
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
    let command_id = text("The command's id.");
    let answer = json!({
        "type": "object",
        "description": "An accepted command.",
        "properties": with(json!({"repeated": &repeated})),
        "required": ["stream", "version", "position", "events", "repeated"],
    });
    let rejection = json!({
        "type": "object",
        "description": "Why a rule refused a command.",
        "properties": {
            "code": text("The stable code of the rule."),
            "detail": text("A sentence for people."),
            "facts": {"type": "object", "description": "The facts that explain the refusal.",
                      "additionalProperties": true},
        },
        "required": ["code", "detail"],
    });
    let event = object(
        "An event of an answer.",
        json!({
            "id": {"type": "string", "format": "uuid", "description": "The event's id."},
            "type": text("The name of the event's type."),
            "version": integer(1, "The stream's version with the event."),
        }),
    );
    let outcome = json!({
        "type": "object",
        "description": "The outcome of a command in the log: its events, or its rejection.",
        "properties": with(json!({
            "command_id": command_id,
            "outcome": {"type": "string", "enum": ["accepted", "rejected"],
                        "description": "What was decided."},
            "rejection": schema_ref("CommandRejection"),
        })),
        "required": ["stream", "command_id", "outcome", "version", "position"],
    });
    let line = json!({
        "type": "object",
        "description": "The outcome of one line. With status 200 it also has the members of \
                        `CommandAnswer`, otherwise those of `Problem`.",
        "properties": with(json!({
            "line_number": integer(1, "The number of the line, or of the command in the array."),
            "status": {"type": "integer", "format": "int32",
                       "description": "The status that the command alone would have."},
            "command_id": command_id,
            "repeated": repeated,
            "type": {"type": "string", "format": "uri-reference",
                     "description": "`urn:annals:problem:` followed by the code."},
            "title": text("The kind of problem, for people."),
            "detail": text("A sentence about this occurrence."),
            "instance": text("The path of the request."),
            "code": schema_ref("ProblemCode"),
            "correlation_id": text("The conversation."),
        })),
        "required": ["line_number", "status"],
        "additionalProperties": true,
    });
    [
        ("CommandAnswer", answer),
        ("EventReference", event),
        ("CommandOutcome", outcome),
        ("CommandRejection", rejection),
        ("AnswerLine", line),
    ]
}
