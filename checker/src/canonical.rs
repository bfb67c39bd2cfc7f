//! A digest of a JSON value that does not depend on how the value was written.
//!
//! Invariant: the order of members, spaces, `2.0` for `2` and absent for null make no difference;
//! everything else does. This is what the protocol calls data "as parsed".

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The first 16 bytes of a SHA-256: enough to tell values apart.
pub(crate) type Digest = [u8; 16];

/// Above 2^53, neighbouring whole numbers share one 64-bit float.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

pub(crate) fn digest(value: &Value) -> Digest {
    let mut hasher = Sha256::new();
    add(&mut hasher, value);
    shortened(hasher)
}

/// A digest of a text, for ids that are not UUIDs.
pub(crate) fn of_text(text: &str) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(text);
    shortened(hasher)
}

fn shortened(hasher: Sha256) -> Digest {
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize()[..16]);
    first
}

fn add(hasher: &mut Sha256, value: &Value) {
    let text = |hasher: &mut Sha256, text: &str| {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    };
    match value {
        Value::Null => hasher.update(b"n"),
        Value::Bool(true) => hasher.update(b"t"),
        Value::Bool(false) => hasher.update(b"f"),
        Value::Number(number) => {
            hasher.update(b"#");
            text(hasher, &plain(number));
        }
        Value::String(string) => {
            hasher.update(b"s");
            text(hasher, string);
        }
        Value::Array(items) => {
            hasher.update(b"[");
            hasher.update((items.len() as u64).to_be_bytes());
            items.iter().for_each(|item| add(hasher, item));
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().filter(|(_, v)| !v.is_null()).collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            hasher.update(b"{");
            hasher.update((members.len() as u64).to_be_bytes());
            for (name, value) in members {
                text(hasher, name);
                add(hasher, value);
            }
        }
    }
}

/// A number in its shortest form.
fn plain(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= WHOLE_MAX => {
            format!("{float:.0}")
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Digest {
        digest(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_spelling_makes_no_difference_and_the_content_does() {
        let same = [
            (r#"{"a":1,"b":[2.0]}"#, r#"{ "b":[2], "a":1e0 }"#),
            (r#"{"a":null}"#, "{}"),
            (r#"{"a":{"b":null,"c":-1}}"#, r#"{"a":{"c":-1.0}}"#),
        ];
        for (one, other) in same {
            assert_eq!(of(one), of(other), "{one} {other}");
        }
        let different = [
            ("[null]", "[]"),
            ("1", "\"1\""),
            ("[[1],2]", "[[1,2]]"),
            ("0.5", "0.25"),
            (r#"{"a":"bc"}"#, r#"{"ab":"c"}"#),
            ("9007199254740993", "9007199254740992"),
        ];
        for (one, other) in different {
            assert_ne!(of(one), of(other), "{one} {other}");
        }
    }
}
