//! Assembles the OpenAPI 3.1 document of the doors that are served.
//!
//! Invariant: a fragment refers only to its own components and to the common ones made here.
//! Deliberately absent: any route but `/openapi.json` itself.

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, body::Bytes};
use serde_json::{Map, Value, json};

use crate::code::{self, Code};
use crate::extract::NoQuery;
use crate::header::{TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX};
use crate::problem::PROBLEM_MEDIA_TYPE;

/// The path of schemas in the document. A `SchemaGenerator` must be made with it.
pub const SCHEMAS_PATH: &str = "/components/schemas/";

/// A door's part of the document.
#[derive(Clone, Debug, Default)]
pub struct Fragment {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
    headers: Map<String, Value>,
    tags: Vec<Value>,
    codes: Vec<Code>,
}

impl Fragment {
    /// Names a group of operations.
    pub fn tag(&mut self, name: &str, description: &str) {
        self.tags
            .push(json!({"name": name, "description": description}));
    }

    /// Adds the codes of the door's problems, which the document lists with their meanings.
    pub fn codes(&mut self, codes: &[Code]) {
        self.codes.extend_from_slice(codes);
    }

    /// Adds an operation; `method` in lower case.
    pub fn operation(&mut self, path: &str, method: &str, operation: Value) {
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        item[method] = operation;
    }

    /// Adds a schema under its name.
    pub fn schema(&mut self, name: &str, schema: Value) {
        self.schemas.insert(name.to_owned(), schema);
    }

    /// Adds a response header under its name.
    pub fn header(&mut self, name: &str, header: Value) {
        self.headers.insert(name.to_owned(), header);
    }
}

/// A reference to a schema of the document.
#[must_use]
pub fn schema_ref(name: &str) -> Value {
    json!({"$ref": format!("#{SCHEMAS_PATH}{name}")})
}

/// A reference to a common parameter: `Stream`, `Tenant`, `CorrelationId`, `TimeoutMs`.
#[must_use]
pub fn parameter_ref(name: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

/// A reference to a response header: a common one (`CorrelationId`, `Position`, `RetryAfter`), or
/// one of the fragment.
#[must_use]
pub fn header_ref(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

/// The problem responses of these statuses (400, 404, 408, 412, 413, 415, 422, 503), and of those
/// that every operation can give: 403, 421, 431, 500, 503.
#[must_use]
pub fn responses(statuses: &[u16]) -> Map<String, Value> {
    statuses
        .iter()
        .chain(&[403, 421, 431, 500, 503])
        .map(|status| {
            let reference = format!("#/components/responses/Problem{status}");
            (status.to_string(), json!({"$ref": reference}))
        })
        .collect()
}

/// Merges fragments into one document.
#[must_use]
pub fn document(fragments: impl IntoIterator<Item = Fragment>) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::from_iter([("Problem".to_owned(), problem_schema())]);
    let mut headers = headers();
    let mut tags = Vec::new();
    let mut codes = code::ALL.to_vec();
    for fragment in fragments {
        for (path, item) in fragment.paths {
            let merged = paths.entry(path).or_insert_with(|| json!({}));
            for (method, operation) in item.as_object().into_iter().flatten() {
                merged[method] = operation.clone();
            }
        }
        schemas.extend(fragment.schemas);
        for (name, header) in fragment.headers {
            headers[name] = header;
        }
        tags.extend(fragment.tags);
        codes.extend(fragment.codes);
    }
    schemas.insert("ProblemCode".to_owned(), code_schema(&codes));
    json!({
        "openapi": "3.1.1",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Annals",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "An event-sourced engine: it takes commands, keeps chained events and \
                        fills read models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters(),
            "headers": headers,
            "responses": problem_responses(),
        },
    })
}

/// Serves the document at `/openapi.json`.
pub fn router(document: &Value) -> Router {
    let text = Bytes::from(document.to_string());
    let serve = move |_: NoQuery| {
        let text = text.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], text).into_response() }
    };
    Router::new().route("/openapi.json", get(serve))
}

/// The codes form an open set: the rules add their own.
fn code_schema(codes: &[Code]) -> Value {
    let mut description =
        "The stable name of the problem, for programs. A rejection has the code of its rule. The \
         other codes are:\n\n| code | status | meaning |\n|---|---|---|\n"
            .to_owned();
    for code in codes {
        let row = format!("| `{}` | {} | {} |\n", code.name, code.status, code.meaning);
        description.push_str(&row);
    }
    json!({"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "description": description})
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "A problem document (RFC 9457). A rejection has further members with its \
                        facts.",
        "properties": {
            "type": {"type": "string", "format": "uri-reference",
                     "description": "`urn:annals:problem:` followed by the code."},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "instance": {"type": "string"},
            "code": schema_ref("ProblemCode"),
            "correlation_id": {"type": "string"},
            "pointer": {"type": "string", "format": "json-pointer",
                        "description": "The place in the body (RFC 6901)."},
            "header": {"type": "string", "description": "The header that is malformed."},
            "command_id": {"type": "string"},
            "current_version": {"type": "integer", "minimum": 0},
            "expected_version": {"type": "integer", "minimum": 0},
            "retry_after_ms": {"type": "integer", "minimum": 0},
        },
        "required": ["type", "title", "status", "detail", "instance", "code", "correlation_id"],
        "examples": [{
            "type": "urn:annals:problem:order_not_placed",
            "title": "Order not placed",
            "status": 422,
            "detail": "the order was never placed",
            "instance": "/v1/streams/order-1/ShipOrder",
            "code": "order_not_placed",
            "correlation_id": "0198d8a2-6b3e-7c4e-9d52-0f3c5a1b2c3d",
        }],
    })
}

