//! A CSV file (RFC 4180) as records whose fields are found by the names in the header.
//!
//! Invariant: a record knows the physical line in which it begins, however many line breaks the
//! quoted fields before it hold. Quotes are read strictly (`quoting`): a quote that is not closed
//! costs the line in which its record begins, and no other. Deliberately absent: what the fields
//! mean.

use csv::ByteRecord;

use super::quoting::{Cutter, QuoteFault};
use super::values::{Reach, Reason};

/// Why nothing of a file can be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file has no header.
    #[error("{file} is empty; its first line must name its columns")]
    Empty {
        /// The file's name.
        file: &'static str,
    },
    /// The header lacks a column that is needed.
    #[error("{file} has no column named {column}; its first line must name its columns")]
    ColumnMissing {
        /// The file's name.
        file: &'static str,
        /// The column.
        column: &'static str,
    },
    /// The header is not quoted as CSV requires.
    #[error("the first line of {file} cannot be read as CSV")]
    Header {
        /// The file's name.
        file: &'static str,
        /// What is wrong with it.
        source: QuoteFault,
    },
}

/// One record of a file with `N` needed columns.
pub struct Record<const N: usize> {
    /// The line it begins in, from 1.
    pub line: u64,
    last_line: u64,
    columns: [(&'static str, usize); N],
    columns_in_header: usize,
    /// The fields; if there is a fault, those before it.
    fields: ByteRecord,
    fault: Option<QuoteFault>,
}

impl<const N: usize> Record<N> {
    /// Checks that the record as a whole can be read: valid quotes, as many fields as the header,
    /// all UTF-8.
    ///
    /// # Errors
    /// [`Reason::Quoting`], [`Reason::FieldCount`], [`Reason::NotUtf8`].
    pub fn whole(&self) -> Result<(), Reason> {
        if self.fault.is_some() || self.fields.len() != self.columns_in_header {
            return Err(self.broken());
        }
        let broken = self
            .fields
            .iter()
            .position(|field| str::from_utf8(field).is_err());
        match broken {
            None => Ok(()),
            Some(place) => {
                let known = self.columns.iter().find(|(_, at)| *at == place);
                Err(Reason::NotUtf8 {
                    column: known.map_or_else(
                        || format!("column {}", place + 1),
                        |(column, _)| (*column).to_owned(),
                    ),
                })
            }
        }
    }

    /// The name and the text of the `nth` needed column. Fields before a fault can be read.
    ///
    /// # Errors
    /// [`Reason::Quoting`]; [`Reason::FieldCount`] if the record ends before the column;
    /// [`Reason::NotUtf8`].
    pub fn field(&self, nth: usize) -> Result<(&'static str, &str), Reason> {
        let (column, place) = self.columns[nth];
        let bytes = self.fields.get(place).ok_or_else(|| self.broken())?;
        let text = str::from_utf8(bytes).map_err(|_| Reason::NotUtf8 {
            column: column.to_owned(),
        })?;
        Ok((column, text))
    }

    /// Why the record lacks fields or has too many.
    fn broken(&self) -> Reason {
        if let Some(fault) = self.fault {
            return Reason::Quoting(fault);
        }
        Reason::FieldCount {
            found: self.fields.len(),
            expected: self.columns_in_header,
            reach: Reach::between(self.line, self.last_line),
        }
    }
}

/// Reads every record of a file and passes it to `each`.
///
/// A byte order mark, CRLF line ends and blank lines between records are accepted. The columns may
/// be in any order, with other columns between them.
///
/// # Errors
/// [`TableError`] if the header cannot be used.
pub fn for_each_record<const N: usize>(
    file: &'static str,
    content: &[u8],
    columns: [&'static str; N],
    mut each: impl FnMut(Record<N>),
) -> Result<(), TableError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut cutter = Cutter::new(content);
    let header = cutter.next().ok_or(TableError::Empty { file })?;
    if let Some(source) = header.fault {
        return Err(TableError::Header { file, source });
    }
    let header = header.fields;
    cutter.set_width(header.len());
    let mut places = [("", 0); N];
    for (place, column) in places.iter_mut().zip(columns) {
        let at = header
            .iter()
            .position(|name| name == column.as_bytes())
            .ok_or(TableError::ColumnMissing { file, column })?;
        *place = (column, at);
    }
    for cut in cutter {
        each(Record {
            line: cut.line,
            last_line: cut.last_line,
            columns: places,
            columns_in_header: header.len(),
            fields: cut.fields,
            fault: cut.fault,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(content: &[u8]) -> Vec<(u64, Result<String, Reason>)> {
        let mut records = Vec::new();
        for_each_record("file.csv", content, ["b", "a"], |record| {
            let cells = record
                .whole()
                .and_then(|()| Ok(format!("{}|{}", record.field(0)?.1, record.field(1)?.1)));
            records.push((record.line, cells));
        })
        .unwrap();
        records
    }

    #[test]
    fn names_the_line_a_record_begins_in_whatever_stands_before_it() {
        let content = "\u{feff}a,b,c\r\n1,\"two\nlines\r\n\r\nand more\",3\r\n\r\n4,5,6\r\n\
                       7,\"8 \"\"quoted\"\"\",9\n";
        assert_eq!(
            records(content.as_bytes()),
            [
                (2, Ok("two\nlines\r\n\r\nand more|1".to_owned())),
                (7, Ok("5|4".to_owned())),
                (8, Ok("8 \"quoted\"|7".to_owned())),
            ]
        );
    }

    #[test]
    fn a_row_of_another_width_or_encoding_is_found() {
        assert_eq!(
            records(b"a,b\n1\n1,2,3\n1,\xff\n1,2"),
            [
                (
                    2,
                    Err(Reason::FieldCount {
                        found: 1,
                        expected: 2,
                        reach: Reach::default(),
                    })
                ),
                (
                    3,
                    Err(Reason::FieldCount {
                        found: 3,
                        expected: 2,
                        reach: Reach::default(),
                    })
                ),
                (
                    4,
                    Err(Reason::NotUtf8 {
                        column: "b".to_owned()
                    })
                ),
                (5, Ok("2|1".to_owned())),
            ]
        );
    }

    #[test]
    fn a_file_without_a_needed_column_cannot_be_read() {
        let error = for_each_record("file.csv", b"a,c\n1,2\n", ["a", "b"], |_| {}).unwrap_err();
        assert_eq!(
            error.to_string(),
            "file.csv has no column named b; its first line must name its columns"
        );
        assert!(matches!(
            for_each_record("file.csv", b"", ["a"], |_| {}),
            Err(TableError::Empty { .. })
        ));
        assert!(matches!(
            for_each_record("file.csv", b"a,\"b\n1,2\n", ["a"], |_| {}),
            Err(TableError::Header { .. })
        ));
    }

    #[test]
    fn fields_before_a_stray_quote_can_be_read_and_no_other() {
        let mut seen = Vec::new();
        for_each_record("file.csv", b"a,b,c\n1,x\"y,3\n4,5,6\n", ["a", "b"], |row| {
            let first = row.field(0).map(|(_, text)| text.to_owned());
            seen.push((row.line, first, row.field(1).is_ok(), row.whole().is_ok()));
        })
        .unwrap();
        let (one, four) = (Ok("1".to_owned()), Ok("4".to_owned()));
        assert_eq!(seen, [(2, one, false, false), (3, four, true, true)]);
    }

    #[test]
    fn a_row_of_another_width_says_how_far_it_reaches() {
        let rows = records(b"a,b,c\n1,\"2\n\n3\"\n");
        let reason = rows[0].1.as_ref().unwrap_err().to_string();
        assert_eq!(
            reason,
            "the row has 2 fields, but the header has 3; the row reaches to line 4: perhaps a \
             quote is missing"
        );
    }
}
