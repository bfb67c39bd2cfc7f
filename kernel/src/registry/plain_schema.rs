//! JSON Schemas in the forms that client generators and strict validators know.
//!
//! Many generators do not know `oneOf` with `const` as a list of values, and give an integer without
//! a known format 32 bits. Deliberately absent: what a schema admits, which stays the same.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// The formats of integers that fit into 32 bits, beside `int32` itself.
const SMALL: [&str; 4] = ["int8", "uint8", "int16", "uint16"];

/// Changes one schema; its sub-schemas are changed by themselves.
pub(super) fn plain(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else {
        return;
    };
    list_values(members);
    name_integer_format(members);
    name_map(members);
}

/// Writes a map whose keys have a pattern as `additionalProperties` with `propertyNames`: a generator
/// that does not know `patternProperties` would make an object without members of it.
fn name_map(members: &mut Map<String, Value>) {
    let is_map = members.get("additionalProperties") == Some(&Value::Bool(false))
        && !members.contains_key("properties");
    let patterns = members.get("patternProperties").and_then(Value::as_object);
    let mut patterns = patterns.into_iter().flatten();
    let (true, Some((pattern, value)), None) = (is_map, patterns.next(), patterns.next()) else {
        return;
    };
    let (names, value) = (json!({"pattern": pattern}), value.clone());
    members.remove("patternProperties");
    members.insert("propertyNames".to_owned(), names);
    members.insert("additionalProperties".to_owned(), value);
}

/// Writes one constant as a list of one value, and a choice of constants as a list of values; what
/// each value means goes into the description.
fn list_values(members: &mut Map<String, Value>) {
    if let Some(value @ Value::String(_)) = members.get("const").cloned() {
        members.remove("const");
        members.insert("enum".to_owned(), json!([value]));
        return;
    }
    let Some(choices) = members.get("oneOf").and_then(Value::as_array) else {
        return;
    };
    let mut values = Vec::new();
    let mut meanings = String::new();
    for choice in choices {
        let listed = match (choice.get("const"), choice.get("enum")) {
            (Some(value @ Value::String(_)), None) => vec![value.clone()],
            (None, Some(Value::Array(listed))) if listed.iter().all(Value::is_string) => {
                listed.clone()
            }
            _ => return,
        };
        if let (Some(meaning), [Value::String(value)]) = (choice.get("description"), &listed[..]) {
            let meaning = meaning.as_str().unwrap_or_default();
            meanings.push_str(&format!("\n- `{value}`: {meaning}"));
        }
        values.extend(listed);
    }
    members.remove("oneOf");
    members.insert("type".to_owned(), "string".into());
    members.insert("enum".to_owned(), values.into());
    if !meanings.is_empty() {
        let about = members.get("description").and_then(Value::as_str);
        let about = format!("{}\n{meanings}", about.unwrap_or_default());
        members.insert("description".to_owned(), about.trim_start().into());
    }
}

/// Gives an integer a format that says how many bits a client needs for it.
fn name_integer_format(members: &mut Map<String, Value>) {
    let is_integer = match members.get("type") {
        Some(Value::String(one)) => one == "integer",
        Some(Value::Array(types)) => types.iter().any(|one| one == "integer"),
        _ => false,
    };
    if is_integer {
        let format = members.get("format").and_then(Value::as_str);
        let is_small = format.is_some_and(|format| SMALL.contains(&format) || format == "int32");
        let format = if is_small { "int32" } else { "int64" };
        members.insert("format".to_owned(), format.into());
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::json;

    use crate::registry::{Registry, definitions_of};

    /// By what.
    #[derive(JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Method {
        /// By card.
        Card,
        Cash,
        /// By a bank slip.
        BankSlip,
    }

    /// A payment.
    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Payment {
        method: Method,
        amount: i64,
        version: Option<u64>,
        score: u8,
        count: usize,
    }

    #[test]
    fn values_are_listed_and_integers_say_how_wide_they_are() {
        let mut generator = Registry::schema_generator("/x/");
        generator.subschema_for::<Payment>();
        let schemas = definitions_of(generator);
        let method = schemas["Method"].as_value();
        assert_eq!(method["type"], "string");
        assert_eq!(method["enum"], json!(["cash", "card", "bank_slip"]));
        let about = "By what.\n\n- `card`: By card.\n- `bank_slip`: By a bank slip.";
        assert_eq!(method["description"], about);
        let payment = &schemas["Payment"].as_value()["properties"];
        for (name, format) in [
            ("amount", "int64"),
            ("version", "int64"),
            ("score", "int32"),
            ("count", "int64"),
        ] {
            assert_eq!(payment[name]["format"], format, "{name}");
        }
        assert_eq!(payment["version"]["type"], json!(["integer", "null"]));
    }

    #[test]
    fn a_map_says_what_its_values_are() {
        let value = json!({"type": "integer", "format": "int64"});
        let map = json!({"type": "object", "additionalProperties": false,
                         "patternProperties": {"^[a-z]+$": value}});
        let mut schema = map.try_into().unwrap();
        super::plain(&mut schema);
        let expected = json!({"type": "object", "additionalProperties": value,
                              "propertyNames": {"pattern": "^[a-z]+$"}});
        assert_eq!(schema.to_value(), expected);
    }
}
