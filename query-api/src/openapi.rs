//! This door's part of the OpenAPI document, made from the declared read models.
//!
//! Invariant: each read model has its own paths with the schema of its rows; every status that can
//! occur is listed. Deliberately absent: components that both doors use ([`door::openapi`]).

mod feed;
mod life;
mod story;
mod streams;
mod why;

use std::sync::Arc;

use door::PROBLEM_MEDIA_TYPE;
use door::header::TIMEOUT_MS_MAX;
use door::openapi::{
    Fragment, camel, header_ref, integer, nullable, object, parameter_ref, responses, schema_ref,
    text, with_codes,
};
use kernel::registry::Registry;
use kernel::schemars::SchemaGenerator;
use projector::{ColumnType, Null, Projection};
use serde_json::{Map, Value, json};

use super::asked::IN_VALUES_MAX;
use super::code;
use super::format::Format;
use super::freshness::STALE_FROM;
use super::offered::Operator;
use super::parameters::{LIMIT_DEFAULT, LIMIT_MAX, POSITION_PATTERN, WAIT_DEFAULT};
use super::shown::{ShownModel, shown_models};
use super::statement::COUNT_MAX;

/// The name of this door in the document.
const DOOR: &str = "Query";

/// The routes of this door, for the read models of `projections` and the streams of `registry`.
/// `domain` makes the schemas of their types ([`door::openapi::domain_generator`]).
#[must_use]
pub fn fragment(
    projections: &[Arc<dyn Projection>],
    registry: &Registry,
    domain: &mut SchemaGenerator,
) -> Fragment {
    let mut fragment = Fragment::of(DOOR, code::ALL);
    fragment.tag("read models", "Rows made from the events.");
    fragment.operation("/v1/read", "get", models_operation());
    for shown in shown_models(projections) {
        let name = shown.model.name;
        let (row, page) = (
            format!("{}Row", camel(name)),
            format!("{}Page", camel(name)),
        );
        fragment.schema(&row, row_schema(&shown));
        fragment.schema(&page, page_schema(&shown, &row));
        fragment.operation(
            &format!("/v1/read/{name}"),
            "get",
            page_operation(&shown, &page),
        );
        let path = format!("/v1/read/{name}/{{key}}");
        fragment.operation(&path, "get", one_operation(&shown, &row));
        let path = format!("/v1/read/{name}/{{key}}/why");
        fragment.operation(&path, "get", why::operation(&shown));
    }
    why::describe(&mut fragment);
    feed::describe(&mut fragment);
    streams::describe(&mut fragment, registry, domain);
    story::describe(&mut fragment);
    fragment.schema("ReadModels", models_schema());
    fragment.schema("ReadModel", model_schema());
    fragment.schema("Column", read_column_schema());
    fragment.header("Lag", lag_header());
    fragment.header("Stale", stale_header());
    fragment.header("Parked", parked_header());
    fragment.header("ReadPosition", position_header());
    fragment.header("PreferenceApplied", applied_header());
    fragment
}

/// What the tag of rows stands for.
const ROWS_TAG: &str = "Stands for the version of the rows and all that was asked.";
const ROWS_TAG_PATTERN: &str = "^\"[0-9a-f]{24}(-gzip)?\"$";

fn position_schema() -> Value {
    json!({
        "type": "string",
        "description": "A position token.",
        "pattern": POSITION_PATTERN,
    })
}

fn column_schema(column_type: ColumnType) -> Value {
    match column_type {
        ColumnType::Text => json!({"type": "string"}),
        ColumnType::Bigint => json!({"type": "integer", "format": "int64"}),
        ColumnType::Numeric => json!({"type": "integer"}),
        ColumnType::Decimal { scale } => {
            let pattern = match scale {
                0 => "^-?[0-9]+$".to_owned(),
                scale => format!("^-?[0-9]+\\.[0-9]{{{scale}}}$"),
            };
            json!({"type": "string", "pattern": pattern})
        }
        ColumnType::Double => json!({"type": "number", "format": "double"}),
        ColumnType::Boolean => json!({"type": "boolean"}),
        ColumnType::Uuid => json!({"type": "string", "format": "uuid"}),
        ColumnType::Timestamptz => json!({"type": "string", "format": "date-time"}),
        ColumnType::Date => json!({"type": "string", "format": "date"}),
        ColumnType::Bytea => json!({"type": "string", "pattern": "^([0-9a-f]{2})*$"}),
        // Any JSON.
        ColumnType::Jsonb => json!({}),
        ColumnType::TextArray => json!({"type": "array", "items": {"type": "string"}}),
    }
}

