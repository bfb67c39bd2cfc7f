//! Assembles the OpenAPI 3.1 document of the doors that are served.
//!
//! Invariants: a fragment refers only to its own components and to the common ones made here; no
//! type of a domain takes the place of a schema of ours. Deliberately absent: any route but
//! `/openapi.json` itself.

mod names;

use std::collections::BTreeMap;

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, body::Bytes};
use kernel::registry::{Registry, definitions_of};
use kernel::schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::Program;
use crate::code::{self, Code};
use crate::extract::NoQuery;
use crate::header::{TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX};
use crate::problem::PROBLEM_MEDIA_TYPE;
use crate::tag;
use names::{name_references, place};

/// The path of our schemas in the document. A `SchemaGenerator` for them must be made with it.
pub const SCHEMAS_PATH: &str = "/components/schemas/";
/// The path of a domain's types until [`document`] moves them to our schemas.
pub const DOMAIN_PATH: &str = "/components/domain/";

/// The path of schemas that are named after something of a domain, until [`document`] moves them.
const DERIVED_PATH: &str = "/components/derived/";

/// A door's part of the document.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// The name of the door, with which the names of its problem responses begin.
    door: &'static str,
    /// The codes of the door's problems, besides those of every door.
    codes: &'static [Code],
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
    derived: Map<String, Value>,
    headers: Map<String, Value>,
    tags: Vec<Value>,
}

impl Fragment {
    /// The part of a door with these codes, which the document lists with their meanings.
    #[must_use]
    pub fn of(door: &'static str, codes: &'static [Code]) -> Self {
        Self {
            door,
            codes,
            paths: Map::new(),
            schemas: Map::new(),
            derived: Map::new(),
            headers: Map::new(),
            tags: Vec::new(),
        }
    }

