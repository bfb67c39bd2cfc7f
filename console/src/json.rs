//! JSON as people read it: indented, and marked for the style sheet.
//!
//! Invariant: every member, number and text is shown as it stands in the answer, in its order; only
//! the white space between them is ours. Deliberately absent: values, which would sort members and
//! round numbers.

use maud::{Markup, PreEscaped, html};

/// The text with line breaks and indentation; text that is no JSON as it is.
#[cfg(test)]
fn pretty(text: &str) -> Markup {
    pretty_with(text, &|_| false)
}

/// The same, with a mark at each value for whose place `is_marked` says so. A place is a JSON pointer.
fn pretty_with(text: &str, is_marked: &dyn Fn(&str) -> bool) -> Markup {
    let mut shown = String::with_capacity(text.len() * 2);
    let mut place = Place::default();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest);
        let (token, after) = rest.split_at(length);
        let after = after.trim_start();
        match first {
            '{' | '[' => {
                shown.push(first);
                let closing = after.starts_with(['}', ']']);
                place.enter(first == '[');
                if !closing {
                    break_line(&mut shown, place.depth());
                }
            }
            '}' | ']' => {
                place.leave();
                if !shown.ends_with(['{', '[']) {
                    break_line(&mut shown, place.depth());
                }
                shown.push(first);
            }
            ',' => {
                shown.push(',');
                place.next();
                break_line(&mut shown, place.depth());
            }
            ':' => shown.push_str(": "),
            '"' if after.starts_with(':') => {
                place.member(token);
                mark(&mut shown, "k", token, false);
            }
            _ => {
                let class = if first == '"' { "s" } else { "n" };
                mark(&mut shown, class, token, is_marked(&place.pointer));
            }
        }
        rest = after;
    }
    PreEscaped(shown)
}

/// Where in a JSON text a reader is.
#[derive(Default)]
struct Place {
    pointer: String,
    /// For each container: the index in an array, and how long the pointer to the container is.
    within: Vec<(Option<usize>, usize)>,
}

impl Place {
    fn depth(&self) -> usize {
        self.within.len()
    }

    fn enter(&mut self, is_array: bool) {
        self.within
            .push((is_array.then_some(0), self.pointer.len()));
        if is_array {
            self.pointer.push_str("/0");
        }
    }

    fn leave(&mut self) {
        if let Some((_, length)) = self.within.pop() {
            self.pointer.truncate(length);
        }
    }

    /// The next element of an array.
    fn next(&mut self) {
        if let Some((index, length)) = self.within.last_mut() {
            self.pointer.truncate(*length);
            if let Some(index) = index {
                *index += 1;
                self.pointer.push_str(&format!("/{index}"));
            }
        }
    }

    /// The member of an object with this name, which is still in quotes.
    fn member(&mut self, token: &str) {
        let Some((None, length)) = self.within.last() else {
            return;
        };
        self.pointer.truncate(*length);
        let name: String = serde_json::from_str(token).unwrap_or_default();
        self.pointer.push('/');
        self.pointer
            .push_str(&name.replace('~', "~0").replace('/', "~1"));
    }
}

/// A block of JSON that can be scrolled and copied.
#[must_use]
pub(crate) fn block(label: &str, text: &str) -> Markup {
    marked_block(label, text, &[])
}

/// The same, with marks at these places, which are JSON pointers, and in them.
#[must_use]
pub(crate) fn marked_block(label: &str, text: &str, places: &[&str]) -> Markup {
    let is_marked = |pointer: &str| {
        let holds = |place: &&str| {
            let rest = pointer.strip_prefix(*place);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        places.iter().any(holds)
    };
    html! {
        pre.json tabindex="0" role="region" aria-label=(label) {
            code { (pretty_with(text, &is_marked)) }
        }
    }
}

fn break_line(shown: &mut String, depth: usize) {
    shown.push('\n');
    for _ in 0..depth {
        shown.push_str("  ");
    }
}

/// Appends a token in an element of this class.
fn mark(shown: &mut String, class: &str, token: &str, is_marked: bool) {
    let token = match is_marked {
        true => html! { mark class=(class) { (token) } },
        false => html! { span class=(class) { (token) } },
    };
    shown.push_str(&token.into_string());
}

/// How many bytes the first token has.
fn token_length(text: &str) -> usize {
    let mut letters = text.char_indices();
    let Some((_, first)) = letters.next() else {
        return 0;
    };
    if first == '"' {
        let mut is_escaped = false;
        for (index, letter) in letters {
            match letter {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => return index + 1,
                _ => {}
            }
        }
        return text.len();
    }
    if "{}[],:".contains(first) {
        return first.len_utf8();
    }
    let ends = |letter: char| letter.is_whitespace() || "{}[],:\"".contains(letter);
    letters
        .find(|(_, letter)| ends(*letter))
        .map_or(text.len(), |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_numbers_their_digits() {
        let shown = pretty(r#"{"b":12345678901234567890,"a":[1.50,"x"],"e":{},"n":null}"#);
        let shown = shown.into_string();
        let plain = shown.replace("</span>", "");
        let plain = ["k", "s", "n"].iter().fold(plain, |text, class| {
            text.replace(&format!("<span class=\"{class}\">"), "")
        });
        let expected = "{\n  &quot;b&quot;: 12345678901234567890,\n  &quot;a&quot;: [\n    1.50,\n    \
                        &quot;x&quot;\n  ],\n  &quot;e&quot;: {},\n  &quot;n&quot;: null\n}";
        assert_eq!(plain, expected);
    }

    #[test]
    fn the_values_at_marked_places_are_marked() {
        let text = r#"{"a/b":[1,{"c":"x"}],"d":{"a/b":2},"e":[[],3]}"#;
        for (places, marked) in [
            (&["/a~1b/1"][..], &["&quot;x&quot;"][..]),
            (&["/a~1b"], &["1", "&quot;x&quot;"]),
            (&["/e/1", "/d/a~1b"], &["2", "3"]),
            (&["/e/0", "/a"], &[]),
            (&[""], &["1", "&quot;x&quot;", "2", "3"]),
        ] {
            let shown = marked_block("State", text, places).into_string();
            let found = shown.split("<mark class=").skip(1);
            let found: Vec<_> = found
                .map(|rest| &rest[4..rest.find('<').unwrap()])
                .collect();
            assert_eq!(found, marked, "{places:?}: {shown}");
        }
    }

    #[test]
    fn text_from_elsewhere_stays_text() {
        let shown = pretty(r#"{"a":"<script>\"{,"}"#).into_string();
        assert!(shown.contains("&lt;script&gt;\\&quot;{,"), "{shown}");
        for broken in ["", "{", "\"", "]]", "{\"a\":", "<b>", "é\u{0}"] {
            let shown = pretty(broken).into_string();
            assert!(!shown.contains("<b>"), "{shown}");
        }
    }
}
