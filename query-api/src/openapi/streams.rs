//! What the document says of streams: their events and states, typed by the domain's declarations.
//!
//! Invariant: a program that knows an event's type, or a state's category, finds the form of the data
//! by it; a program that does not know it reads the last form of the choice, whose data is any JSON.
//! So a domain may add types without breaking anybody. Deliberately absent: the envelope's meaning,
//! which the log's format gives.

use door::openapi::{
    Fragment, SCHEMAS_PATH, camel, derived_ref, distinct, header_ref, integer, nullable, object,
    parameter_ref, schema_ref, text,
};
use kernel::registry::{Registry, definitions_of};
use kernel::schemars::SchemaGenerator;
use kernel::{Actor, MessageType};
use serde_json::{Value, json};

use super::life;
use super::{
    common_parameters, known_parameter, limit_parameter, ok, position_schema, problems, tag,
};
use crate::parameters::{LIMIT_MAX, VERSION_MAX};

/// Adds the routes of streams.
pub(super) fn describe(fragment: &mut Fragment, registry: &Registry, domain: &mut SchemaGenerator) {
    fragment.tag(
        "streams",
        "Streams over their lives: events and states, from the log.",
    );
    fragment.operation("/v1/streams/{stream}/events", "get", events_operation());
    life::describe(fragment, registry);
    fragment.schema("StreamEvents", events_schema());
    let mut generator = Registry::schema_generator(SCHEMAS_PATH);
    generator.subschema_for::<Actor>();
    for (name, schema) in definitions_of(generator) {
        fragment.schema(&name, schema.to_value());
    }
    let mut events = Vec::new();
    let mut states = Vec::new();
    for aggregate in registry.iter() {
        let category = aggregate.category();
        let types = aggregate.event_types(domain);
        events.extend(types.into_iter().map(|event| (category, event)));
        if let Some(state) = aggregate.state_schema(domain) {
            states.push((category, state.to_value()));
        }
    }
    let named = events
        .iter()
        .map(|(category, event)| (*category, event.name));
    let names: Vec<_> = distinct(named).map(|name| format!("{name}Event")).collect();
    for (name, (_, event)) in names.iter().zip(&events) {
        let type_name = fragment.mark(name, "type", event.name, "The name of its type.");
        fragment.derived_schema(name, event_schema(Some((event, type_name))));
    }
    fragment.schema("OtherEvent", event_schema(None));
    fragment.schema(
        "RecordedEvent",
        choice(
            "An event with its complete envelope, in the form of its type.",
            &names,
            "OtherEvent",
        ),
    );
    let mut names = Vec::new();
    for (category, state) in states {
        let name = format!("{}StreamState", camel(category));
        let mark = fragment.mark(&name, "category", category, "The stream's category.");
        fragment.derived_schema(&name, state_schema(Some((category, mark, state))));
        names.push(name);
    }
    fragment.schema("OtherStreamState", state_schema(None));
    fragment.schema(
        "StreamState",
        choice(
            "The state that a stream's events fold to, in the form of its category.",
            &names,
            "OtherStreamState",
        ),
    );
}

/// The first of these schemas that fits; the open one always does.
fn choice(description: &str, names: &[String], open: &str) -> Value {
    let named = names.iter().map(|name| derived_ref(name));
    let schemas: Vec<_> = named.chain([schema_ref(open)]).collect();
    json!({"description": description, "anyOf": schemas})
}

fn events_operation() -> Value {
    let mut parameters = vec![
        parameter_ref("Stream"),
        json!({"name": "from_version", "in": "query",
               "description": "The version of the first event.",
               "schema": {"type": "integer", "format": "int64", "minimum": 1,
                          "maximum": VERSION_MAX, "default": 1}}),
        limit_parameter("events"),
        json!({"name": "schema", "in": "query",
               "description": "The shape of the events' data: as it was recorded, or the newest \
                               shape of each type, which old data is changed into.",
               "schema": {"type": "string", "enum": ["recorded", "latest"], "default": "recorded"}}),
        known_parameter(),
    ];
    parameters.extend(common_parameters());
    let mut responses = problems(&[400, 404, 503]);
    let mut found = ok("Events, ordered by version.", schema_ref("StreamEvents"));
    found["headers"]["Link"] = header_ref("Link");
    responses.insert("200".to_owned(), found);
    let about = "Stands for the page, apart from `position`.";
    tag(&mut responses, about, "^W/\"[0-9a-f]{24}\"$");
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

pub(super) fn moment(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}

fn events_schema() -> Value {
    object(
        "A page of a stream's events.",
        json!({
            "stream": text("The stream."),
            "version": integer(0, "The stream's version, as far as the index has read the log."),
            "events": {"type": "array", "items": schema_ref("RecordedEvent"),
                       "maxItems": LIMIT_MAX, "description": "The events, in their order."},
            "next": nullable(&integer(1, "The value of `from_version` for the next page; null on \
                                         the last page.")),
            "position": nullable(&position_schema()),
        }),
    )
}

fn state_schema(known: Option<(&str, Value, Value)>) -> Value {
    let (about, category, state) = match known {
        Some((category, mark, state)) => (
            format!("The state of a stream of the category {category}."),
            mark,
            state,
        ),
        None => (
            "The state of a stream of another category.".to_owned(),
            text("The stream's category."),
            json!({"description": "The aggregate's state, in the aggregate's own form."}),
        ),
    };
    let mut members = life::standing();
    members["stream"] = text("The stream.");
    members["category"] = category;
    members["state"] = state;
    members["position"] = nullable(&position_schema());
    object(&about, members)
}

fn event_schema(known: Option<(&MessageType, Value)>) -> Value {
    let number = "The number of the shape of its data.";
    let (about, type_name, schema, data) = match known {
        Some((event, type_name)) => (
            format!("An event of the type {}, with its envelope.", event.name),
            type_name,
            json!({"type": "integer", "format": "int32", "minimum": event.schema_version,
                   "maximum": event.schema_version, "description": number}),
            event.schema.clone().to_value(),
        ),
        None => (
            "An event of another type, with its envelope.".to_owned(),
            text("The name of its type."),
            json!({"type": "integer", "format": "int32", "minimum": 1, "description": number}),
            json!({"description": "The event's data, in the shape of its type."}),
        ),
    };
    object(
        &about,
        json!({
            "id": {"type": "string", "format": "uuid", "description": "The event's id."},
            "type": type_name,
            "schema": schema,
            "version": integer(1, "The stream's version with the event."),
            "occurred_at": moment("Business time."),
            "recorded_at": moment("When the engine recorded it."),
            "data": data,
            "command_id": text("The id of the command that caused it."),
            "command": text("The name of that command's type."),
            "correlation_id": text("The conversation."),
            "causation_id": text("The direct cause of the command."),
            "actor": nullable(&schema_ref("Actor")),
            "traceparent": nullable(&text("W3C Trace Context of the command.")),
            "position": nullable(&position_schema()),
        }),
    )
}
