//! One command as a line of a batch.
//!
//! Invariant: the line is parsed once, its data left as text for the aggregate; an unknown field is
//! an error. An optional field may also be null. Deliberately absent: where lines come from, and
//! what happens to them.

use door::{Problem, code};
use engine::command::Request;
use kernel::{
    Actor, CausationId, CommandId, CorrelationId, ShapeError, StreamName, TenantId, Timestamp,
    decode_json,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::headers::is_actor_id;

/// A command of a batch; only `stream`, `command` and `data` are required.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandLine {
    /// The tenant of the stream; `main` if absent.
    tenant: Option<TenantId>,
    /// The stream of the command.
    stream: StreamName,
    /// The name of the command's type.
    command: String,
    /// The client's name for this intent; if absent, the server makes up an id and returns it.
    id: Option<CommandId>,
    /// Business time; if absent, the time of the server's clock.
    occurred_at: Option<Timestamp>,
    /// The stream version that the client saw; 0 means no events yet.
    expected_version: Option<u64>,
    /// The schema version of the data; the current one if absent.
    #[schemars(range(min = 1))]
    schema: Option<u16>,
    /// The conversation; the command's own if left out.
    correlation_id: Option<CorrelationId>,
    /// The direct cause of the command.
    causation_id: Option<CausationId>,
    /// Who sends the command.
    actor: Option<Actor>,
    /// The command's data.
    #[schemars(with = "serde_json::Value")]
    data: Box<RawValue>,
}

/// Values that the request gives for all of its lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) correlation_id: Option<CorrelationId>,
    pub(crate) trace: Option<String>,
}

/// Reads a line.
///
/// # Errors
/// `json_invalid` or `shape_invalid`, with the pointer into the line.
pub(crate) fn read(text: &[u8], defaults: &Defaults) -> Result<Request, Problem> {
    let text = std::str::from_utf8(text)
        .map_err(|_| Problem::new(code::JSON_INVALID, "the line is not UTF-8"))?;
    let line: CommandLine = decode_json(text).map_err(|error| not_a_line(text, error))?;
    if line
        .actor
        .as_ref()
        .is_some_and(|actor| !is_actor_id(&actor.id))
    {
        let detail = "an actor's id is 1 to 255 characters without control characters";
        return Err(Problem::new(code::SHAPE_INVALID, detail).pointer("/actor/id"));
    }
    let made_up = || {
        Uuid::now_v7()
            .to_string()
            .parse()
            .expect("a UUID is a well-formed id")
    };
    Ok(Request {
        schema: line.schema,
        tenant: line.tenant.unwrap_or_default(),
        stream: line.stream,
        command: line.command.into(),
        id: line.id.unwrap_or_else(made_up),
        occurred_at: line.occurred_at,
        expected_version: line.expected_version,
        correlation_id: line
            .correlation_id
            .or_else(|| defaults.correlation_id.clone()),
        causation_id: line.causation_id,
        actor: line.actor,
        trace: defaults.trace.clone(),
        data: line.data,
    })
}

