//! Commands generated from their JSON Schemas: every field with plain values and with values at its
//! limits, in all spellings of numbers and times.

use std::collections::BTreeSet;

use kernel::registry::{Registry, definitions_of};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

/// Times at the limits of the kept range, some of them beyond.
const MOMENTS: [&str; 8] = [
    "2018-06-04T16:44:48Z",
    "2018-06-04T13:44:48.25-03:00",
    "2016-12-31T23:59:60.5Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59.999999999Z",
    "9999-12-31T23:59:60Z",
    "9999-12-31T22:59:60.9-01:00",
];

/// The schemas of all types of commands and events, and their definitions.
pub(super) struct Schemas {
    pub(super) commands: Vec<(&'static str, &'static str, Value)>,
    events: Vec<(&'static str, Value)>,
    definitions: Map<String, Value>,
}

impl Schemas {
    pub(super) fn of(registry: &Registry) -> Self {
        let mut generator = Registry::schema_generator("/$defs");
        let (mut commands, mut events) = (Vec::new(), Vec::new());
        for aggregate in registry.iter() {
            for command in aggregate.command_types(&mut generator) {
                let schema = command.schema.to_value();
                commands.push((aggregate.category(), command.name, schema));
            }
            let types = aggregate.event_types(&mut generator).into_iter();
            events.extend(types.map(|event| (event.name, event.schema.to_value())));
        }
        let definitions = definitions_of(generator);
        let definitions = definitions
            .into_iter()
            .map(|(name, s)| (name, s.to_value()));
        Self {
            commands,
            events,
            definitions: definitions.collect(),
        }
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => {
                let name = reference.rsplit('/').next().unwrap();
                self.resolved(&self.definitions[name])
            }
            None => schema,
        }
    }

    /// The paths of all fields of all commands and events.
    pub(super) fn all_places(&self) -> BTreeSet<String> {
        let mut places = BTreeSet::new();
        for (_, name, schema) in &self.commands {
            self.places(schema, name, &mut places);
        }
        for (name, schema) in &self.events {
            self.places(schema, name, &mut places);
        }
        places
    }

    /// The paths of all fields below `schema`: names joined by slashes.
    fn places(&self, schema: &Value, at: &str, places: &mut BTreeSet<String>) {
        let schema = self.resolved(schema);
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let place = format!("{at}/{name}");
            self.places(field, &place, places);
            places.insert(place);
        }
        if schema["items"].is_object() {
            self.places(&schema["items"], at, places);
        }
        for one in ["anyOf", "oneOf"] {
            for schema in schema[one].as_array().into_iter().flatten() {
                self.places(schema, at, places);
            }
        }
    }
}

/// Makes random values of a schema.
pub(super) struct Maker<'a> {
    pub(super) random: StdRng,
    pub(super) schemas: &'a Schemas,
}

impl<'a> Maker<'a> {
    pub(super) fn new(seed: u64, schemas: &'a Schemas) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            schemas,
        }
    }

    fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.random.random_range(0..texts.len())]
    }

    fn edge(&mut self) -> bool {
        self.random.random_bool(0.15)
    }

    pub(super) fn moment(&mut self) -> &'static str {
        match self.edge() {
            true => self.one_of(&MOMENTS),
            false => MOMENTS[0],
        }
    }

    /// The JSON text of a value of this schema; only its times may be out of range.
    pub(super) fn value(&mut self, schema: &Value) -> String {
        let schema = self.schemas.resolved(schema).clone();
        for one in ["anyOf", "oneOf"] {
            if let Some(several) = schema[one].as_array() {
                let index = self.random.random_range(0..several.len());
                return self.value(&several[index]);
            }
        }
        if let Some(several) = schema["enum"].as_array() {
            let index = self.random.random_range(0..several.len());
            return several[index].to_string();
        }
        if schema.get("const").is_some() {
            return schema["const"].to_string();
        }
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.clone(),
            kind => vec![kind.clone()],
        };
        let kind = kinds[self.random.random_range(0..kinds.len())].clone();
        match kind.as_str().unwrap() {
            "null" => "null".to_owned(),
            "string" => self.text(&schema),
            "integer" => self.whole(&schema),
            "array" => {
                let most = schema["maxItems"].as_u64().unwrap_or(3);
                let count = match self.random.random_bool(0.01) {
                    true => most,
                    false => self.random.random_range(1..4),
                };
                let items: Vec<String> = (0..count).map(|_| self.value(&schema["items"])).collect();
                format!("[{}]", items.join(", "))
            }
            "object" => {
                let required = schema["required"].as_array().cloned().unwrap_or_default();
                let mut members = Vec::new();
                for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                    let is_required = required.iter().any(|one| one == name);
                    if is_required || self.random.random_bool(0.7) {
                        members.push(format!("{} : {}", json!(name), self.value(field)));
                    }
                }
                format!("{{{}}}", members.join(" ,"))
            }
            other => panic!("the type {other} is not known here"),
        }
    }

    fn text(&mut self, schema: &Value) -> String {
        if schema["format"] == "date-time" {
            return json!(self.moment()).to_string();
        }
        let most = schema["maxLength"].as_u64().unwrap_or(128);
        let most = usize::try_from(most).unwrap();
        let text = match schema["pattern"].as_str() {
            Some("^[A-Z]{3}$") => match self.random.random_bool(0.97) {
                true => "BRL".to_owned(),
                false => "ZZZ".to_owned(),
            },
            Some(pattern) if pattern.contains("A-Za-z0-9") => match self.edge() {
                true => "~".repeat(most),
                false => format!("x{}", self.random.random_range(0..3)),
            },
            _ => match self.edge() {
                true => self
                    .one_of(&["\u{1}", "\"", "\\", "\u{2028}", "ß", "😀", "\u{ffff}"])
                    .repeat(most),
                false => format!("text {}", self.random.random_range(0..9)),
            },
        };
        json!(text).to_string()
    }

    fn whole(&mut self, schema: &Value) -> String {
        let bound = |name: &str, other: i64| schema[name].as_i64().unwrap_or(other);
        let (least, most) = (bound("minimum", 0), bound("maximum", i64::from(u32::MAX)));
        let number = match self.edge() {
            true => [least, most, 0][self.random.random_range(0..3)],
            false => self.random.random_range(1..6).clamp(least, most),
        };
        match self.random.random_range(0..5) {
            0 => format!("{number}.000"),
            1 => format!("{number}e0"),
            2 => format!("{number}.0E+0"),
            _ => number.to_string(),
        }
    }
}
