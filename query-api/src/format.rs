//! The forms of an answer with rows: JSON, CSV and lines of JSON.
//!
//! Invariants: JSON and its lines hold the data to the letter. CSV is for people and spreadsheets: a
//! header line, lines that end with CR LF (RFC 4180), null as an empty cell and an empty text as `""`;
//! a cell that a spreadsheet would compute begins with an apostrophe, and control characters are
//! escaped (`kernel::escape`). Deliberately absent: which rows.

use axum::http::{HeaderMap, header};
use door::Problem;
use kernel::escape::csv_cell;
use sqlx::postgres::PgRow;

use super::asked::invalid;
use super::shown::ShownModel;
use super::values::Cell;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
    Ndjson,
}

impl Format {
    const ALL: [Self; 3] = [Self::Json, Self::Csv, Self::Ndjson];

    /// The form that a request asks for: by the parameter, else by `Accept`, else JSON.
    pub(super) fn of(parameter: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(name) = parameter else {
            return Ok(Self::accepted(headers));
        };
        let named = Self::ALL.into_iter().find(|format| format.name() == name);
        named.ok_or_else(|| invalid("format", "format must be json, csv or ndjson".to_owned()))
    }

    /// The form that `Accept` weighs most (RFC 9110 §12.5.1); JSON unless another one weighs more.
    fn accepted(headers: &HeaderMap) -> Self {
        let texts = headers.get_all(header::ACCEPT).iter();
        let ranges = texts
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','));
        let ranges: Vec<(String, f32)> = ranges
            .map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
                let weight = parts.find_map(|part| part.strip_prefix("q="));
                let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
                (media_type, weight)
            })
            .collect();
        let weight = |format: Self| {
            let (kind, _) = format.media_type().split_once('/').unwrap_or_default();
            let names = [format.media_type(), &format!("{kind}/*"), "*/*"].map(str::to_owned);
            let found = names
                .iter()
                .find_map(|name| ranges.iter().find(|(of, _)| of == name));
            found.map_or(0.0, |(_, weight)| *weight)
        };
        let mut best = Self::Json;
        for format in [Self::Csv, Self::Ndjson] {
            if weight(format) > weight(best) {
                best = format;
            }
        }
        best
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Json | Self::Ndjson => self.media_type(),
        }
    }
}

/// Adds the header line of a CSV file.
pub(super) fn write_header(shown: &ShownModel, csv: &mut Vec<u8>) {
    let names: Vec<&str> = shown
        .model
        .columns
        .iter()
        .map(|column| column.name)
        .collect();
    csv.extend_from_slice(names.join(",").as_bytes());
    csv.extend_from_slice(b"\r\n");
}

/// Adds a row as a line of a CSV file or as a line of JSON.
pub(super) fn write_line(
    shown: &ShownModel,
    format: Format,
    row: &PgRow,
    from: usize,
    lines: &mut Vec<u8>,
) -> Result<(), sqlx::Error> {
    if format != Format::Csv {
        shown.write_json(row, from, lines)?;
        lines.push(b'\n');
        return Ok(());
    }
    for (number, cell) in shown.cells(row, from).enumerate() {
        if number > 0 {
            lines.push(b',');
        }
        write_cell(&cell?, lines);
    }
    lines.extend_from_slice(b"\r\n");
    Ok(())
}

fn write_cell(cell: &Cell<'_>, csv: &mut Vec<u8>) {
    let Some(text) = cell.text() else {
        // Digits and punctuation without a comma or a quote.
        csv.extend_from_slice(cell.to_string().as_bytes());
        return;
    };
    let text = csv_cell(&text).into_owned();
    let is_plain = |byte: u8| !matches!(byte, b',' | b'"' | b'\n' | b'\r');
    if !text.is_empty() && text.bytes().all(is_plain) {
        csv.extend_from_slice(text.as_bytes());
        return;
    }
    csv.push(b'"');
    csv.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    csv.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(text: &str) -> Format {
        Format::accepted(&HeaderMap::from_iter([(
            header::ACCEPT,
            text.parse().unwrap(),
        )]))
    }

    #[test]
    fn a_client_says_which_form_it_wants() {
        for (text, format) in [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("text/csv", Format::Csv),
            ("Text/CSV; charset=utf-8", Format::Csv),
            ("text/csv;q=0.5, application/json", Format::Json),
            ("application/json;q=0.5, text/csv", Format::Csv),
            ("text/html, */*;q=0.8", Format::Json),
            ("application/x-ndjson, */*;q=0.8", Format::Ndjson),
            ("image/png", Format::Json),
        ] {
            assert_eq!(accepted(text), format, "{text}");
        }
        assert_eq!(
            Format::of(Some("csv"), &HeaderMap::new()).unwrap(),
            Format::Csv
        );
        assert!(Format::of(Some("xlsx"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_never_computed() {
        for (cell, csv) in [
            (Cell::Null, ""),
            (Cell::Text(""), "\"\""),
            (Cell::Text("a b"), "a b"),
            (Cell::Text("a,b"), "\"a,b\""),
            (Cell::Text("a \"b\""), "\"a \"\"b\"\"\""),
            (Cell::Text("a\r\nb"), "\"a\nb\""),
            (Cell::Text("=1+1"), "'=1+1"),
            (Cell::Text("@A1,2"), "\"'@A1,2\""),
            (Cell::Text("-1"), "-1"),
            (Cell::Bigint(-1), "-1"),
            (Cell::Bytes(&[0, 255]), "00ff"),
            (
                Cell::Moment("2018-01-31T12:00:00Z".parse().unwrap()),
                "2018-01-31T12:00:00Z",
            ),
        ] {
            let mut written = Vec::new();
            write_cell(&cell, &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), csv, "{cell:?}");
        }
    }
}