fn parameters() -> Value {
    let id_pattern = r"^[!#-\[\]-~]{1,255}$";
    json!({
        "Stream": {
            "name": "stream", "in": "path", "required": true,
            "description": "A stream's name: its category, a dash and its id.",
            "schema": {"type": "string", "pattern": r"^[a-z][a-z0-9_]{0,62}-[A-Za-z0-9._~-]{1,128}$"},
            "example": "order-1",
        },
        "Tenant": {
            "name": "Annals-Tenant", "in": "header",
            "description": "The tenant of the stream.",
            "schema": {"type": "string", "pattern": "^[a-z0-9-]{1,63}$", "default": "main"},
        },
        "CorrelationId": {
            "name": "Annals-Correlation-Id", "in": "header",
            "description": "The conversation that the request belongs to; the server makes up an \
                            id if it is absent.",
            "schema": {"type": "string", "pattern": id_pattern},
        },
        "TimeoutMs": {
            "name": "Annals-Timeout-Ms", "in": "header",
            "description": "How long the client waits for the answer, in milliseconds.",
            "schema": {"type": "integer", "minimum": 1, "maximum": TIMEOUT_MS_MAX,
                       "default": TIMEOUT_MS_DEFAULT},
        },
    })
}

fn headers() -> Value {
    json!({
        "CorrelationId": {
            "description": "The conversation that the request belongs to.",
            "required": true,
            "schema": {"type": "string"},
        },
        "Position": {
            "description": "A position token. A query with this token waits until the read model \
                            has reached this place.",
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
        },
        "RetryAfter": {
            "description": "How long to wait before another try, in seconds.",
            "schema": {"type": "integer", "minimum": 1},
        },
    })
}

fn problem_responses() -> Value {
    let mut responses = Map::new();
    for (status, description) in [
        (
            400,
            "A header, a parameter or a field of the body has the wrong shape. Not recorded.",
        ),
        (
            403,
            "The request comes from a page that this server did not serve. Nothing was attempted.",
        ),
        (404, "What the path names does not exist."),
        (
            408,
            "The body did not arrive in time. Nothing was attempted.",
        ),
        (
            412,
            "The stream does not have the expected version. Recorded as a refusal.",
        ),
        (
            413,
            "The body is too large, or the command would make the commit or the stream's state \
             too large.",
        ),
        (415, "The media type of the body is not supported."),
        (
            422,
            "A rule refused the command (recorded), or its id was used for another command (not \
             recorded).",
        ),
        (
            421,
            "The request names a host that is not this server. Nothing was attempted.",
        ),
        (
            500,
            "A bug of the server. The body gives no details; the server's own log does.",
        ),
        (
            503,
            "Not attempted, outcome unknown, not ready or not available: `code` says which.",
        ),
    ] {
        let mut headers = Map::new();
        headers.insert(
            "Annals-Correlation-Id".to_owned(),
            header_ref("CorrelationId"),
        );
        if status == 503 {
            headers.insert("Retry-After".to_owned(), header_ref("RetryAfter"));
        }
        let response = json!({
            "description": description,
            "headers": headers,
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema_ref("Problem")}},
        });
        responses.insert(format!("Problem{status}"), response);
    }
    // The HTTP library sends this answer itself, before any code of this crate sees the request.
    let description = "The request line and the headers together are longer than 16 KiB. Nothing \
                       was attempted. The answer has no body.";
    responses.insert("Problem431".to_owned(), json!({"description": description}));
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of a document that refers to nothing.
    fn dangling(document: &Value, at: &Value, found: &mut Vec<String>) {
        match at {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap_or("absent");
                    if document.pointer(pointer).is_none() {
                        found.push(reference.clone());
                    }
                }
                map.values()
                    .for_each(|value| dangling(document, value, found));
            }
            Value::Array(list) => list
                .iter()
                .for_each(|value| dangling(document, value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let mut fragment = Fragment::default();
        fragment.operation(
            "/x",
            "post",
            json!({"responses": responses(&[400, 404, 408, 412, 413, 415, 422, 503])}),
        );
        let document = document([fragment, crate::health::fragment()]);
        let mut found = Vec::new();
        dangling(&document, &document, &mut found);
        assert!(found.is_empty(), "{found:?}");
        assert!(document["paths"]["/readyz"]["get"].is_object());
    }
}
