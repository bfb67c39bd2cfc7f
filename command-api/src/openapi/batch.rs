//! The batch route in the OpenAPI document.
//!
//! Invariant: the example is a batch that the server takes as it stands. Deliberately absent: the form of
//! a line, which follows from its type.

use door::openapi::{header_ref, parameter_ref, responses, schema_ref};
use kernel::registry::Registry;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::{DOOR, definition, needs_no_members};
use crate::batch::{ARRAY_COMMANDS_MAX, MEDIA_TYPE};

/// A command of each category, as a line: the first one that has an example or needs no members.
pub(super) fn examples(registry: &Registry, generator: &mut SchemaGenerator) -> Vec<Value> {
    let mut lines = Vec::new();
    for aggregate in registry.iter() {
        let stream = format!("{}-1", aggregate.category());
        let commands = aggregate.command_types(generator);
        lines.extend(commands.into_iter().find_map(|command| {
            let schema = definition(generator, command.schema.as_value())?;
            let data = match schema["examples"].get(0) {
                Some(example) => example.clone(),
                None if needs_no_members(&schema) => json!({}),
                None => return None,
            };
            Some(json!({"stream": stream, "command": command.name, "data": data}))
        }));
    }
    lines
}

/// The operation that sends many commands.
pub(super) fn operation(examples: &[Value]) -> Value {
    let mut responses = responses(DOOR, &[400, 408, 413, 415]);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "One `AnswerLine` for each command, in the order of the commands. Answers \
                            to lines begin while the client still sends.",
            "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
            "content": {
                "application/json": {"schema": {"type": "array", "items": schema_ref("AnswerLine")}},
                MEDIA_TYPE: {"schema": {"type": "string"}},
            },
        }),
    );
    let mut operation = json!({
        "operationId": "submit_commands",
        "tags": ["commands"],
        "summary": "Many commands, as a JSON array or as NDJSON",
        "description": "Each command is a `CommandLine` with its own outcome: a batch is not atomic. \
                        An array may have 1,000 commands and 256 KiB; there may be any number of \
                        lines, each of at most 256 KiB. An unreadable line does not affect other \
                        lines; an array that is not JSON is refused whole. Commands for one stream \
                        are decided in the order of their lines. After a command without an \
                        answer (503), later commands for the same stream are not attempted. \
                        `Annals-Timeout-Ms` applies to each line. `Annals-Correlation-Id` applies \
                        to lines without a `correlation_id`, and `traceparent` to all lines.",
        "parameters": [parameter_ref("CorrelationId"), parameter_ref("TimeoutMs")],
        "requestBody": {
            "required": true,
            "content": {
                "application/json": {"schema": {
                    "type": "array", "items": schema_ref("CommandLine"),
                    "maxItems": ARRAY_COMMANDS_MAX,
                }},
                MEDIA_TYPE: {"schema": {"type": "string"}},
            },
        },
        "responses": responses,
    });
    if !examples.is_empty() {
        let content = &mut operation["requestBody"]["content"];
        content["application/json"]["example"] = examples.into();
        let lines: String = examples.iter().map(|line| format!("{line}\n")).collect();
        content[MEDIA_TYPE]["example"] = lines.into();
    }
    operation
}
