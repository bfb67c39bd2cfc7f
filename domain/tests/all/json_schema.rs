//! A second check of shapes: a validator for the part of JSON Schema that our schemas use.
//!
//! It does not use serde, and refuses unknown keywords, so that a schema cannot state more than is
//! checked here.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::{Map, Value};

/// Whether `value` matches `schema`; the references in `schema` point into `definitions`.
pub fn is_valid(schema: &Value, value: &Value, definitions: &Map<String, Value>) -> bool {
    let schema = schema.as_object().expect("a schema is an object");
    schema.iter().all(|(keyword, rule)| match keyword.as_str() {
        "description" | "title" => true,
        // An example shows a value that is valid.
        "examples" => {
            let mut own = schema.clone();
            own.remove("examples");
            let own = Value::Object(own);
            list(rule)
                .iter()
                .all(|one| is_valid(&own, one, definitions))
        }
        // How wide a client's integer must be; the schema's bounds are what is checked.
        "format" if rule != "date-time" => ["int32", "int64"].contains(&text(rule)),
        "format" => value.as_str().is_none_or(is_date_time),
        "$ref" => {
            let name = text(rule)
                .strip_prefix("#/$defs/")
                .expect("a local reference");
            is_valid(&definitions[name], value, definitions)
        }
        "anyOf" => list(rule)
            .iter()
            .any(|one| is_valid(one, value, definitions)),
        "oneOf" => {
            let fitting = list(rule)
                .iter()
                .filter(|one| is_valid(one, value, definitions));
            fitting.count() == 1
        }
        "const" => value == rule,
        "enum" => list(rule).contains(value),
        "type" => match rule {
            Value::Array(types) => types.iter().any(|one| is_type(text(one), value)),
            one => is_type(text(one), value),
        },
        "minimum" => compare(value, rule).is_none_or(Ordering::is_ge),
        "maximum" => compare(value, rule).is_none_or(Ordering::is_le),
        "maxLength" => {
            let length = value.as_str().map_or(0, |text| text.chars().count());
            length as u64 <= rule.as_u64().unwrap()
        }
        "pattern" => {
            let pattern = Regex::new(text(rule)).unwrap();
            value.as_str().is_none_or(|text| pattern.is_match(text))
        }
        "maxItems" => value.as_array().map_or(0, Vec::len) as u64 <= rule.as_u64().unwrap(),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| is_valid(rule, item, definitions))),
        "required" => value.as_object().is_none_or(|object| {
            list(rule)
                .iter()
                .all(|name| object.contains_key(text(name)))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            let rules = rule.as_object().unwrap();
            object.iter().all(|(name, value)| {
                rules
                    .get(name)
                    .is_none_or(|rule| is_valid(rule, value, definitions))
            })
        }),
        "additionalProperties" => {
            let known = schema.get("properties").and_then(Value::as_object);
            let is_known = |name: &str| known.is_some_and(|known| known.contains_key(name));
            value.as_object().is_none_or(|object| {
                let mut more = object.iter().filter(|(name, _)| !is_known(name));
                more.all(|(_, one)| match rule {
                    Value::Bool(allowed) => *allowed,
                    rule => is_valid(rule, one, definitions),
                })
            })
        }
        "propertyNames" => value.as_object().is_none_or(|object| {
            let mut names = object.keys().map(|name| Value::from(name.as_str()));
            names.all(|name| is_valid(rule, &name, definitions))
        }),
        other => panic!("the keyword {other} is not known here"),
    })
}

/// Compares two numbers without rounding integers; absent if `value` is not a number.
fn compare(value: &Value, rule: &Value) -> Option<Ordering> {
    match (integer(value), integer(rule)) {
        (Some(value), Some(rule)) => Some(value.cmp(&rule)),
        (Some(_) | None, _) => value.as_f64()?.partial_cmp(&rule.as_f64()?),
    }
}

fn integer(value: &Value) -> Option<i128> {
    let signed = value.as_i64().map(i128::from);
    signed.or_else(|| value.as_u64().map(i128::from))
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("the type {other} is not known here"),
    }
}

fn is_date_time(text: &str) -> bool {
    Regex::new(r"^(\d{4})-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
        .unwrap()
        .is_match(text)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}
