//! What changed between two JSON Schemas of one message, by field and rule.
//!
//! It knows the keywords that this program's schemas have. Invariant: a difference that it cannot
//! judge counts as narrower, so nothing is overlooked; words for people are no difference.
//! Deliberately absent: which change is allowed (`check`).

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Whether data of the base still fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Some data of the base does not fit any more.
    Narrower,
    /// More data fits than before.
    Wider,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    /// The place in the data; `*` stands for every item of a list.
    pub(super) field: String,
    /// What was done there.
    pub(super) rule: &'static str,
    pub(super) effect: Effect,
    pub(super) detail: String,
}

/// Keywords that only people read, or that only say where something stands.
const WORDS: [&str; 11] = [
    "$id",
    "$schema",
    "$comment",
    "$defs",
    "$ref",
    "title",
    "description",
    "examples",
    "default",
    "deprecated",
    "readOnly",
];
/// The keywords that are compared one by one below.
const COMPARED: [&str; 21] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "enum",
    "const",
    "format",
    "pattern",
    "anyOf",
    "oneOf",
    "minimum",
    "exclusiveMinimum",
    "minLength",
    "minItems",
    "minProperties",
    "maximum",
    "exclusiveMaximum",
    "maxLength",
    "maxItems",
];
const LOW: [&str; 5] = [
    "minimum",
    "exclusiveMinimum",
    "minLength",
    "minItems",
    "minProperties",
];
const HIGH: [&str; 5] = [
    "maximum",
    "exclusiveMaximum",
    "maxLength",
    "maxItems",
    "maxProperties",
];

/// The changes from `base` to `new`, both whole schemas with their own definitions.
pub(super) fn changes(base: &Value, new: &Value) -> Vec<Change> {
    let mut walk = Walk {
        base,
        new,
        under: Vec::new(),
        found: BTreeSet::new(),
    };
    walk.schemas("", base, new);
    walk.found.into_iter().collect()
}

struct Walk<'a> {
    base: &'a Value,
    new: &'a Value,
    /// The pairs of definitions that are being compared: schemas may refer to themselves.
    under: Vec<(String, String)>,
    found: BTreeSet<Change>,
}

/// A schema with its reference followed.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> Value {
    let mut whole = schema.clone();
    // A definition may be nothing but a reference.
    for _ in 0..8 {
        let Some(reference) = whole.get("$ref").and_then(Value::as_str) else {
            break;
        };
        let target = reference
            .strip_prefix('#')
            .and_then(|path| root.pointer(path));
        let Some(Value::Object(target)) = target else {
            break;
        };
        let mut merged = target.clone();
        if let Value::Object(beside) = &whole {
            let beside = beside.iter().filter(|(name, _)| *name != "$ref");
            merged.extend(beside.map(|(name, value)| (name.clone(), value.clone())));
        }
        whole = Value::Object(merged);
    }
    whole
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str)
}

