//! This door's part of the OpenAPI document, made from the declared read models.
//!
//! Invariant: each read model has its own paths with the schema of its rows; every status that can
//! occur is listed. Deliberately absent: components that both doors use ([`door::openapi`]).

use std::sync::Arc;

use door::PROBLEM_MEDIA_TYPE;
use door::header::TIMEOUT_MS_MAX;
use door::openapi::{Fragment, header_ref, parameter_ref, responses, schema_ref};
use kernel::registry::Registry;
use projector::{ColumnType, Null, Projection};
use serde_json::{Map, Value, json};

use super::freshness::STALE_FROM;
use super::parameters::{
    CURSOR_LENGTH_MAX, LIMIT_DEFAULT, LIMIT_MAX, POSITION_PATTERN, VERSION_MAX, WAIT_DEFAULT,
};
use super::rows::{ShownModel, shown_models};

/// The routes of this door, for the read models of `projections` and the streams of `registry`.
#[must_use]
pub fn fragment(projections: &[Arc<dyn Projection>], registry: &Registry) -> Fragment {
    let mut fragment = Fragment::default();
    fragment.tag("read models", "Rows made from the events.");
    fragment.tag(
        "streams",
        "The events and the state of a stream, from the log.",
    );
    fragment.operation("/v1/read", "get", models_operation());
    for shown in shown_models(projections) {
        let name = shown.model.name;
        let row = format!("{}Row", camel(name));
        fragment.schema(&row, row_schema(&shown));
        fragment.operation(
            &format!("/v1/read/{name}"),
            "get",
            page_operation(&shown, &row),
        );
        let path = format!("/v1/read/{name}/{{key}}");
        fragment.operation(&path, "get", one_operation(&shown, &row));
    }
    fragment.operation("/v1/streams/{stream}/events", "get", events_operation());
    fragment.operation(
        "/v1/streams/{stream}/state",
        "get",
        state_operation(registry),
    );
    fragment.schema("ReadModel", model_schema());
    fragment.schema("RecordedEvent", event_schema());
    fragment.header("Lag", lag_header());
    fragment.header("Stale", stale_header());
    fragment.header("ReadPosition", position_header());
    fragment
}

/// `order_summary` becomes `OrderSummary`.
fn camel(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    name.split('_').map(capital).collect()
}

fn position_schema() -> Value {
    json!({
        "type": "string",
        "description": "A position token.",
        "pattern": POSITION_PATTERN,
    })
}

fn nullable(mut schema: Value) -> Value {
    if let Some(name) = schema["type"].as_str() {
        schema["type"] = json!([name, "null"]);
    }
    schema
}

fn column_schema(column_type: ColumnType) -> Value {
    match column_type {
        ColumnType::Text => json!({"type": "string"}),
        ColumnType::Bigint | ColumnType::Numeric => json!({"type": "integer"}),
        ColumnType::Timestamptz => json!({"type": "string", "format": "date-time"}),
        ColumnType::Date => json!({"type": "string", "format": "date"}),
        ColumnType::Bytea => json!({"type": "string", "pattern": "^([0-9a-f]{2})*$"}),
    }
}

