//! JSON as people read it: indented, and marked for the style sheet.
//!
//! Invariant: every member, number and text is shown as it stands in the answer, in its order; only
//! the white space between them is ours. Deliberately absent: values, which would sort members and
//! round numbers.

use maud::{Markup, PreEscaped, html};

/// The text with line breaks and indentation; text that is no JSON as it is.
#[must_use]
pub(crate) fn pretty(text: &str) -> Markup {
    let mut shown = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest);
        let (token, after) = rest.split_at(length);
        let after = after.trim_start();
        match first {
            '{' | '[' => {
                shown.push(first);
                let closing = after.starts_with(['}', ']']);
                depth += 1;
                if !closing {
                    break_line(&mut shown, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !shown.ends_with(['{', '[']) {
                    break_line(&mut shown, depth);
                }
                shown.push(first);
            }
            ',' => {
                shown.push(',');
                break_line(&mut shown, depth);
            }
            ':' => shown.push_str(": "),
            '"' if after.starts_with(':') => mark(&mut shown, "k", token),
            '"' => mark(&mut shown, "s", token),
            _ => mark(&mut shown, "n", token),
        }
        rest = after;
    }
    PreEscaped(shown)
}

/// A block of JSON that can be scrolled and copied.
#[must_use]
pub(crate) fn block(label: &str, text: &str) -> Markup {
    html! { pre.json tabindex="0" role="region" aria-label=(label) { code { (pretty(text)) } } }
}

fn break_line(shown: &mut String, depth: usize) {
    shown.push('\n');
    for _ in 0..depth {
        shown.push_str("  ");
    }
}

/// Appends a token in an element of this class.
fn mark(shown: &mut String, class: &str, token: &str) {
    let token = html! { span class=(class) { (token) } };
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
    fn text_from_elsewhere_stays_text() {
        let shown = pretty(r#"{"a":"<script>\"{,"}"#).into_string();
        assert!(shown.contains("&lt;script&gt;\\&quot;{,"), "{shown}");
        for broken in ["", "{", "\"", "]]", "{\"a\":", "<b>", "é\u{0}"] {
            let shown = pretty(broken).into_string();
            assert!(!shown.contains("<b>"), "{shown}");
        }
    }
}