impl Walk<'_> {
    fn note(&mut self, field: &str, rule: &'static str, effect: Effect, detail: String) {
        self.found.insert(Change {
            field: field.to_owned(),
            rule,
            effect,
            detail,
        });
    }

    fn schemas(&mut self, field: &str, base: &Value, new: &Value) {
        let pair = match (reference(base), reference(new)) {
            (Some(old), Some(now)) => Some((old.to_owned(), now.to_owned())),
            _ => None,
        };
        if pair.as_ref().is_some_and(|pair| self.under.contains(pair)) {
            return;
        }
        self.under.extend(pair.clone());
        self.resolved(field, base, new);
        if pair.is_some() {
            self.under.pop();
        }
    }

    fn resolved(&mut self, field: &str, base: &Value, new: &Value) {
        let (base, new) = (resolved(self.base, base), resolved(self.new, new));
        match (&base, &new) {
            (Value::Object(old), Value::Object(now)) => {
                if alternatives(old).is_some() || alternatives(now).is_some() {
                    self.choices(field, &base, &new);
                } else {
                    self.objects(field, old, now);
                }
            }
            // `true` and `false` as schemas.
            _ if base == new => {}
            (_, Value::Bool(true)) => {
                self.note(field, "opened", Effect::Wider, String::new());
            }
            _ => self.note(field, "changed", Effect::Narrower, String::new()),
        }
    }

    fn objects(&mut self, field: &str, base: &Map<String, Value>, new: &Map<String, Value>) {
        self.types(field, base, new);
        self.values(field, base, new);
        self.limits(field, base, new);
        self.texts(field, base, new);
        self.members(field, base, new);
        self.items(field, base, new);
        let names: BTreeSet<&String> = base.keys().chain(new.keys()).collect();
        for name in names {
            let is_known = [&WORDS[..], &COMPARED, &["maxProperties"]].concat();
            if !is_known.contains(&name.as_str()) && base.get(name) != new.get(name) {
                self.note(
                    field,
                    "changed",
                    Effect::Narrower,
                    format!("keyword {name}"),
                );
            }
        }
    }

    fn types(&mut self, field: &str, base: &Map<String, Value>, new: &Map<String, Value>) {
        let (old, now) = (types_of(base), types_of(new));
        let lacks = |of: &BTreeSet<String>, name: &String| {
            let is_there = of.contains(name) || (name == "integer" && of.contains("number"));
            !of.is_empty() && !is_there
        };
        let gone: Vec<String> = old
            .iter()
            .filter(|name| lacks(&now, name))
            .cloned()
            .collect();
        let come: Vec<String> = now
            .iter()
            .filter(|name| lacks(&old, name))
            .cloned()
            .collect();
        if !gone.is_empty() || (old.is_empty() && !now.is_empty()) {
            let detail = format!("from {} to {}", listed(&old), listed(&now));
            self.note(field, "type_narrowed", Effect::Narrower, detail);
        } else if !come.is_empty() || (!old.is_empty() && now.is_empty()) {
            let detail = format!("from {} to {}", listed(&old), listed(&now));
            self.note(field, "type_widened", Effect::Wider, detail);
        }
    }

    fn values(&mut self, field: &str, base: &Map<String, Value>, new: &Map<String, Value>) {
        match (values_of(base), values_of(new)) {
            (None, None) => {}
            (None, Some(_)) => {
                let detail = "only some values are allowed now".to_owned();
                self.note(field, "values_limited", Effect::Narrower, detail);
            }
            (Some(_), None) => {
                let detail = "any value is allowed now".to_owned();
                self.note(field, "values_opened", Effect::Wider, detail);
            }
            (Some(old), Some(now)) => {
                for value in old.difference(&now) {
                    self.note(field, "value_removed", Effect::Narrower, value.clone());
                }
                for value in now.difference(&old) {
                    self.note(field, "value_added", Effect::Wider, value.clone());
                }
            }
        }
    }

    fn limits(&mut self, field: &str, base: &Map<String, Value>, new: &Map<String, Value>) {
        let sides = [(&LOW, Ordering::Greater), (&HIGH, Ordering::Less)];
        for (names, narrower) in sides {
            for name in names {
                let (old, now) = (base.get(*name), new.get(*name));
                let is_narrower = match (old, now) {
                    (Some(old), Some(now)) if old == now => continue,
                    (Some(old), Some(now)) => order(now, old) == narrower,
                    (None, Some(_)) => true,
                    (Some(_), None) => false,
                    (None, None) => continue,
                };
                let text =
                    |limit: Option<&Value>| limit.map_or("none".to_owned(), Value::to_string);
                let detail = format!("{name} from {} to {}", text(old), text(now));
                let (rule, effect) = match is_narrower {
                    true => ("limit_narrowed", Effect::Narrower),
                    false => ("limit_widened", Effect::Wider),
                };
                self.note(field, rule, effect, detail);
            }
        }
    }

    fn texts(&mut self, field: &str, base: &Map<String, Value>, new: &Map<String, Value>) {
        for (name, rule) in [("pattern", "pattern_changed"), ("format", "format_changed")] {
            let (old, now) = (base.get(name), new.get(name));
            let is_wider = now.is_none()
                || (old, now) == (Some(&Value::from("int32")), Some(&Value::from("int64")));
            if old != now {
                let effect = if is_wider {
                    Effect::Wider
                } else {
                    Effect::Narrower
                };
                let text =
                    |value: Option<&Value>| value.map_or("none".to_owned(), Value::to_string);
                let detail = format!("from {} to {}", text(old), text(now));
                self.note(field, rule, effect, detail);
            }
        }
    }

    fn members(&mut self, field: &str, base: &Map<String, Value>, new: &Map<String, Value>) {
        let (old, now) = (members_of(base), members_of(new));
        let (old_needed, needed) = (required(base), required(new));
        for (name, schema) in &old {
            let place = format!("{field}/{}", escaped(name));
            let Some(other) = now.get(name) else {
                self.note(&place, "field_removed", Effect::Narrower, String::new());
                continue;
            };
            self.schemas(&place, schema, other);
            match (old_needed.contains(name), needed.contains(name)) {
                (false, true) => {
                    self.note(
                        &place,
                        "field_made_required",
                        Effect::Narrower,
                        String::new(),
                    );
                }
                (true, false) => {
                    self.note(&place, "field_made_optional", Effect::Wider, String::new());
                }
                (true, true) | (false, false) => {}
            }
        }
        for name in now.keys().filter(|name| !old.contains_key(*name)) {
            let place = format!("{field}/{}", escaped(name));
            let (rule, effect) = match needed.contains(name) {
                true => ("required_field_added", Effect::Narrower),
                false => ("field_added", Effect::Wider),
            };
            self.note(&place, rule, effect, String::new());
        }
        let open = Value::Bool(true);
        let rest = |schema: &Map<String, Value>| {
            let rest = schema.get("additionalProperties");
            rest.unwrap_or(&open).clone()
        };
        match (rest(base), rest(new)) {
            (old, now) if old == now => {}
            (_, Value::Bool(true)) | (Value::Bool(false), _) => {
                self.note(
                    field,
                    "opened",
                    Effect::Wider,
                    "takes further fields".to_owned(),
                );
            }
            (_, Value::Bool(false)) | (Value::Bool(true), _) => {
                let detail = "takes no further fields, or fewer".to_owned();
                self.note(field, "closed", Effect::Narrower, detail);
            }
            (old, now) => self.schemas(&format!("{field}/*"), &old, &now),
        }
    }

    fn items(&mut self, field: &str, base: &Map<String, Value>, new: &Map<String, Value>) {
        let place = format!("{field}/*");
        match (base.get("items"), new.get("items")) {
            (Some(old), Some(now)) => self.schemas(&place, old, now),
            (None, Some(_)) => {
                self.note(&place, "items_limited", Effect::Narrower, String::new());
            }
            (Some(_), None) => self.note(&place, "items_opened", Effect::Wider, String::new()),
            (None, None) => {}
        }
        let first = |schema: &Map<String, Value>| {
            let items = schema.get("prefixItems").and_then(Value::as_array);
            items.cloned().unwrap_or_default()
        };
        let (old, now) = (first(base), first(new));
        if old.len() != now.len() {
            let detail = format!("from {} to {} items", old.len(), now.len());
            self.note(field, "tuple_changed", Effect::Narrower, detail);
        }
        for (place, (old, now)) in old.iter().zip(&now).enumerate() {
            self.schemas(&format!("{field}/{place}"), old, now);
        }
    }

    /// Choices between schemas; a schema that is no choice is a choice of one.
    fn choices(&mut self, field: &str, base: &Value, new: &Value) {
        let list = |schema: &Value| {
            let members = schema.as_object().and_then(alternatives);
            members.unwrap_or_else(|| vec![schema.clone()])
        };
        let (mut old, mut now) = (list(base), list(new));
        old.retain(|schema| {
            let same = |other: &Value| {
                let mut walk = Walk {
                    base: self.base,
                    new: self.new,
                    under: self.under.clone(),
                    found: BTreeSet::new(),
                };
                walk.schemas(field, schema, other);
                walk.found.is_empty()
            };
            match now.iter().position(same) {
                Some(place) => {
                    now.remove(place);
                    false
                }
                None => true,
            }
        });
        for (place, schema) in old.iter().enumerate() {
            match now.get(place) {
                Some(other) => self.schemas(field, schema, other),
                None => {
                    let detail = about(schema);
                    self.note(field, "alternative_removed", Effect::Narrower, detail);
                }
            }
        }
        for schema in now.iter().skip(old.len()) {
            self.note(field, "alternative_added", Effect::Wider, about(schema));
        }
    }
}

