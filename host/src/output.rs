//! Data on stdout: as a table for people, as JSON, as JSON lines, as CSV.
//!
//! Invariant: only data is printed on stdout. If the reader closes the pipe, the program ends
//! quietly. Texts from outside are made harmless in every format (`escape`). Deliberately absent:
//! messages and logs, which go to stderr.

use std::io::{self, Write};

use crate::exit::{Exit, Failure};
use crate::settings::OutputFormat;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use kernel::escape;
pub use kernel::escape::{csv_cell, shown};
use serde::Serialize;
use serde_json::Value;

/// Prints rows. Tables and CSV show `columns`, in this order; JSON shows the rows whole.
///
/// # Errors
/// `Failed` where stdout cannot be written.
pub fn rows<T: Serialize>(
    format: OutputFormat,
    columns: &[&str],
    rows: &[T],
) -> Result<(), Failure> {
    print(rows_text(format, columns, rows)?.as_bytes())
}

/// Prints one record: a table of names and values, or one document.
///
/// # Errors
/// `Failed` where stdout cannot be written.
pub fn record<T: Serialize>(
    format: OutputFormat,
    columns: &[&str],
    record: &T,
) -> Result<(), Failure> {
    print(record_text(format, columns, record)?.as_bytes())
}

fn rows_text<T: Serialize>(
    format: OutputFormat,
    columns: &[&str],
    rows: &[T],
) -> Result<String, Failure> {
    match format {
        OutputFormat::Table => {
            let rows = rows.iter().map(|row| cells(columns, row, table_cell));
            let rows = rows.collect::<Result<Vec<_>, Failure>>()?;
            Ok(table(columns, rows) + "\n")
        }
        OutputFormat::Json => json_text(serde_json::to_string_pretty(rows)),
        OutputFormat::Ndjson => {
            let lines = rows.iter().map(|row| json_text(serde_json::to_string(row)));
            lines.collect()
        }
        OutputFormat::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            let mut write = |record: &[String]| {
                let written = writer.write_record(record);
                written.map_err(|error| unwritable(&error))
            };
            let header: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
            write(&header)?;
            for row in rows {
                write(&cells(columns, row, csv_cell_of)?)?;
            }
            let written = writer.into_inner().map_err(|error| unwritable(&error))?;
            String::from_utf8(written).map_err(|error| unwritable(&error))
        }
    }
}

fn record_text<T: Serialize>(
    format: OutputFormat,
    columns: &[&str],
    record: &T,
) -> Result<String, Failure> {
    match format {
        OutputFormat::Table => {
            let values = cells(columns, record, table_cell)?;
            let pairs = columns.iter().map(|name| (*name).to_owned()).zip(values);
            let rows = pairs.map(|(name, value)| vec![name, value]).collect();
            Ok(table(&[], rows) + "\n")
        }
        OutputFormat::Json => json_text(serde_json::to_string_pretty(record)),
        OutputFormat::Ndjson | OutputFormat::Csv => rows_text(format, columns, &[record]),
    }
}

fn json_text(written: serde_json::Result<String>) -> Result<String, Failure> {
    let text = written.map_err(|error| unwritable(&error))?;
    Ok(format!("{}\n", escape::json(&text)))
}

/// Formats JSON with one member per line, in the order of the input.
///
/// Works on the text, because reading it into values and writing them again would sort the members.
/// Input that is not JSON causes no error; its text is kept as far as possible.
#[must_use]
pub fn pretty(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut chars = json.chars().peekable();
    let new_line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(char) = chars.next() {
        if in_string {
            text.push(char);
            in_string = escaped || char != '"';
            escaped = char == '\\' && !escaped;
            continue;
        }
        match char {
            '"' => {
                in_string = true;
                text.push(char);
            }
            '{' | '[' => {
                text.push(char);
                while chars.peek().is_some_and(char::is_ascii_whitespace) {
                    chars.next();
                }
                if matches!(chars.peek(), Some('}' | ']')) {
                    text.extend(chars.next());
                } else {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(char);
            }
            ',' => {
                text.push(char);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            space if space.is_ascii_whitespace() => {}
            other => text.push(other),
        }
    }
    text
}

/// Prints one line of text, or several.
///
/// # Errors
/// `Failed` where stdout cannot be written.
pub fn line(text: &str) -> Result<(), Failure> {
    print(format!("{}\n", escape::lines(text)).as_bytes())
}

/// Prints a JSON text; its layout stays as it is.
///
/// # Errors
/// `Failed` where stdout cannot be written.
pub fn json(text: &str) -> Result<(), Failure> {
    print(format!("{}\n", escape::json(text)).as_bytes())
}

/// Prints bytes without escaping them: the caller has made them harmless.
///
/// # Errors
/// `Failed` where stdout cannot be written.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // The reader closed the pipe, as in `annals events … | head`: that is not a failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent(Exit::Done)),
        outcome => outcome.map_err(|error| unwritable(&error)),
    }
}

fn unwritable(error: &dyn std::error::Error) -> Failure {
    Failure::of(Exit::Failed, error).while_trying("write to stdout")
}

fn cells<T: Serialize>(
    columns: &[&str],
    row: &T,
    cell_of: fn(&Value) -> String,
) -> Result<Vec<String>, Failure> {
    let value = serde_json::to_value(row).map_err(|error| unwritable(&error))?;
    let cell = |column: &&str| value.get(*column).map_or_else(String::new, cell_of);
    Ok(columns.iter().map(cell).collect())
}

