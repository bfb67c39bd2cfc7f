//! Data on stdout: as a table for people, as JSON, as JSON lines, as CSV.
//!
//! Invariant: a reader that closes the pipe ends us quietly; nothing else is ever printed on stdout.
//! Deliberately absent: talk, which goes to stderr.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::settings::OutputFormat;

/// Prints rows. Tables and CSV show `columns`, in this order; JSON shows the rows whole.
///
/// # Errors
/// `Failed` where stdout cannot be written.
pub fn rows<T: Serialize>(
    format: OutputFormat,
    columns: &[&str],
    rows: &[T],
) -> Result<(), Failure> {
    let mut text = Vec::new();
    match format {
        OutputFormat::Table => {
            let rows = rows.iter().map(|row| cells(columns, row));
            let rows = rows.collect::<Result<Vec<_>, Failure>>()?;
            text.extend(table(columns, rows).into_bytes());
            text.push(b'\n');
        }
        OutputFormat::Json => {
            serde_json::to_writer_pretty(&mut text, rows).map_err(|error| unwritable(&error))?;
            text.push(b'\n');
        }
        OutputFormat::Ndjson => {
            for row in rows {
                serde_json::to_writer(&mut text, row).map_err(|error| unwritable(&error))?;
                text.push(b'\n');
            }
        }
        OutputFormat::Csv => {
            let mut writer = csv::Writer::from_writer(&mut text);
            let mut write = |record: &[String]| {
                let written = writer.write_record(record);
                written.map_err(|error| unwritable(&error))
            };
            let header: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
            write(&header)?;
            for row in rows {
                write(&cells(columns, row)?)?;
            }
            drop(writer);
        }
    }
    print(&text)
}

/// Prints one thing: a table of names and values, or one document.
///
/// # Errors
/// `Failed` where stdout cannot be written.
pub fn record<T: Serialize>(
    format: OutputFormat,
    columns: &[&str],
    record: &T,
) -> Result<(), Failure> {
    match format {
        OutputFormat::Table => {
            let values = cells(columns, record)?;
            let pairs = columns.iter().map(|name| (*name).to_owned()).zip(values);
            let rows = pairs.map(|(name, value)| vec![name, value]).collect();
            let mut text = table(&[], rows);
            text.push('\n');
            print(text.as_bytes())
        }
        OutputFormat::Json => {
            let mut text = serde_json::to_vec_pretty(record).map_err(|error| unwritable(&error))?;
            text.push(b'\n');
            print(&text)
        }
        OutputFormat::Ndjson | OutputFormat::Csv => rows(format, columns, &[record]),
    }
}

/// JSON with a line for each member, in the order it came in.
///
/// Works on the text: reading it into values and writing them again would sort the members. What is
/// no JSON stays as it is where that can be helped.
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
    print(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
///
/// # Errors
/// `Failed` where stdout cannot be written.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // Whoever read has seen enough, as in `annals events … | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent(Exit::Done)),
        outcome => outcome.map_err(|error| unwritable(&error)),
    }
}

fn unwritable(error: &dyn std::error::Error) -> Failure {
    Failure::of(Exit::Failed, error).while_trying("write to stdout")
}

fn cells<T: Serialize>(columns: &[&str], row: &T) -> Result<Vec<String>, Failure> {
    let value = serde_json::to_value(row).map_err(|error| unwritable(&error))?;
    let cell = |column: &&str| value.get(*column).map_or_else(String::new, cell_of);
    Ok(columns.iter().map(cell).collect())
}

/// A value as one cell: text bare, nothing for null, the rest as JSON.
fn cell_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Aligned columns without lines; columns of numbers to the right.
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
            .map(|row| cells(&columns, row).unwrap())
            .collect();
        assert_eq!(table(&columns, rows), "name  count\na        10\nlong");
    }
}