fn row_schema(shown: &ShownModel) -> Value {
    let mut properties = Map::new();
    for column in &shown.model.columns {
        let schema = column_schema(column.column_type);
        let mut schema = match column.null {
            Null::Never => schema,
            Null::Possible => nullable(&schema),
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
    let problem = |status: u16, description: &str| {
        json!({
            "description": with_codes(description, status, code::ALL),
            "headers": headers(),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema_ref("Problem")}},
        })
    };
    let mut all = responses(DOOR, statuses);
    let absent = "What the path names does not exist, as far as the read model has read the log.";
    all.insert("404".to_owned(), problem(404, absent));
    let another_log = "The position token belongs to another log.";
    all.insert("409".to_owned(), problem(409, another_log));
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
        "Annals-Parked": header_ref("Parked"),
        "Annals-Stale": header_ref("Stale"),
        "Preference-Applied": header_ref("PreferenceApplied"),
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

fn parked_header() -> Value {
    json!({
        "description": "How many streams of the tenant the read model has parked, because it cannot \
                        take up one of their events; absent if none. What they contribute is missing \
                        in rows that many streams share. A query for the own row of a parked \
                        stream is 503 `parked`; lists and exports show that row as it was before.",
        "schema": {"type": "integer", "minimum": 1},
    })
}

fn applied_header() -> Value {
    json!({
        "description": "`wait=N` if the request waited for a position, and its `Prefer` said for how \
                        long.",
        "schema": {"type": "string"},
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
               "schema": {"type": "integer", "format": "int64", "minimum": 1,
                          "maximum": TIMEOUT_MS_MAX, "default": wait_ms}}),
        json!({"name": "Prefer", "in": "header",
               "description": "`wait=N`: how long to wait for min_position, in seconds (RFC 7240); \
                               the answer says with `Preference-Applied` that it counted. The \
                               shorter of this time and that of `Annals-Timeout-Ms` counts.",
               "schema": {"type": "string"}}),
        parameter_ref("Tenant"),
        parameter_ref("CorrelationId"),
    ]
}

/// The parameter by which a client says what it has.
fn known_parameter() -> Value {
    json!({"name": "If-None-Match", "in": "header",
           "description": "The `ETag` of an earlier answer: if nothing has changed since, the answer \
                           is 304, without content.",
           "schema": {"type": "string"}})
}

/// Adds to an operation's responses that its answer has a tag, and that a client may have it.
fn tag(responses: &mut Map<String, Value>, description: &str, pattern: &str) {
    let mut unchanged = headers();
    unchanged["Annals-Position"] = header_ref("ReadPosition");
    responses.insert(
        "304".to_owned(),
        json!({"description": "The client has the current content: `If-None-Match` names it.",
               "headers": unchanged}),
    );
    for status in ["200", "304"] {
        let headers = &mut responses[status]["headers"];
        headers["ETag"] = json!({
            "description": description,
            "required": true,
            "schema": {"type": "string", "pattern": pattern},
        });
        headers["Cache-Control"] = json!({
            "description": "The answer may be kept, and must be asked for again before each use.",
            "schema": {"type": "string", "enum": ["no-cache"]},
        });
    }
}

fn limit_parameter(of: &str) -> Value {
    json!({"name": "limit", "in": "query", "description": format!("The most {of} in a page."),
           "schema": {"type": "integer", "format": "int32", "minimum": 1, "maximum": LIMIT_MAX,
                      "default": LIMIT_DEFAULT}})
}

fn models_operation() -> Value {
    let mut responses = responses(DOOR, &[400]);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "The read models, ordered by name.",
            "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
            "content": {"application/json": {"schema": schema_ref("ReadModels")}},
        }),
    );
    json!({
        "operationId": "read_models",
        "tags": ["read models"],
        "summary": "The read models and their columns",
        "description": "What can be read here, and what each column means.",
        "parameters": [parameter_ref("CorrelationId")],
        "responses": responses,
    })
}

