//! Each kind of change is named with its field, its rule and its effect.

use serde_json::json;

use super::Effect::{Narrower, Wider};
use super::*;

fn base() -> Value {
    json!({
        "$id": "urn:annals:events:cat:Named:v1",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "age", "kind"],
        "properties": {
            "name": {"type": "string", "maxLength": 20, "pattern": "^[a-z]+$"},
            "age": {"type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_992_i64,
                    "format": "int32"},
            "kind": {"enum": ["tame", "wild"]},
            "nick": {"type": ["string", "null"]},
            "kittens": {"type": "array", "maxItems": 9, "items": {"$ref": "#/$defs/Kitten"}},
            "owner": {"anyOf": [{"$ref": "#/$defs/Owner"}, {"type": "null"}]},
        },
        "$defs": {
            "Kitten": {"type": "object", "required": ["weight"], "properties": {
                "weight": {"type": "number"}, "mother": {"$ref": "#/$defs/Kitten"},
            }},
            "Owner": {"type": "object", "properties": {"id": {"type": "string"}}},
        },
    })
}

/// Sets the value at a JSON pointer of the base, or removes it, and looks at the changes.
fn changed(pointer: &str, value: Option<Value>) -> Vec<(String, &'static str, Effect)> {
    let mut new = base();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let members = new.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.to_owned(), value),
        None => members.remove(name),
    };
    let found = changes(&base(), &new).into_iter();
    found
        .map(|change| (change.field, change.rule, change.effect))
        .collect()
}

#[test]
fn each_change_is_named_by_field_and_rule() {
    let all: [(&str, Option<Value>, &str, &str, Effect); 30] = [
        ("/properties/nick", None, "/nick", "field_removed", Narrower),
        (
            "/properties/hue",
            Some(json!({})),
            "/hue",
            "field_added",
            Wider,
        ),
        (
            "/required",
            Some(json!(["name", "age", "kind", "nick"])),
            "/nick",
            "field_made_required",
            Narrower,
        ),
        (
            "/required",
            Some(json!(["name", "kind"])),
            "/age",
            "field_made_optional",
            Wider,
        ),
        (
            "/properties/name/type",
            Some(json!("integer")),
            "/name",
            "type_narrowed",
            Narrower,
        ),
        (
            "/properties/name/type",
            None,
            "/name",
            "type_widened",
            Wider,
        ),
        (
            "/properties/nick/type",
            Some(json!("string")),
            "/nick",
            "type_narrowed",
            Narrower,
        ),
        (
            "/properties/name/type",
            Some(json!(["string", "null"])),
            "/name",
            "type_widened",
            Wider,
        ),
        (
            "/properties/age/type",
            Some(json!("number")),
            "/age",
            "type_widened",
            Wider,
        ),
        (
            "/$defs/Kitten/properties/weight/type",
            Some(json!("integer")),
            "/kittens/*/weight",
            "type_narrowed",
            Narrower,
        ),
        (
            "/properties/name/maxLength",
            Some(json!(19)),
            "/name",
            "limit_narrowed",
            Narrower,
        ),
        (
            "/properties/name/maxLength",
            Some(json!(21)),
            "/name",
            "limit_widened",
            Wider,
        ),
        (
            "/properties/name/minLength",
            Some(json!(1)),
            "/name",
            "limit_narrowed",
            Narrower,
        ),
        (
            "/properties/age/minimum",
            Some(json!(-1)),
            "/age",
            "limit_widened",
            Wider,
        ),
        (
            "/properties/age/minimum",
            None,
            "/age",
            "limit_widened",
            Wider,
        ),
        (
            "/properties/age/maximum",
            Some(json!(9_007_199_254_740_991_i64)),
            "/age",
            "limit_narrowed",
            Narrower,
        ),
        (
            "/properties/kittens/maxItems",
            Some(json!(8)),
            "/kittens",
            "limit_narrowed",
            Narrower,
        ),
        (
            "/properties/name/pattern",
            Some(json!("^[a-y]+$")),
            "/name",
            "pattern_changed",
            Narrower,
        ),
        (
            "/properties/name/pattern",
            None,
            "/name",
            "pattern_changed",
            Wider,
        ),
        (
            "/properties/age/format",
            Some(json!("int64")),
            "/age",
            "format_changed",
            Wider,
        ),
        (
            "/properties/age/format",
            Some(json!("uint8")),
            "/age",
            "format_changed",
            Narrower,
        ),
        (
            "/properties/kind/enum",
            Some(json!(["tame"])),
            "/kind",
            "value_removed",
            Narrower,
        ),
        (
            "/properties/kind/enum",
            Some(json!(["tame", "wild", "shy"])),
            "/kind",
            "value_added",
            Wider,
        ),
        (
            "/properties/kind",
            Some(json!({})),
            "/kind",
            "values_opened",
            Wider,
        ),
        (
            "/properties/nick/enum",
            Some(json!(["x"])),
            "/nick",
            "values_limited",
            Narrower,
        ),
        (
            "/properties/owner",
            Some(json!({"$ref": "#/$defs/Owner"})),
            "/owner",
            "alternative_removed",
            Narrower,
        ),
        (
            "/properties/owner/anyOf",
            Some(json!([{"$ref": "#/$defs/Owner"}, {"type": "null"},
         {"type": "integer"}])),
            "/owner",
            "alternative_added",
            Wider,
        ),
        (
            "/$defs/Owner/properties/id/type",
            Some(json!("integer")),
            "/owner/id",
            "type_narrowed",
            Narrower,
        ),
        ("/additionalProperties", None, "", "opened", Wider),
        (
            "/properties/nick/not",
            Some(json!({"const": "x"})),
            "/nick",
            "changed",
            Narrower,
        ),
    ];
    for (pointer, value, field, rule, effect) in all {
        let expected = [(field.to_owned(), rule, effect)];
        assert_eq!(
            changed(pointer, value.clone()),
            expected,
            "{pointer} {value:?}"
        );
    }
}

#[test]
fn a_required_field_and_a_closed_object_take_old_data_away() {
    let mut new = base();
    new["properties"]["hue"] = json!({"type": "string"});
    new["required"] = json!(["name", "age", "kind", "hue"]);
    let found = changes(&base(), &new);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].field.as_str(), found[0].rule),
        ("/hue", "required_field_added")
    );
    let mut old = base();
    old["additionalProperties"] = json!(true);
    let found = changes(&old, &base());
    assert_eq!((found[0].rule, found[0].effect), ("closed", Narrower));
}

#[test]
fn words_and_names_of_definitions_change_nothing() {
    assert_eq!(changed("/title", Some(json!("Cat"))), []);
    assert_eq!(
        changed("/properties/name/description", Some(json!("Its name."))),
        []
    );
    let text = base().to_string().replace("Kitten", "YoungCat");
    assert_eq!(changes(&base(), &serde_json::from_str(&text).unwrap()), []);
}
