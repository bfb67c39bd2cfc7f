//! What differs between two JSON texts, field by field.
//!
//! Invariant: the changes, applied one after another to the text before, give the text after.
//! Values stay as they were written, digit by digit. Arrays are compared by index: what an array
//! lost at its end is removed from the last element on. Deliberately absent: what made a change.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

/// A value that lies deeper is compared as a whole.
const DEPTH_MAX: usize = 64;

/// What happened to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Added,
    Removed,
    Changed,
}

/// A field that differs.
#[derive(Clone, Debug)]
pub(super) struct Change<'t> {
    /// Where it is: a JSON pointer (RFC 6901).
    pub(super) path: String,
    pub(super) kind: Kind,
    /// Its value before; absent if it was added.
    pub(super) before: Option<&'t RawValue>,
    /// Its value after; absent if it was removed.
    pub(super) after: Option<&'t RawValue>,
}

/// The changes from one JSON text to another.
///
/// # Errors
/// If a text is not JSON.
pub(super) fn changes<'t>(
    before: &'t str,
    after: &'t str,
) -> Result<Vec<Change<'t>>, serde_json::Error> {
    let mut found = Found::default();
    let (before, after) = (serde_json::from_str(before)?, serde_json::from_str(after)?);
    found.compare(before, after, 0)?;
    Ok(found.changes)
}

#[derive(Default)]
struct Found<'t> {
    path: String,
    changes: Vec<Change<'t>>,
}

impl<'t> Found<'t> {
    fn compare(
        &mut self,
        before: &'t RawValue,
        after: &'t RawValue,
        depth: usize,
    ) -> Result<(), serde_json::Error> {
        if before.get() == after.get() {
            return Ok(());
        }
        let first = |value: &RawValue| value.get().as_bytes().first().copied();
        match (first(before), first(after)) {
            (Some(b'{'), Some(b'{')) if depth < DEPTH_MAX => self.objects(before, after, depth),
            (Some(b'['), Some(b'[')) if depth < DEPTH_MAX => self.arrays(before, after, depth),
            _ => {
                self.push(Some(before), Some(after));
                Ok(())
            }
        }
    }