fn page_schema(shown: &ShownModel, row: &str) -> Value {
    object(
        &format!("A page of {}.", shown.model.name),
        json!({
            "model": {"type": "string", "enum": [shown.model.name],
                      "description": "The read model."},
            "rows": {"type": "array", "items": schema_ref(row), "maxItems": LIMIT_MAX,
                     "description": "The rows, in the order that was asked for."},
            "next": {"type": ["string", "null"],
                     "description": "The value of `after` for the next page; null on the last \
                                     page."},
            "count": {"type": ["object", "null"], "required": ["complete", "rows"],
                      "description": "How many rows the filters leave, on all pages; null if \
                                      `count` was not asked for.",
                      "properties": {
                          "rows": integer(0, "The number of rows, as far as they were counted."),
                          "complete": {"type": "boolean",
                                       "description": format!(
                                           "Whether these are all; false if there are more than \
                                            {COUNT_MAX}.")},
                      }},
            "position": nullable(&position_schema()),
        }),
    )
}

/// The parameters that filter a read model, typed by their columns.
fn filter_parameters(shown: &ShownModel) -> Vec<Value> {
    let filters = shown.offered.filters.iter();
    let all = filters.flat_map(|(at, operators)| {
        let column = &shown.model.columns[*at];
        operators.iter().map(|operator| {
            let schema = column_schema(column.column_type);
            let (about, schema) = match operator {
                Operator::Equal => ("Rows with this value", schema),
                Operator::AtLeast => ("Rows with at least this value", schema),
                Operator::Above => ("Rows with a greater value", schema),
                Operator::AtMost => ("Rows with at most this value", schema),
                Operator::Below => ("Rows with a smaller value", schema),
                Operator::Prefix => ("Rows with a text that begins so", schema),
                Operator::In => (
                    "Rows with one of these values: the parameter stands once for each",
                    json!({"type": "array", "items": schema, "maxItems": IN_VALUES_MAX}),
                ),
                Operator::Null => (
                    "Rows without a value (true), or with any (false)",
                    json!({"type": "boolean"}),
                ),
            };
            let about = format!("{about}, in the column {}. {}", column.name, column.about);
            json!({"name": operator.parameter(column.name), "in": "query", "description": about,
                   "schema": schema})
        })
    });
    all.collect()
}

fn sort_parameter(shown: &ShownModel) -> Value {
    let names = shown
        .offered
        .sorts
        .iter()
        .map(|at| shown.model.columns[*at].name);
    let both = names.flat_map(|name| [name.to_owned(), format!("-{name}")]);
    let both: Vec<String> = both.collect();
    json!({"name": "sort", "in": "query", "style": "form", "explode": false,
           "description": "The order of the rows: columns, separated by commas, with a minus before \
                           those that go down. Null counts as the greatest value. Rows that are \
                           equal in these columns come in the order of the key.",
           "schema": {"type": "array", "items": {"type": "string", "enum": both},
                      "minItems": 1}})
}