    /// Names a group of operations.
    pub fn tag(&mut self, name: &str, description: &str) {
        self.tags
            .push(json!({"name": name, "description": description}));
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

    /// Adds a schema that is named after something of a domain; [`derived_ref`] refers to it.
    pub fn derived_schema(&mut self, name: &str, schema: Value) {
        self.derived.insert(name.to_owned(), schema);
    }

    /// Adds the text by which a choice tells its form `of` from the others, and refers to it.
    ///
    /// The text has a schema of its own, because OpenAPI Generator for Go compares the values of named
    /// schemas only. It makes a constant of the value, which needs a name that nothing else has.
    pub fn mark(&mut self, of: &str, member: &str, value: &str, description: &str) -> Value {
        let (name, member) = (format!("{of}{}", camel(member)), camel(member));
        let mut mark = one_text(value, description);
        mark["x-enum-varnames"] = json!([format!("{member}Of{of}")]);
        self.derived_schema(&name, mark);
        derived_ref(&name)
    }

    /// Adds a response header under its name.
    pub fn header(&mut self, name: &str, header: Value) {
        self.headers.insert(name.to_owned(), header);
    }
}

/// The generator of the schemas of a domain's types. All fragments of a document use the same one,
/// so that two types with the same name get two names.
#[must_use]
pub fn domain_generator() -> SchemaGenerator {
    Registry::schema_generator(DOMAIN_PATH)
}

/// A reference to a schema of the document.
#[must_use]
pub fn schema_ref(name: &str) -> Value {
    json!({"$ref": format!("#{SCHEMAS_PATH}{name}")})
}

/// A reference to a schema that is named after something of a domain.
#[must_use]
pub fn derived_ref(name: &str) -> Value {
    json!({"$ref": format!("#{DERIVED_PATH}{name}")})
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

/// The schema of a value that may be null.
#[must_use]
pub fn nullable(schema: &Value) -> Value {
    match schema.get("type").and_then(Value::as_str) {
        Some(one) => {
            let mut schema = schema.clone();
            schema["type"] = json!([one, "null"]);
            schema
        }
        // Anything, null included.
        None if *schema == json!({}) => schema.clone(),
        None => json!({"anyOf": [schema, {"type": "null"}]}),
    }
}

/// The schema of an integer from `minimum` on, wide enough for every version and count.
#[must_use]
pub fn integer(minimum: u64, description: &str) -> Value {
    json!({"type": "integer", "format": "int64", "minimum": minimum, "description": description})
}

/// The schema of a text that is always this one.
#[must_use]
pub fn one_text(value: &str, description: &str) -> Value {
    json!({"type": "string", "enum": [value], "description": description})
}

/// These names, each with its category before it if two categories have it.
pub fn distinct<'a>(
    named: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> impl Iterator<Item = String> {
    let mut uses = BTreeMap::<&str, usize>::new();
    for (_, name) in named.clone() {
        *uses.entry(name).or_default() += 1;
    }
    named.map(move |(category, name)| match uses[name] {
        1 => name.to_owned(),
        _ => format!("{}{name}", camel(category)),
    })
}

/// `order_summary` becomes `OrderSummary`.
#[must_use]
pub fn camel(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    name.split('_').map(capital).collect()
}

/// The schema of a text.
#[must_use]
pub fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

/// The schema of an object that always has all of its properties.
#[must_use]
pub fn object(description: &str, properties: Value) -> Value {
    let names = properties.as_object().into_iter().flatten();
    let names: Vec<&String> = names.map(|(name, _)| name).collect();
    let mut schema = json!({"type": "object", "description": description, "required": names});
    schema["properties"] = properties;
    schema
}

/// A door's problem responses of these statuses (400, 404, 408, 410, 412, 413, 415, 422, 503), and of
/// those that every operation can give: 403, 421, 431, 500, 503.
#[must_use]
pub fn responses(door: &str, statuses: &[u16]) -> Map<String, Value> {
    statuses
        .iter()
        .chain(&[403, 421, 431, 500, 503])
        .map(|status| {
            let reference = format!("#/components/responses/{door}Problem{status}");
            (status.to_string(), json!({"$ref": reference}))
        })
        .collect()
}

/// Merges fragments into the document of a program, with the types of `domain` to which they refer, under names
/// that no schema of ours has.
#[must_use]
pub fn document(
    program: &Program,
    fragments: impl IntoIterator<Item = Fragment>,
    domain: SchemaGenerator,
) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::from_iter([("Problem".to_owned(), problem_schema())]);
    let mut headers = headers();
    let mut tags = Vec::new();
    let (mut problems, mut derived) = (Map::new(), Map::new());
    let mut codes = code::ALL.to_vec();
    for fragment in fragments {
        problems.extend(problem_responses(fragment.door, fragment.codes));
        for (path, item) in fragment.paths {
            let merged = paths.entry(path).or_insert_with(|| json!({}));
            for (method, operation) in item.as_object().into_iter().flatten() {
                merged[method] = operation.clone();
            }
        }
        schemas.extend(fragment.schemas);
        derived.extend(fragment.derived);
        for (name, header) in fragment.headers {
            headers[name] = header;
        }
        tags.extend(fragment.tags);
        codes.extend(fragment.codes);
    }
    schemas.insert("ProblemCode".to_owned(), code_schema(&codes));
    let used = Value::Object(paths.clone()).to_string();
    problems.retain(|name, _| used.contains(&format!("\"#/components/responses/{name}\"")));
    let domain = definitions_of(domain).into_iter();
    let domain = domain.map(|(name, schema)| (name, schema.to_value()));
    let mut names = place(DOMAIN_PATH, domain.collect(), &mut schemas);
    names.extend(place(DERIVED_PATH, derived, &mut schemas));
    let mut document = json!({
        "openapi": "3.1.1",
        "info": {
            "title": program.title,
            "version": program.version,
            "summary": "An event-sourced engine: it takes commands, keeps chained events and \
                        fills read models.",
            "description": ABOUT,
            "contact": {"name": "The operator of this server"},
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This server."}],
        // Nothing is authenticated yet.
        "security": [],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters(),
            "headers": headers,
            "responses": problems,
        },
    });
    name_references(&mut document, &names);
    document
}

/// What a reader of the document should know before any operation.
const ABOUT: &str = "\
Send a command with `POST /v1/streams/{stream}/{command}`; the answer says what the log says. Send it \
with an `Idempotency-Key`, so that it can be sent again without counting twice. The answer has a \
position token: pass it to a query as `min_position`, and the query waits until the read model has \
reached your write. Every error is a problem document (RFC 9457) with a stable `code`.

Every resource with `GET` has `HEAD`, and every one has `OPTIONS`, which lists its methods in `Allow`. A \
slash at the end of a path changes nothing. Answers from 1 KiB on are compressed with gzip if \
`Accept-Encoding` allows it; streamed ones are not. HTTP/1.1 only.";

/// Serves the document at `/openapi.json`.
pub fn router(document: &Value) -> Router {
    let body = Bytes::from(document.to_string());
    let serve = move |_: NoQuery| {
        let body = body.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], body).into_response() }
    };
    tag::of_documents(Router::new().route("/openapi.json", get(serve)))
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
            "title": text("The kind of problem, for people."),
            "status": {"type": "integer", "format": "int32", "minimum": 400, "maximum": 599,
                       "description": "The HTTP status."},
            "detail": text("A sentence about this occurrence."),
            "instance": text("The path of the request."),
            "code": schema_ref("ProblemCode"),
            "correlation_id": text("The conversation; the server's log has it, too."),
            "pointer": {"type": "string", "format": "json-pointer",
                        "description": "The place in the body (RFC 6901)."},
            "header": text("The header that is malformed."),
            "parameter": text("The parameter that is malformed."),
            "command_id": text("The id of the command."),
            "current_version": integer(0, "The stream's version."),
            "expected_version": integer(0, "The version that the client expected."),
            "retry_after_ms": integer(0, "How long to wait before another try, in milliseconds."),
        },
        "required": ["type", "title", "status", "detail", "instance", "code", "correlation_id"],
        "additionalProperties": true,
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
            "schema": {"type": "integer", "format": "int64", "minimum": 1,
                       "maximum": TIMEOUT_MS_MAX, "default": TIMEOUT_MS_DEFAULT},
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
        "Link": {
            "description": "Links to what belongs to this answer (RFC 8288); `rel=\"next\"` is the next \
                            page.",
            "schema": {"type": "string"},
        },
        "RetryAfter": {
            "description": "How long to wait before another try, in seconds.",
            "schema": {"type": "integer", "format": "int64", "minimum": 1},
        },
    })
}