fn row_schema(shown: &ShownModel) -> Value {
    let mut properties = Map::new();
    for column in &shown.model.columns {
        let schema = column_schema(column.column_type);
        let mut schema = match column.null {
            Null::Never => schema,
            Null::Possible => nullable(schema),
        };
        schema["description"] = column.about.into();
        properties.insert(column.name.to_owned(), schema);
    }
    let required: Vec<&str> = shown.model.columns.iter().map(|c| c.name).collect();
    json!({
        "type": "object",
        "description": shown.model.about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The problems of a query that reads Postgres, including those of position tokens. "Not found"
/// means not found up to the place that the read model has reached; the answer says how far it is
/// behind.
fn problems(statuses: &[u16]) -> Map<String, Value> {
    let problem = |description: &str| {
        json!({
            "description": description,
            "headers": headers(),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema_ref("Problem")}},
        })
    };
    let mut all = responses(statuses);
    let absent = "What the path names does not exist, as far as the read model has read the log.";
    all.insert("404".to_owned(), problem(absent));
    let another_log = "The position token belongs to another log.";
    all.insert("409".to_owned(), problem(another_log));
    all
}

fn ok(description: &str, schema: Value) -> Value {
    let mut headers = headers();
    headers["Annals-Position"] = header_ref("ReadPosition");
    json!({
        "description": description,
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    })
}

/// The headers of every answer from a read model.
fn headers() -> Value {
    json!({
        "Annals-Correlation-Id": header_ref("CorrelationId"),
        "Annals-Lag": header_ref("Lag"),
        "Annals-Stale": header_ref("Stale"),
    })
}

fn lag_header() -> Value {
    json!({
        "description": "How long the oldest record that the read model lacks has been in the log, \
                        in seconds. The value may be some seconds old. It is 0 if no record is \
                        missing, and absent if it is not known.",
        "schema": {"type": "number", "minimum": 0},
    })
}

fn stale_header() -> Value {
    let about = format!(
        "Present if the answer may be out of date, even if it says that there is no row: \
         `stopped` if the read model stopped at something that it cannot take up, `behind` if its \
         lag is {} s or more.",
        STALE_FROM.as_secs()
    );
    json!({
        "description": about,
        "schema": {"type": "string", "enum": ["stopped", "behind"]},
    })
}

fn position_header() -> Value {
    json!({
        "description": "The position token of the place up to which the read model had read; \
                        absent if it has read nothing yet.",
        "schema": {"type": "string"},
    })
}

/// The parameters of every query: tenant, correlation, and what to wait for.
fn common_parameters() -> Vec<Value> {
    let about = "The position token from the answer to a command or a query. The query waits \
                 until the read model has reached this place.";
    let wait_ms = u64::try_from(WAIT_DEFAULT.as_millis()).unwrap_or(u64::MAX);
    vec![
        json!({"name": "min_position", "in": "query", "description": about,
               "schema": {"type": "string", "pattern": POSITION_PATTERN}}),
        json!({"name": "Annals-Min-Position", "in": "header", "description": about,
               "schema": {"type": "string", "pattern": POSITION_PATTERN}}),
        json!({"name": "Annals-Timeout-Ms", "in": "header",
               "description": "How long to wait for min_position, in milliseconds.",
               "schema": {"type": "integer", "minimum": 1, "maximum": TIMEOUT_MS_MAX,
                          "default": wait_ms}}),
        parameter_ref("Tenant"),
        parameter_ref("CorrelationId"),
    ]
}

fn limit_parameter(of: &str) -> Value {
    json!({"name": "limit", "in": "query", "description": format!("The most {of} in a page."),
           "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX,
                      "default": LIMIT_DEFAULT}})
}

fn models_operation() -> Value {
    let mut responses = responses(&[400]);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "The read models, ordered by name.",
            "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
            "content": {"application/json": {"schema": {
                "type": "object",
                "properties": {"models": {"type": "array", "items": schema_ref("ReadModel")}},
                "required": ["models"],
            }}},
        }),
    );
    json!({
        "operationId": "read_models",
        "tags": ["read models"],
        "summary": "The read models and their columns",
        "parameters": [parameter_ref("CorrelationId")],
        "responses": responses,
    })
}

fn page_operation(shown: &ShownModel, row: &str) -> Value {
    let mut parameters = vec![
        limit_parameter("rows"),
        json!({"name": "after", "in": "query",
               "description": "Where the page begins: the `next` of the page before. A value that \
                               is not a cursor of this read model is answered with 404.",
               "schema": {"type": "string", "minLength": 1, "maxLength": CURSOR_LENGTH_MAX}}),
    ];
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 503]);
    let page = json!({
        "type": "object",
        "properties": {
            "model": {"type": "string", "const": shown.model.name},
            "rows": {"type": "array", "items": schema_ref(row), "maxItems": LIMIT_MAX},
            "next": {"type": ["string", "null"],
                     "description": "The value of `after` for the next page; null on the last \
                                     page."},
            "position": nullable(position_schema()),
        },
        "required": ["model", "rows", "next", "position"],
    });
    let keys: Vec<&str> = shown.model.key.iter().map(|key| key.name).collect();
    let ordered = format!("Rows, ordered by {}.", keys.join(", "));
    responses.insert("200".to_owned(), ok(&ordered, page));
    json!({
        "operationId": format!("read_{}", shown.model.name),
        "tags": ["read models"],
        "summary": format!("Rows of {}", shown.model.name),
        "description": shown.model.about,
        "parameters": parameters,
        "responses": responses,
    })
}