/// Distinguishes text that is not JSON from JSON of another shape.
fn not_a_line(text: &str, error: ShapeError) -> Problem {
    if let Err(syntax) = serde_json::from_str::<&RawValue>(text) {
        return Problem::new(code::JSON_INVALID, syntax.to_string());
    }
    match error {
        ShapeError::Data { pointer, detail } => {
            Problem::new(code::SHAPE_INVALID, detail).pointer(pointer)
        }
        other => Problem::new(code::SHAPE_INVALID, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Request, Problem> {
        read(text.as_bytes(), &Defaults::default())
    }

    #[track_caller]
    fn refused(text: &str, code: &str, pointer: &str) {
        let problem = check(text).unwrap_err();
        assert_eq!(problem.code(), code, "{text}: {problem:?}");
        let shown = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            shown["pointer"].as_str().unwrap_or("-"),
            pointer,
            "{text}: {shown}"
        );
    }

    #[test]
    fn only_stream_command_and_data_are_needed() {
        let request =
            check(r#"{"stream":"order-1","command":"ShipOrder","data":{"a" : 1}}"#).unwrap();
        assert_eq!(request.data.get(), r#"{"a" : 1}"#);
        assert_eq!((request.schema, request.tenant.is_main()), (None, true));
        assert_eq!(request.id.as_str().len(), 36);
        assert_eq!(
            (request.occurred_at, request.expected_version),
            (None, None)
        );
    }

    #[test]
    fn every_field_is_read() {
        let request = check(
            r#"{"tenant":"acme","stream":"order-1","command":"ShipOrder","id":"k1",
                "occurred_at":"2018-06-04T16:44:48Z","expected_version":3,"schema":2,
                "correlation_id":"c1","causation_id":"p1",
                "actor":{"id":"till \"7\"","kind":"service"},"data":null}"#,
        )
        .unwrap();
        assert_eq!(request.tenant.as_str(), "acme");
        assert_eq!((request.id.as_str(), request.schema), ("k1", Some(2)));
        assert_eq!(request.expected_version, Some(3));
        assert_eq!(request.correlation_id.unwrap().as_str(), "c1");
        assert_eq!(request.causation_id.unwrap().as_str(), "p1");
        assert_eq!(request.actor.unwrap().id, "till \"7\"");
        assert_eq!(request.data.get(), "null");
    }

    #[test]
    fn a_null_field_is_left_out() {
        let line = r#"{"stream":"order-1","command":"A","id":null,"actor":null,"data":{}}"#;
        assert!(check(line).unwrap().actor.is_none());
    }

    #[test]
    fn points_at_what_does_not_fit() {
        let deep = format!("{{\"stream\":{}1{}}}", "[".repeat(9_000), "]".repeat(9_000));
        for (text, code, pointer) in [
            ("", "json_invalid", "-"),
            ("{", "json_invalid", "-"),
            ("{}{}", "json_invalid", "-"),
            ("\u{feff}{}", "json_invalid", "-"),
            (r#"{"data":"\ud800"#, "json_invalid", "-"),
            ("[]", "shape_invalid", ""),
            ("7", "shape_invalid", ""),
            ("{}", "shape_invalid", ""),
            (&deep, "shape_invalid", "/stream"),
            (
                r#"{"stream":"order","command":"A","data":{}}"#,
                "shape_invalid",
                "/stream",
            ),
            (
                r#"{"stream":"order-a/b","command":"A","data":{}}"#,
                "shape_invalid",
                "/stream",
            ),
            (
                r#"{"stream":"order-ä","command":"A","data":{}}"#,
                "shape_invalid",
                "/stream",
            ),
            (
                r#"{"stream":"order-1","command":7,"data":{}}"#,
                "shape_invalid",
                "/command",
            ),
            (
                r#"{"stream":"order-1","command":"A","data":{},"x":1}"#,
                "shape_invalid",
                "/x",
            ),
            (
                r#"{"stream":"order-1","stream":"order-1"}"#,
                "shape_invalid",
                "",
            ),
            (r#"{"schema":99999}"#, "shape_invalid", "/schema"),
            (
                r#"{"expected_version":-1}"#,
                "shape_invalid",
                "/expected_version",
            ),
            (
                r#"{"expected_version":1e400}"#,
                "shape_invalid",
                "/expected_version",
            ),
            (r#"{"occurred_at":"now"}"#, "shape_invalid", "/occurred_at"),
            (
                r#"{"actor":{"id":"x","kind":"robot"}}"#,
                "shape_invalid",
                "/actor/kind",
            ),
            (
                r#"{"stream":"order-1","command":"A","actor":{"id":"","kind":"user"},"data":{}}"#,
                "shape_invalid",
                "/actor/id",
            ),
        ] {
            refused(text, code, pointer);
        }
        let problem = read(b"{\"stream\":\"\xff\"}", &Defaults::default()).unwrap_err();
        assert_eq!(problem.code(), "json_invalid");
    }
}