/// What a status means, and with which codes a door gives it.
#[must_use]
pub fn with_codes(description: &str, status: u16, codes: &[Code]) -> String {
    let all = code::ALL.iter().chain(codes);
    let names = all
        .filter(|code| code.status == status)
        .map(|code| code.name);
    match names.collect::<Vec<_>>().join("`, `") {
        names if names.is_empty() => description.to_owned(),
        names => format!("{description} Codes: `{names}`."),
    }
}

/// The headers of a problem response.
#[must_use]
pub fn problem_headers(status: u16) -> Map<String, Value> {
    let mut headers = Map::new();
    let correlation = "Annals-Correlation-Id".to_owned();
    headers.insert(correlation, header_ref("CorrelationId"));
    if status == 503 {
        headers.insert("Retry-After".to_owned(), header_ref("RetryAfter"));
    }
    headers
}

fn problem_responses(door: &str, codes: &[Code]) -> Map<String, Value> {
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
        (410, "What the request continues is gone: begin anew."),
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
        let response = json!({
            "description": with_codes(description, status, codes),
            "headers": problem_headers(status),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema_ref("Problem")}},
        });
        responses.insert(format!("{door}Problem{status}"), response);
    }
    // The HTTP library sends this answer itself, before any code of this crate sees the request.
    let description = "The request line and the headers together are longer than 16 KiB. Nothing \
                       was attempted. The answer has no body.";
    let response = json!({"description": description});
    responses.insert(format!("{door}Problem431"), response);
    responses
}

#[cfg(test)]
mod tests {
    use kernel::schemars::JsonSchema;

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
        let mut fragment = Fragment::of("X", &[]);
        fragment.operation(
            "/x",
            "post",
            json!({"responses": responses("X", &[400, 404, 408, 410, 412, 413, 415, 422, 503])}),
        );
        let document = document(
            &Program::annals(),
            [fragment, crate::health::fragment()],
            domain_generator(),
        );
        let mut found = Vec::new();
        dangling(&document, &document, &mut found);
        assert!(found.is_empty(), "{found:?}");
        assert!(document["paths"]["/readyz"]["get"].is_object());
    }

    /// A type of a domain with the name of one of ours.
    #[derive(JsonSchema)]
    #[schemars(crate = "kernel::schemars")]
    struct Problem {
        #[allow(dead_code, reason = "only its schema is used")]
        of: Order,
    }

    /// An order.
    #[derive(JsonSchema)]
    #[schemars(crate = "kernel::schemars")]
    struct Order {}

    /// A type of its own.
    #[derive(JsonSchema)]
    #[schemars(crate = "kernel::schemars")]
    struct DomainProblem {}

    #[test]
    fn a_domains_type_takes_the_place_of_none_of_ours() {
        let mut fragment = Fragment::of("X", &[]);
        let mut domain = domain_generator();
        domain.subschema_for::<DomainProblem>();
        let body = json!({"schema": domain.subschema_for::<Problem>().to_value()});
        fragment.operation("/x", "post", json!({"requestBody": body}));
        let document = document(&Program::annals(), [fragment], domain);
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["Problem"], problem_schema(), "it is ours");
        let own = schema_ref("DomainDomainProblem");
        assert_eq!(
            document["paths"]["/x"]["post"]["requestBody"]["schema"],
            own
        );
        assert_eq!(
            schemas["DomainProblem"]["description"],
            "A type of its own."
        );
        let of = &schemas["DomainDomainProblem"]["properties"]["of"];
        assert_eq!(*of, schema_ref("Order"), "a name that is free stays");
    }

    #[test]
    fn an_event_with_the_name_of_one_of_ours_takes_the_place_of_none() {
        let mut fragment = Fragment::of("X", &[]);
        fragment.schema(
            "RecordedEvent",
            json!({"anyOf": [derived_ref("RecordedEvent")]}),
        );
        fragment.derived_schema("RecordedEvent", json!({"title": "of the type Recorded"}));
        let document = document(&Program::annals(), [fragment], domain_generator());
        let schemas = &document["components"]["schemas"];
        let own = schema_ref("DomainRecordedEvent");
        assert_eq!(schemas["RecordedEvent"], json!({"anyOf": [own]}));
        assert_eq!(
            schemas["DomainRecordedEvent"]["title"],
            "of the type Recorded"
        );
    }
}