fn alternatives(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    let choice = schema.get("anyOf").or_else(|| schema.get("oneOf"))?;
    choice.as_array().cloned()
}

fn about(schema: &Value) -> String {
    let words = ["const", "enum", "$ref", "title", "type"];
    let named = words.iter().find_map(|word| schema.get(word));
    named.map_or_else(|| schema.to_string(), Value::to_string)
}

fn types_of(schema: &Map<String, Value>) -> BTreeSet<String> {
    match schema.get("type") {
        Some(Value::String(name)) => BTreeSet::from([name.clone()]),
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str);
            names.map(str::to_owned).collect()
        }
        _ => BTreeSet::new(),
    }
}

fn values_of(schema: &Map<String, Value>) -> Option<BTreeSet<String>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(BTreeSet::from([value.to_string()])),
        (None, Some(Value::Array(values))) => Some(values.iter().map(Value::to_string).collect()),
        _ => None,
    }
}

fn members_of(schema: &Map<String, Value>) -> Map<String, Value> {
    let members = schema.get("properties").and_then(Value::as_object);
    members.cloned().unwrap_or_default()
}

fn required(schema: &Map<String, Value>) -> BTreeSet<String> {
    let names = schema.get("required").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

fn listed(names: &BTreeSet<String>) -> String {
    match names.is_empty() {
        true => "anything".to_owned(),
        false => names.iter().cloned().collect::<Vec<_>>().join(" or "),
    }
}

/// The order of two limits. Whole numbers are compared exactly.
fn order(a: &Value, b: &Value) -> Ordering {
    let whole = |value: &Value| {
        let signed = value.as_i64().map(i128::from);
        signed.or_else(|| value.as_u64().map(i128::from))
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let number = |value: &Value| value.as_f64().unwrap_or_default();
            number(a).total_cmp(&number(b))
        }
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
