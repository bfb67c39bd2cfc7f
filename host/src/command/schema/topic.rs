//! The schemas of what stands in the topic: the value of a commit, and that of a claim.
//!
//! Invariant: the forms follow from the types that write the records. An event of a known type and
//! schema number has the data of its form; any other event has any data, so that a newer program's
//! topic can be read. Deliberately absent: which records count (docs/reading-the-topic.md).

use event_log::claim::Claim;
use event_log::commit::Commit;
use kernel::MessageType;
use kernel::registry::{Registry, definitions_of};
use serde_json::{Map, Value, json};

use crate::Domain;

/// The schemas of a topic's values, with their definitions under one path.
pub(super) struct Values {
    pub(super) commit: Value,
    pub(super) claim: Value,
    pub(super) definitions: Map<String, Value>,
    path: &'static str,
}

/// The values of a domain's topic. `path` is where the definitions will stand.
pub(super) fn values(domain: &Domain, path: &'static str) -> Values {
    let mut generator = Registry::schema_generator(path);
    // Ours come first: a type of the domain with the same name gets another one.
    generator.subschema_for::<Commit>();
    generator.subschema_for::<Claim>();
    let (mut events, mut rules) = (Vec::new(), Vec::new());
    for aggregate in domain.registry.iter() {
        let category = aggregate.category();
        let types = aggregate.event_types(&mut generator);
        events.extend(types.into_iter().map(|event| (category, event)));
        let types = aggregate.rejection_types(&mut generator);
        rules.extend(types.into_iter().map(|rule| (category, rule)));
    }
    let definitions = definitions_of(generator).into_iter();
    let mut values = Values {
        commit: Value::Null,
        claim: Value::Null,
        definitions: definitions
            .map(|(name, schema)| (name, schema.to_value()))
            .collect(),
        path,
    };
    let event = values.take("EventPart");
    let named = events
        .iter()
        .map(|(category, event)| (*category, event.name));
    let names: Vec<_> = door::openapi::distinct(named).collect();
    let mut forms = Vec::new();
    for (name, (_, known)) in names.iter().zip(&events) {
        forms.push(values.add(&format!("{name}Event"), known_event(&event, known)));
    }
    let known = events.iter().map(|(_, event)| event);
    forms.push(values.add("OtherEvent", other_event(&event, known)));
    let rejection = values.take("RecordedRejection");
    let codes: Vec<_> = rules
        .iter()
        .map(|(_, rule)| door::openapi::camel(rule.code))
        .collect();
    let named = rules.iter().zip(&codes);
    let named = named.map(|((category, _), code)| (*category, code.as_str()));
    let names: Vec<_> = door::openapi::distinct(named).collect();
    let mut refusals = Vec::new();
    for (name, (_, rule)) in names.iter().zip(&rules) {
        refusals.push(values.add(&format!("{name}Refusal"), known_rejection(&rejection, rule)));
    }
    refusals.push(values.add("OtherRefusal", rejection));
    values.commit = values.take("Commit");
    values.commit["properties"]["events"]["items"] = json!({"anyOf": forms});
    values.commit["properties"]["rejection"] = json!({
        "description": "Why it was refused; absent if it was accepted.", "anyOf": refusals,
    });
    values.commit["allOf"] = json!([{
        "if": {"type": "object", "properties": {"outcome": {"enum": ["rejected"]}}},
        "then": {"type": "object", "required": ["rejection"],
                 "properties": {"rejection": true, "events": {"type": "array", "maxItems": 0}}},
        "else": {"type": "object", "properties": {"rejection": false}},
    }]);
    values.claim = values.take("Claim");
    values
}

impl Values {
    fn take(&mut self, name: &str) -> Value {
        self.definitions.remove(name).unwrap_or_default()
    }

    /// Adds a definition under this name, or, if a type of the domain has it, under another one.
    fn add(&mut self, name: &str, schema: Value) -> Value {
        let mut name = name.to_owned();
        while self.definitions.contains_key(&name) {
            name.insert_str(0, "Recorded");
        }
        let reference = json!({"$ref": format!("#{}{name}", self.path)});
        self.definitions.insert(name, schema);
        reference
    }
}

fn number(value: u16) -> Value {
    json!({"type": "integer", "format": "int32", "minimum": value, "maximum": value})
}

fn known_event(event: &Value, known: &MessageType) -> Value {
    let mut form = event.clone();
    form["description"] = format!("An event of the type {}.", known.name).into();
    form["properties"]["type"]["enum"] = json!([known.name]);
    let about = form["properties"]["schema"]["description"].take();
    form["properties"]["schema"] = number(known.schema_version);
    form["properties"]["schema"]["description"] = about;
    form["properties"]["data"] = known.schema.clone().to_value();
    form
}

fn other_event<'a>(event: &Value, known: impl Iterator<Item = &'a MessageType>) -> Value {
    let mut form = event.clone();
    form["description"] = "An event of another type, or of another shape of its type.".into();
    let known = known.map(|event| {
        let properties =
            json!({"type": {"enum": [event.name]}, "schema": number(event.schema_version)});
        json!({"type": "object", "properties": properties})
    });
    form["not"] = json!({"anyOf": known.collect::<Vec<_>>()});
    form
}

fn known_rejection(rejection: &Value, rule: &kernel::RejectionType) -> Value {
    let mut form = rejection.clone();
    form["description"] = rule.about.clone().into();
    form["properties"]["code"]["enum"] = json!([rule.code]);
    let facts: Map<String, Value> = rule
        .facts
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone().to_value()))
        .collect();
    let names: Vec<_> = rule.facts.iter().map(|(name, _)| *name).collect();
    if !names.is_empty() {
        form["required"] = json!(["code", "detail", "facts"]);
    }
    form["properties"]["facts"] = json!({
        "description": "The facts that explain the refusal.", "type": "object",
        "properties": facts, "required": names, "additionalProperties": false,
    });
    form
}