/// A value as one cell: text without quotes, null as an empty cell, anything else as JSON.
fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn table_cell(value: &Value) -> String {
    escape::shown(&cell_text(value)).into_owned()
}

fn csv_cell_of(value: &Value) -> String {
    escape::csv_cell(&cell_text(value)).into_owned()
}

/// Aligned columns without border lines; columns of numbers are right-aligned.
fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !header.is_empty() {
        table.set_header(header);
    }
    let is_number = |text: &&String| text.parse::<f64>().is_ok();
    let numbers: Vec<bool> = (0..header.len())
        .map(|index| {
            let cells = rows.iter().map(|row| &row[index]);
            let filled: Vec<&String> = cells.filter(|cell| !cell.is_empty()).collect();
            !filled.is_empty() && filled.iter().all(is_number)
        })
        .collect();
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.get(index) == Some(&true) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_unfolded_in_its_own_order() {
        let folded = r#"{"b":[1,2,{}],"a":"x\\\",{y}","c":[],"d":{"e":null}}"#;
        let unfolded = pretty(folded);
        let lines = [
            "{",
            "  \"b\": [",
            "    1,",
            "    2,",
            "    {}",
            "  ],",
            r#"  "a": "x\\\",{y}","#,
            "  \"c\": [],",
            "  \"d\": {",
            "    \"e\": null",
            "  }",
            "}",
        ];
        assert_eq!(unfolded, lines.join("\n"));
        assert_eq!(pretty(&unfolded), unfolded);
    }

    #[test]
    fn a_table_is_aligned_and_numbers_stand_to_the_right() {
        let rows = [
            json!({"name": "a", "count": 10}),
            json!({"name": "long", "count": null}),
        ];
        let columns = ["name", "count"];
        let rows: Vec<_> = rows
            .iter()
            .map(|row| cells(&columns, row, table_cell).unwrap())
            .collect();
        assert_eq!(table(&columns, rows), "name  count\na        10\nlong");
    }

    const FORMATS: [OutputFormat; 4] = [
        OutputFormat::Table,
        OutputFormat::Json,
        OutputFormat::Ndjson,
        OutputFormat::Csv,
    ];

    /// Texts with many characters that terminals and spreadsheets act on.
    fn hostile_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-z0-9 ,;\"'{}]{0,6}",
            prop::char::range('\u{0}', '\u{9f}').prop_map(String::from),
            prop::char::range('\u{200b}', '\u{206f}').prop_map(String::from),
            any::<char>().prop_map(String::from),
            prop::sample::select(vec![
                "=",
                "@",
                "+",
                "-",
                "\u{1b}[2J",
                "\u{1b}]0;title\u{7}",
                "\u{202e}",
                "\r",
                "\n",
                "\r\n",
                "\t",
                "\u{9b}31m",
                "\u{e0041}",
                "\u{feff}",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    /// Characters that no output may contain, except the line feeds that end its lines. Defined
    /// independently of the tested code.
    fn is_obeyed(char: char) -> bool {
        matches!(char,
            '\0'..='\u{9}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    }

    proptest! {
        #[test]
        fn no_format_prints_characters_that_a_terminal_or_a_spreadsheet_obeys(
            texts in prop::collection::vec((hostile_text(), hostile_text()), 1..4),
        ) {
            let rows: Vec<Value> = texts
                .iter()
                .map(|(a, b)| json!({"a": a, "b": {a.as_str(): b}, "n": -7}))
                .collect();
            let columns = ["a", "b", "n"];
            for format in FORMATS {
                let all = rows_text(format, &columns, &rows).unwrap();
                let one = record_text(format, &columns, &rows[0]).unwrap();
                for text in [&all, &one] {
                    let is_csv = format == OutputFormat::Csv;
                    let obeyed = text.chars().find(|char| {
                        is_obeyed(*char) && !(is_csv && *char == '\t')
                    });
                    prop_assert_eq!(obeyed, None, "{:?}: {:?}", format, text);
                }
                match format {
                    OutputFormat::Json => {
                        let read: Vec<Value> = serde_json::from_str(&all).unwrap();
                        prop_assert_eq!(&read, &rows);
                    }
                    OutputFormat::Ndjson => {
                        let read = all.lines().map(|line| serde_json::from_str(line).unwrap());
                        prop_assert_eq!(&read.collect::<Vec<Value>>(), &rows);
                    }
                    OutputFormat::Csv => {
                        let mut reader = csv::Reader::from_reader(all.as_bytes());
                        let read: Vec<_> = reader.records().map(Result::unwrap).collect();
                        prop_assert_eq!(read.len(), rows.len());
                        for (record, (text, _)) in read.iter().zip(&texts) {
                            prop_assert_eq!(&record[2], "-7");
                            let is_number = text.trim().parse::<f64>().is_ok();
                            let computes = record[0].starts_with(['=', '+', '-', '@', '\t']);
                            prop_assert!(is_number || !computes, "{:?}", record);
                        }
                    }
                    OutputFormat::Table => {}
                }
            }
            for (text, _) in &texts {
                prop_assert!(!escape::lines(text).chars().any(is_obeyed));
                let folded = serde_json::to_string(&json!({"a": text})).unwrap();
                let unfolded = pretty(&folded);
                let shown = escape::json(&unfolded);
                prop_assert!(!shown.chars().any(is_obeyed));
                let read: Value = serde_json::from_str(&shown).unwrap();
                prop_assert_eq!(read, json!({"a": text}));
            }
        }
    }
}