    fn objects(
        &mut self,
        before: &'t RawValue,
        after: &'t RawValue,
        depth: usize,
    ) -> Result<(), serde_json::Error> {
        type Members<'t> = BTreeMap<String, &'t RawValue>;
        let before: Members<'t> = serde_json::from_str(before.get())?;
        let mut after: Members<'t> = serde_json::from_str(after.get())?;
        for (name, old) in before {
            let new = after.remove(&name);
            self.below(&name, |found| match new {
                Some(new) => found.compare(old, new, depth + 1),
                None => {
                    found.push(Some(old), None);
                    Ok(())
                }
            })?;
        }
        for (name, new) in after {
            self.below(&name, |found| {
                found.push(None, Some(new));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn arrays(
        &mut self,
        before: &'t RawValue,
        after: &'t RawValue,
        depth: usize,
    ) -> Result<(), serde_json::Error> {
        let before: Vec<&'t RawValue> = serde_json::from_str(before.get())?;
        let after: Vec<&'t RawValue> = serde_json::from_str(after.get())?;
        for (index, (old, new)) in before.iter().zip(&after).enumerate() {
            self.below(&index.to_string(), |found| {
                found.compare(old, new, depth + 1)
            })?;
        }
        let common = before.len().min(after.len());
        for (index, old) in before.iter().enumerate().skip(common).rev() {
            self.below(&index.to_string(), |found| {
                found.push(Some(old), None);
                Ok(())
            })?;
        }
        for (index, new) in after.iter().enumerate().skip(common) {
            self.below(&index.to_string(), |found| {
                found.push(None, Some(new));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Does something one step below the present path.
    fn below<T>(&mut self, name: &str, act: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push('/');
        for letter in name.chars() {
            match letter {
                '~' => self.path.push_str("~0"),
                '/' => self.path.push_str("~1"),
                letter => self.path.push(letter),
            }
        }
        let done = act(self);
        self.path.truncate(length);
        done
    }

    fn push(&mut self, before: Option<&'t RawValue>, after: Option<&'t RawValue>) {
        let kind = match (before, after) {
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
            (Some(_), Some(_)) => Kind::Changed,
        };
        self.changes.push(Change {
            path: self.path.clone(),
            kind,
            before,
            after,
        });
    }
}

/// Who changed some fields last.
pub(super) struct Authors<T>(BTreeMap<String, Option<T>>);

impl<T: Clone> Authors<T> {
    /// Nobody yet, for each of these fields.
    pub(super) fn of<'p>(paths: impl IntoIterator<Item = &'p str>) -> Self {
        let nobody = paths.into_iter().map(|path| (path.to_owned(), None));
        Self(nobody.collect())
    }

    /// Notes who changed a field: it counts for the field, for what holds it, and for all that lies
    /// in it.
    pub(super) fn note(&mut self, changed: &str, author: &T) {
        let ends = changed.match_indices('/').map(|(end, _)| end);
        for end in ends.chain([changed.len()]) {
            if let Some(last) = self.0.get_mut(&changed[..end]) {
                *last = Some(author.clone());
            }
        }
        let below = format!("{changed}/");
        let inside = self.0.range_mut(below.clone()..);
        for (_, last) in inside.take_while(|(path, _)| path.starts_with(&below)) {
            *last = Some(author.clone());
        }
    }

    /// Who changed a field last.
    pub(super) fn get(&self, path: &str) -> Option<&T> {
        self.0.get(path)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Applies the changes in a way of its own: by values, not by text.
    fn applied(mut value: Value, changes: &[Change<'_>]) -> Value {
        for change in changes {
            let new = change.after.map(|after| serde_json::from_str(after.get()));
            let new: Option<Value> = new.transpose().unwrap();
            let old = change.before.map(|before| before.get().parse::<Value>());
            assert_eq!(
                value.pointer(&change.path).cloned(),
                old.transpose().unwrap()
            );
            let Some((parent, last)) = change.path.rsplit_once('/') else {
                value = new.unwrap();
                continue;
            };
            let last = last.replace("~1", "/").replace("~0", "~");
            match (value.pointer_mut(parent).unwrap(), new) {
                (Value::Object(members), Some(new)) => {
                    members.insert(last, new);
                }
                (Value::Object(members), None) => {
                    members.remove(&last).unwrap();
                }
                (Value::Array(elements), Some(new)) => {
                    let index: usize = last.parse().unwrap();
                    match elements.get_mut(index) {
                        Some(old) => *old = new,
                        None => elements.insert(index, new),
                    }
                }
                (Value::Array(elements), None) => {
                    assert_eq!(elements.len(), last.parse::<usize>().unwrap() + 1);
                    elements.pop();
                }
                (other, _) => panic!("{other} has no fields"),
            }
        }
        value
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3..3_i64).prop_map(Value::from),
            "[a-b/~\"{é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-b/~ ]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn the_changes_lead_from_one_state_to_the_other(before in any_json(), after in any_json()) {
            let texts = [before.to_string(), after.to_string()];
            let found = changes(&texts[0], &texts[1]).unwrap();
            prop_assert_eq!(found.is_empty(), before == after);
            prop_assert_eq!(applied(before, &found), after);
        }
    }

    #[test]
    fn numbers_keep_their_digits_and_names_are_escaped() {
        let before = r#"{"a/b":{"~":12345678901234567890123},"gone":null,"list":[1,2,3]}"#;
        let after = r#"{"a/b":{"~":12345678901234567890124},"list":[1],"new":{}}"#;
        let found = changes(before, after).unwrap();
        let text = |value: Option<&RawValue>| value.map(|value| value.get().to_owned());
        let found: Vec<Value> = found
            .iter()
            .map(|c| json!([c.path, c.kind, text(c.before), text(c.after)]))
            .collect();
        let expected = json!([
            [
                "/a~1b/~0",
                "changed",
                "12345678901234567890123",
                "12345678901234567890124"
            ],
            ["/gone", "removed", "null", null],
            ["/list/2", "removed", "3", null],
            ["/list/1", "removed", "2", null],
            ["/new", "added", null, "{}"],
        ]);
        assert_eq!(Value::from(found), expected);
    }

    #[test]
    fn what_lies_too_deep_is_compared_as_a_whole() {
        let deep = |leaf: &str| format!("{}{leaf}{}", "[".repeat(100), "]".repeat(100));
        let (before, after) = (deep("1"), deep("2"));
        let found = changes(&before, &after).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path.len(), 2 * DEPTH_MAX);
    }

    #[test]
    fn a_change_counts_for_what_holds_the_field_and_for_what_lies_in_it() {
        let mut authors = Authors::of(["", "/a", "/a/b", "/a/b/c", "/a/d", "/ab"]);
        authors.note("/a/b", &1);
        let seen = |authors: &Authors<i32>| {
            ["", "/a", "/a/b", "/a/b/c", "/a/d", "/ab"].map(|path| authors.get(path).copied())
        };
        let one = Some(1);
        assert_eq!(seen(&authors), [one, one, one, one, None, None]);
        authors.note("/a/b/c/e", &2);
        let two = Some(2);
        assert_eq!(seen(&authors), [two, two, two, two, None, None]);
    }
}
