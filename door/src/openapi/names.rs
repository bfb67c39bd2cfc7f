//! Where the schemas of a domain stand in the document.
//!
//! Invariant: each gets a name that no other schema has, and every reference leads to it.
//! Deliberately absent: what the schemas say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::SCHEMAS_PATH;

/// Adds schemas under names that no schema has. Returns the new place of each, by its old one.
pub(super) fn place(
    path: &str,
    added: Map<String, Value>,
    schemas: &mut Map<String, Value>,
) -> BTreeMap<String, String> {
    let mut places = BTreeMap::new();
    let taken: BTreeSet<String> = schemas.keys().cloned().collect();
    for name in added.keys() {
        let mut free = name.clone();
        while taken.contains(&free) || (free != *name && added.contains_key(&free)) {
            free.insert_str(0, "Domain");
        }
        places.insert(format!("#{path}{name}"), free);
    }
    for (name, schema) in added {
        schemas.insert(places[&format!("#{path}{name}")].clone(), schema);
    }
    places
}

/// Lets references lead to the new places.
pub(super) fn name_references(at: &mut Value, names: &BTreeMap<String, String>) {
    match at {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(name) = names.get(reference.as_str())
            {
                *reference = format!("#{SCHEMAS_PATH}{name}");
            }
            for value in members.values_mut() {
                name_references(value, names);
            }
        }
        Value::Array(items) => {
            for item in items {
                name_references(item, names);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