fn page_operation(shown: &ShownModel, page: &str) -> Value {
    let mut parameters = vec![
        limit_parameter("rows"),
        json!({"name": "after", "in": "query",
               "description": "Where the page begins: the `next` of the page before. A value that \
                               is not a cursor of this read model is answered with 404.",
               "schema": {"type": "string", "minLength": 1, "maxLength": shown.cursor_length_max}}),
        sort_parameter(shown),
        json!({"name": "format", "in": "query",
               "description": "The form of the answer; `Accept` decides if it is absent. `csv` is \
                               for spreadsheets: null is an empty cell, and a text that would be \
                               computed begins with an apostrophe. `csv` and `ndjson` without \
                               `limit` are all rows as one stream; if it breaks off, the connection \
                               is cut.",
               "schema": {"type": "string", "enum": ["json", "csv", "ndjson"]}}),
        json!({"name": "count", "in": "query",
               "description": "Whether the rows on all pages are counted, too.",
               "schema": {"type": "boolean", "default": false}}),
    ];
    parameters.extend(filter_parameters(shown));
    parameters.push(as_of_parameter());
    parameters.push(known_parameter());
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 410, 422, 503]);
    let keys: Vec<&str> = shown.model.key.iter().map(|key| key.name).collect();
    let ordered = format!(
        "Rows, ordered by {} unless `sort` says otherwise.",
        keys.join(", ")
    );
    let mut found = ok(&ordered, schema_ref(page));
    found["headers"]["Link"] = header_ref("Link");
    past_headers(&mut found);
    for (format, about) in [
        (
            Format::Csv,
            "A line with the names of the columns, and a line for each row.",
        ),
        (Format::Ndjson, "A row as JSON on each line."),
    ] {
        found["content"][format.media_type()] = json!({"schema": text(about)});
    }
    responses.insert("200".to_owned(), found);
    tag(&mut responses, ROWS_TAG, ROWS_TAG_PATTERN);
    json!({
        "operationId": format!("read_{}", shown.model.name),
        "tags": ["read models"],
        "summary": format!("Rows of {}", shown.model.name),
        "description": shown.model.about,
        "parameters": parameters,
        "responses": responses,
    })
}

/// The parameter by which a client asks for the past.
fn as_of_parameter() -> Value {
    json!({"name": "as_of", "in": "query",
           "description": "Shows the rows as they were: as of a time of recording (RFC 3339) or a \
                           position token. The answer is what a replay of the log up to there gives. \
                           A read model without a history answers with 409.",
           "schema": {"type": "string", "format": "date-time"}})
}

/// The headers of an answer from the past.
fn past_headers(found: &mut Value) {
    found["headers"]["Annals-As-Of"] = json!({
        "description": "The moment that is shown, if `as_of` was given: a coarse history shows the end \
                        of an interval.",
        "schema": {"type": "string"},
    });
    found["headers"]["Annals-As-Of-Position"] = json!({
        "description": "The position token of that moment: it names the last position of each partition \
                        that is in the answer. As of this token, the same is shown later, too.",
        "schema": {"type": "string"},
    });
    found["headers"]["Annals-Provisional"] = json!({
        "description": "`true` if a commit may still come that was recorded up to that moment: not \
                        every partition has a later one.",
        "schema": {"type": "string", "enum": ["true"]},
    });
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
    parameters.push(as_of_parameter());
    parameters.push(known_parameter());
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 503]);
    let mut found = ok("The row.", schema_ref(row));
    past_headers(&mut found);
    responses.insert("200".to_owned(), found);
    tag(&mut responses, ROWS_TAG, ROWS_TAG_PATTERN);
    json!({
        "operationId": format!("read_one_of_{}", shown.model.name),
        "tags": ["read models"],
        "summary": format!("One row of {}", shown.model.name),
        "description": shown.model.about,
        "parameters": parameters,
        "responses": responses,
    })
}

fn models_schema() -> Value {
    object(
        "The read models.",
        json!({
            "models": {"type": "array", "items": schema_ref("ReadModel"),
                       "description": "The read models, ordered by name."},
        }),
    )
}

fn model_schema() -> Value {
    object(
        "A read model.",
        json!({
            "name": text("Its name."),
            "about": text("What its rows are."),
            "key": {"type": "array", "items": {"type": "string"},
                    "description": "The columns that together are the key of a row."},
            "columns": {"type": "array", "items": schema_ref("Column"),
                        "description": "Its columns, in order."},
            "sorts": {"type": "array", "items": {"type": "string"},
                      "description": "The columns that `sort` takes."},
        }),
    )
}

fn read_column_schema() -> Value {
    object(
        "A column of a read model.",
        json!({
            "name": text("Its name."),
            "type": {"type": "string",
                     "enum": ["text", "bigint", "numeric", "double precision", "boolean",
                              "uuid", "timestamptz", "date", "bytea", "jsonb", "text[]"],
                     "description": "Its type in Postgres."},
            "nullable": {"type": "boolean", "description": "Whether a row may have no value here."},
            "about": text("What it means."),
            "filters": {"type": "array", "items": {"type": "string"},
                        "description": "The parameters of a page that filter by it."},
        }),
    )
}