fn one_operation(shown: &ShownModel, row: &str) -> Value {
    let keys: Vec<&str> = shown.model.key.iter().map(|key| key.name).collect();
    let mut parameters = vec![json!({
        "name": "key", "in": "path", "required": true,
        "description": format!(
            "{}. A value that cannot be a key is answered with 404.",
            keys.join(",")
        ),
        "schema": {"type": "string", "minLength": 1},
    })];
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 503]);
    responses.insert("200".to_owned(), ok("The row.", schema_ref(row)));
    json!({
        "operationId": format!("read_one_of_{}", shown.model.name),
        "tags": ["read models"],
        "summary": format!("One row of {}", shown.model.name),
        "description": shown.model.about,
        "parameters": parameters,
        "responses": responses,
    })
}

fn events_operation() -> Value {
    let mut parameters = vec![
        parameter_ref("Stream"),
        json!({"name": "from_version", "in": "query",
               "description": "The version of the first event.",
               "schema": {"type": "integer", "minimum": 1, "maximum": VERSION_MAX, "default": 1}}),
        limit_parameter("events"),
    ];
    parameters.extend(common_parameters());
    let page = json!({
        "type": "object",
        "properties": {
            "stream": {"type": "string"},
            "version": {"type": "integer", "minimum": 0,
                        "description": "The stream's version, as far as the index has read the \
                                        log."},
            "events": {"type": "array", "items": schema_ref("RecordedEvent"),
                       "maxItems": LIMIT_MAX},
            "next": {"type": ["integer", "null"], "minimum": 1,
                     "description": "The value of `from_version` for the next page; null on the \
                                     last page."},
            "position": nullable(position_schema()),
        },
        "required": ["stream", "version", "events", "next", "position"],
    });
    let mut responses = problems(&[400, 404, 503]);
    responses.insert("200".to_owned(), ok("Events, ordered by version.", page));
    json!({
        "operationId": "stream_events",
        "tags": ["streams"],
        "summary": "The events of a stream",
        "description": "The events are read from the log. Each record is checked against the hash \
                        that it had when it was indexed. A page ends early if its data grows \
                        large.",
        "parameters": parameters,
        "responses": responses,
    })
}

fn state_operation(registry: &Registry) -> Value {
    let mut parameters = vec![parameter_ref("Stream")];
    parameters.extend(common_parameters());
    let state = json!({
        "type": "object",
        "properties": {
            "stream": {"type": "string"},
            "version": {"type": "integer", "minimum": 0},
            "state": {"description": "The aggregate's state, in the aggregate's own form."},
            "position": nullable(position_schema()),
        },
        "required": ["stream", "version", "state", "position"],
    });
    let mut found = ok("The state after the last event.", state);
    found["headers"]["ETag"] = json!({
        "description": "The stream's version, for If-Match.",
        "required": true,
        "schema": {"type": "string", "pattern": "^\"[0-9]+\"$"},
    });
    let mut responses = problems(&[400, 404, 422, 503]);
    responses.insert("200".to_owned(), found);
    json!({
        "operationId": "stream_state",
        "tags": ["streams"],
        "summary": "The state that a stream's events fold to",
        "description": format!("For streams of these categories: {}.", registry.categories()),
        "parameters": parameters,
        "responses": responses,
    })
}

fn model_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "about": {"type": "string"},
            "key": {"type": "array", "items": {"type": "string"}},
            "columns": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "type": {"type": "string",
                             "enum": ["text", "bigint", "timestamptz", "date", "bytea"]},
                    "nullable": {"type": "boolean"},
                    "about": {"type": "string"},
                },
                "required": ["name", "type", "nullable", "about"],
            }},
        },
        "required": ["name", "about", "key", "columns"],
    })
}

fn event_schema() -> Value {
    json!({
        "type": "object",
        "description": "An event with its complete envelope.",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "type": {"type": "string"},
            "schema": {"type": "integer", "minimum": 1},
            "version": {"type": "integer", "minimum": 1},
            "occurred_at": {"type": "string", "format": "date-time"},
            "recorded_at": {"type": "string", "format": "date-time"},
            "data": {"description": "The event's data, in the shape of its type."},
            "command_id": {"type": "string"},
            "command": {"type": "string"},
            "correlation_id": {"type": "string"},
            "causation_id": {"type": "string"},
            "actor": {
                "type": ["object", "null"],
                "properties": {
                    "id": {"type": "string"},
                    "kind": {"type": "string", "enum": ["user", "service", "process", "import"]},
                },
                "required": ["id", "kind"],
            },
            "traceparent": {"type": ["string", "null"]},
            "position": nullable(position_schema()),
        },
        "required": ["id", "type", "schema", "version", "occurred_at", "recorded_at", "data",
                     "command_id", "command", "correlation_id", "causation_id", "actor",
                     "traceparent", "position"],
    })
}
