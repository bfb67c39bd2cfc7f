//! A CSV file (RFC 4180) as records whose fields are asked for by the header's names.
//!
//! Invariant: a record knows the physical line it begins in, however many line breaks the quoted
//! fields before it hold. Deliberately absent: what the fields mean.

use csv::ByteRecord;

use super::values::Reason;

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
    /// The CSV reader gave up.
    #[error("reading {file} as CSV failed")]
    Csv {
        /// The file's name.
        file: &'static str,
        /// What it says.
        source: csv::Error,
    },
}

/// One record of a file with `N` needed columns.
pub struct Record<const N: usize> {
    /// The line it begins in, from 1.
    pub line: u64,
    columns: [(&'static str, usize); N],
    columns_in_header: usize,
    fields: ByteRecord,
}

impl<const N: usize> Record<N> {
    /// Says whether the record as a whole can be read: as many fields as the header, all UTF-8.
    ///
    /// # Errors
    /// [`Reason::FieldCount`], [`Reason::NotUtf8`].
    pub fn whole(&self) -> Result<(), Reason> {
        if self.fields.len() != self.columns_in_header {
            return Err(Reason::FieldCount {
                found: self.fields.len(),
                expected: self.columns_in_header,
            });
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

    /// The field in the `nth` of the needed columns, with its name.
    ///
    /// # Errors
    /// [`Reason::FieldCount`] where the record ends before it, [`Reason::NotUtf8`].
    pub fn field(&self, nth: usize) -> Result<(&'static str, &str), Reason> {
        let (column, place) = self.columns[nth];
        let bytes = self.fields.get(place).ok_or(Reason::FieldCount {
            found: self.fields.len(),
            expected: self.columns_in_header,
        })?;
        let text = str::from_utf8(bytes).map_err(|_| Reason::NotUtf8 {
            column: column.to_owned(),
        })?;
        Ok((column, text))
    }
}

/// Reads every record of a file and gives it to `each`.
///
/// A byte order mark, CRLF line ends and blank lines between records are tolerated; columns may
/// stand in any order, with others between them.
///
/// # Errors
/// [`TableError`] where no record can be read at all.
pub fn for_each_record<const N: usize>(
    file: &'static str,
    content: &[u8],
    columns: [&'static str; N],
    mut each: impl FnMut(Record<N>),
) -> Result<(), TableError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(content);
    let mut lines = LineCounter::new(content);
    let mut header = ByteRecord::new();
    let read = |source| TableError::Csv { file, source };
    if !reader.read_byte_record(&mut header).map_err(read)? {
        return Err(TableError::Empty { file });
    }
    let mut places = [("", 0); N];
    for (place, column) in places.iter_mut().zip(columns) {
        let at = header
            .iter()
            .position(|name| name == column.as_bytes())
            .ok_or(TableError::ColumnMissing { file, column })?;
        *place = (column, at);
    }
    let mut fields = ByteRecord::new();
    while reader.read_byte_record(&mut fields).map_err(read)? {
        let begin = fields.position().map_or(0, csv::Position::byte);
        each(Record {
            line: lines.line_at(begin),
            columns: places,
            columns_in_header: header.len(),
            fields: std::mem::take(&mut fields),
        });
    }
    Ok(())
}

/// Tells the line of growing byte offsets.
///
/// The CSV reader's own line number is not used: it counts from the end of the record before, so
/// that blank lines and the second half of a CRLF belong to the next record.
struct LineCounter<'a> {
    content: &'a [u8],
    offset: usize,
    line: u64,
}

impl<'a> LineCounter<'a> {
    fn new(content: &'a [u8]) -> Self {
        Self {
            content,
            offset: 0,
            line: 1,
        }
    }

    /// The line of the first byte at or behind `begin` that is no line end.
    fn line_at(&mut self, begin: u64) -> u64 {
        let begin = usize::try_from(begin).unwrap_or(usize::MAX);
        while let Some(&byte) = self.content.get(self.offset) {
            if self.offset >= begin && byte != b'\n' && byte != b'\r' {
                break;
            }
            self.line += u64::from(byte == b'\n');
            self.offset += 1;
        }
        self.line
    }
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
                        expected: 2
                    })
                ),
                (
                    3,
                    Err(Reason::FieldCount {
                        found: 3,
                        expected: 2
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
    }
}
