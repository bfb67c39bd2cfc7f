//! Makes text from outside harmless for its reader.
//!
//! Invariant: no control character, no escape sequence and no character that reorders text reaches
//! a terminal, and no cell of a CSV file is a formula. JSON keeps its meaning: an escaped character
//! is read back as itself. Deliberately absent: output.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a terminal would do more with the character than show it. These are control characters
/// (escape sequences begin with one), line separators, marks that reorder text, and tags.
fn is_hostile(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn escaped(
    text: &str,
    is_kept: impl Fn(char) -> bool,
    escape: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    let is_harmless = |char: char| !is_hostile(char) || is_kept(char);
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_harmless(char) {
            shown.push(char);
        } else {
            escape(&mut shown, char);
        }
    }
    Cow::Owned(shown)
}

/// Escapes as Rust does: `\n`, `\u{1b}`.
fn for_people(shown: &mut String, char: char) {
    match char {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        // A write into a string cannot fail.
        other => {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(other));
        }
    }
}

/// Escapes as JSON does: `\u001b`.
fn for_json(shown: &mut String, char: char) {
    let mut units = [0; 2];
    for unit in char.encode_utf16(&mut units) {
        let _ = write!(shown, "\\u{unit:04x}");
    }
}

/// A text to be shown on one line.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, for_people)
}

/// A text to be shown on several lines.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |char| char == '\n', for_people)
}

/// A JSON text, possibly on several lines. JSON itself escapes some control characters in strings;
/// the others are escaped the same way here, so the meaning stays.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |char| char == '\n', for_json)
}

/// A line of the program's log, which may hold our own colour codes. The formatter escapes ASCII
/// control characters in values; this escapes all others, in a form that JSON reads too.
#[must_use]
pub fn log_line(text: &str) -> Cow<'_, str> {
    escaped(text, |char| char.is_ascii(), for_json)
}

/// A text as one cell of a CSV file. If a spreadsheet would take the text for a formula, an
/// apostrophe is put in front. Line breaks and tabs are allowed in a cell and stay.
#[must_use]
pub fn csv_cell(text: &str) -> Cow<'_, str> {
    let clean = match text.contains('\r') {
        // A lone carriage return would let the line be overwritten.
        true => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\\r")),
        false => Cow::Borrowed(text),
    };
    let is_kept = |char| matches!(char, '\n' | '\t');
    let cell = match clean {
        Cow::Borrowed(text) => escaped(text, is_kept, for_people),
        Cow::Owned(text) => Cow::Owned(escaped(&text, is_kept, for_people).into_owned()),
    };
    if is_formula(&cell) {
        return Cow::Owned(format!("'{cell}"));
    }
    cell
}

/// Whether a spreadsheet would compute the cell. A number with a sign is not a formula.
fn is_formula(cell: &str) -> bool {
    let begins = ['=', '+', '-', '@', '\t', '\n', '＝', '＋', '－', '＠'];
    let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E');
    let unsigned = cell.strip_prefix(['-', '+']).unwrap_or(cell);
    let is_number = unsigned.bytes().all(is_digit) && cell.parse::<f64>().is_ok();
    cell.starts_with(begins) && !is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        for (text, one_line) in [
            ("São Paulo, 東京, 👩‍👩‍👧", "São Paulo, 東京, 👩‍👩‍👧"),
            ("\u{1b}]0;t\u{7}\u{1b}[2J", "\\u{1b}]0;t\\u{7}\\u{1b}[2J"),
            ("\u{9b}31mred\u{7f}", "\\u{9b}31mred\\u{7f}"),
            ("Ship\u{202e}redrO", "Ship\\u{202e}redrO"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(shown(text), one_line);
        }
        assert_eq!(lines("a\nb\u{1b}"), "a\nb\\u{1b}");
        let colours = "\u{1b}[31mWARN\u{1b}[0m path=\"a\u{202e}b\"\n";
        let line = "\u{1b}[31mWARN\u{1b}[0m path=\"a\\u202eb\"\n";
        assert_eq!(log_line(colours), line);
        assert_eq!(json("\"\u{9b}\u{e0041}\"\n"), "\"\\u009b\\udb40\\udc41\"\n");
    }

    #[test]
    fn formulas_become_text() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("+55 11 5555", "'+55 11 5555"),
            ("-2+3", "'-2+3"),
            ("-", "'-"),
            ("-e", "'-e"),
            ("\t=1", "'\t=1"),
            ("\r\n=1", "'\n=1"),
            ("＝1", "'＝1"),
            ("-12.5", "-12.5"),
            ("a=1", "a=1"),
            ("over\r it", "over\\r it"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            assert_eq!(csv_cell(text), cell, "{text:?}");
        }
    }
}
