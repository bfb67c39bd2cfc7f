//! CSV and lines of JSON.
//!
//! Invariant: both are what the query door gives: CSV has a header, lines that end with CR LF, null as
//! an empty cell, an empty text as `""`, and no cell that a spreadsheet would compute; a line of JSON
//! holds the data to the letter. Deliberately absent: where the lines go.

use std::io::{self, Write};

use kernel::escape::csv_cell;

use crate::cell::{Cell, Column, Kind};
use crate::manifest::Format;

/// Makes lines of rows.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    columns: Vec<Column>,
    /// Each column's name as it begins a member of JSON; absent for CSV.
    members: Option<Vec<Vec<u8>>>,
    line: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(columns: &[Column], format: Format) -> Self {
        let member = |(number, column): (usize, &Column)| {
            let before = if number == 0 { "{" } else { "," };
            format!("{before}\"{}\":", column.name).into_bytes()
        };
        let members = (format == Format::Ndjson).then(|| {
            let columns = columns.iter().enumerate();
            columns.map(member).collect()
        });
        Self {
            columns: columns.to_vec(),
            members,
            line: Vec::new(),
        }
    }

    /// The header, if there is one.
    pub(crate) fn header(&self) -> Vec<u8> {
        match self.members {
            Some(_) => Vec::new(),
            None => {
                let names: Vec<&str> = self.columns.iter().map(|one| &*one.name).collect();
                format!("{}\r\n", names.join(",")).into_bytes()
            }
        }
    }

    /// The line of a row, with its end.
    pub(crate) fn line(&mut self, cells: &[Cell<'_>]) -> io::Result<&[u8]> {
        self.line.clear();
        match &self.members {
            Some(members) => {
                for ((cell, column), member) in cells.iter().zip(&self.columns).zip(members) {
                    self.line.extend_from_slice(member);
                    let written = cell.write_json(column.kind, &mut self.line);
                    written.map_err(io::Error::other)?;
                }
                self.line.extend_from_slice(b"}\n");
            }
            None => {
                for (number, (cell, column)) in cells.iter().zip(&self.columns).enumerate() {
                    if number > 0 {
                        self.line.push(b',');
                    }
                    write_cell(cell, column.kind, &mut self.line);
                }
                self.line.extend_from_slice(b"\r\n");
            }
        }
        Ok(&self.line)
    }
}

fn write_cell(cell: &Cell<'_>, kind: Kind, csv: &mut Vec<u8>) {
    let shown = cell.shown(kind);
    if !matches!(cell, Cell::Text(_) | Cell::Texts(_)) {
        // Digits and punctuation without a comma or a quote.
        csv.extend_from_slice(shown.as_bytes());
        return;
    }
    let text = csv_cell(&shown);
    let is_plain = |byte: u8| !matches!(byte, b',' | b'"' | b'\n' | b'\r');
    if !text.is_empty() && text.bytes().all(is_plain) {
        csv.extend_from_slice(text.as_bytes());
        return;
    }
    csv.push(b'"');
    csv.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    csv.push(b'"');
}

/// A file of lines.
pub(crate) struct LinesFile<W: Write> {
    lines: Lines,
    out: W,
}

impl<W: Write> LinesFile<W> {
    pub(crate) fn begin(mut out: W, columns: &[Column], format: Format) -> io::Result<Self> {
        let lines = Lines::new(columns, format);
        out.write_all(&lines.header())?;
        Ok(Self { lines, out })
    }

    pub(crate) fn write(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        self.out.write_all(self.lines.line(cells)?)
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_in_both_formats() {
        let columns = [
            Column::new("n", Kind::Int64),
            Column::new("text", Kind::Text).nullable(),
            Column::new("data", Kind::Json),
            Column::new("at", Kind::Moment),
            Column::new("sum", Kind::Decimal { scale: 2 }),
        ];
        let rows = [
            [
                Cell::Int(i64::MIN),
                Cell::text("=1\"\n"),
                Cell::text("{\"a\":[1]}"),
                Cell::Moment(0),
                Cell::Decimal(-5),
            ],
            [
                Cell::Int(0),
                Cell::Null,
                Cell::text("{}"),
                Cell::Moment(1),
                Cell::Decimal(i128::MAX / 10),
            ],
        ];
        let text = |format| {
            let mut file = LinesFile::begin(Vec::new(), &columns, format).unwrap();
            for row in &rows {
                file.write(row).unwrap();
            }
            String::from_utf8(file.finish().unwrap()).unwrap()
        };
        assert_eq!(
            text(Format::Csv),
            "n,text,data,at,sum\r\n\
             -9223372036854775808,\"'=1\"\"\\n\",\"{\"\"a\"\":[1]}\",1970-01-01T00:00:00Z,-0.05\r\n\
             0,,{},1970-01-01T00:00:00.000001Z,170141183460469231731687303715884105.72\r\n"
                .replace("\\n", "\n")
        );
        assert_eq!(
            text(Format::Ndjson),
            "{\"n\":-9223372036854775808,\"text\":\"=1\\\"\\n\",\"data\":{\"a\":[1]},\
             \"at\":\"1970-01-01T00:00:00Z\",\"sum\":\"-0.05\"}\n\
             {\"n\":0,\"text\":null,\"data\":{},\"at\":\"1970-01-01T00:00:00.000001Z\",\
             \"sum\":\"170141183460469231731687303715884105.72\"}\n"
        );
    }
}
