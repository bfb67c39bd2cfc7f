//! A CSV file cut into records and fields, with strict quotes (RFC 4180).
//!
//! Invariant: a quote opens a field only at its beginning, and closes it only before a comma or at
//! the end of a record; any other quote is a fault. A fault costs only the physical line in which
//! its record begins; reading continues with the next line. So a quote that is never closed does
//! not swallow the rows behind it. Deliberately absent: the header, and what the fields mean.

use csv::ByteRecord;

/// The largest record, in bytes. Without a bound, the search for the end of a quote that is never
/// closed would go on to the end of the file.
pub const RECORD_SIZE_MAX: usize = 1024 * 1024;

/// What is wrong with the quotes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteFault {
    /// A quoted field does not end.
    #[error("a quote is opened in field {field} and never closed")]
    NotClosed {
        /// The field's place in the record, from 1.
        field: usize,
    },
    /// A quoted field continues after its closing quote.
    #[error(
        "the quote that opens field {field} is closed before the field ends, in line {line}: \
         write a quote within quotes twice"
    )]
    ClosedEarly {
        /// The field's place in the record, from 1.
        field: usize,
        /// The line of the closing quote.
        line: u64,
    },
    /// A quote is inside a field that does not begin with a quote.
    #[error("field {field} has a quote in its middle, but does not begin with a quote")]
    Stray {
        /// The field's place in the record, from 1.
        field: usize,
    },
    /// A quoted field spans several lines, and what follows it is no row.
    #[error("a quote is not closed in its line, and the text after line {last_line} is not a row")]
    Runaway {
        /// The line in which the quote would be closed.
        last_line: u64,
    },
    /// The record is larger than [`RECORD_SIZE_MAX`].
    #[error("the row does not end within {RECORD_SIZE_MAX} bytes")]
    TooLarge,
}

/// A record as it was cut.
pub struct Cut {
    /// The line it begins in, from 1.
    pub line: u64,
    /// The line in which it ends; equal to `line` if there is a fault.
    pub last_line: u64,
    /// Its fields, without their quotes; if there is a fault, those before it.
    pub fields: ByteRecord,
    /// Why it is not a valid record.
    pub fault: Option<QuoteFault>,
}

/// Cuts records out of a file.
pub struct Cutter<'a> {
    rest: &'a [u8],
    line: u64,
    /// How many fields a record should have, if known.
    width: Option<usize>,
}

/// How many records after a multi-line record are examined, and how many of its line beginnings are
/// tried as the beginning of another record.
const LOOK_AHEAD_MAX: usize = 100;

impl<'a> Cutter<'a> {
    /// A cutter that begins with the first line of `content`.
    pub fn new(content: &'a [u8]) -> Self {
        Self {
            rest: content,
            line: 1,
            width: None,
        }
    }

    /// Sets how many fields a record should have.
    pub fn set_width(&mut self, width: usize) {
        self.width = Some(width);
    }

    /// Whether the multi-line record that ends at `end` has swallowed other records. To decide
    /// that, records are cut from `end` on, and then from each line of the record on. The record is
    /// a runaway if one of its lines gives fewer bad records than `end`.
    ///
    /// After an unclosed quote, the text inside quotes and the text between them are exchanged, up
    /// to the last quote. A line of a text may look like a row, so no single line is enough.
    fn is_runaway(&self, end: usize) -> bool {
        let mut behind = self.cutter_at(end);
        let bad_count = behind.bad_count(LOOK_AHEAD_MAX, usize::MAX, usize::MAX);
        let seen = self.rest.len() - behind.rest.len();
        let record = &self.rest[..end];
        let is_feed = |(at, byte): (usize, &u8)| (*byte == b'\n').then_some(at + 1);
        let lines = record.iter().enumerate().filter_map(is_feed);
        lines.take(LOOK_AHEAD_MAX).any(|begin| {
            let mut from_line = self.cutter_at(begin);
            from_line.bad_count(usize::MAX, seen - begin, bad_count) < bad_count
        })
    }

    /// A cutter for the content that begins `begin` bytes further on.
    fn cutter_at(&self, begin: usize) -> Cutter<'a> {
        Cutter {
            rest: &self.rest[begin..],
            line: self.line,
            width: self.width,
        }
    }

    /// Skips up to `records_max` records that begin within `length_max` bytes. Returns how many of
    /// them have a fault or a wrong number of fields; stops once this number reaches `bad_max`.
    fn bad_count(&mut self, records_max: usize, length_max: usize, bad_max: usize) -> usize {
        let length = self.rest.len();
        let mut bad_count = 0;
        for _ in 0..records_max {
            self.skip_line_ends();
            let passed = length - self.rest.len();
            if self.rest.is_empty() || passed >= length_max || bad_count >= bad_max {
                break;
            }
            let mut fields = ByteRecord::new();
            let end = cut(self.rest, self.line, &mut fields);
            let is_good = end.is_ok() && self.width.is_none_or(|width| width == fields.len());
            bad_count += usize::from(!is_good);
            let end = end.unwrap_or_else(|_| first_line_length(self.rest));
            self.rest = &self.rest[end..];
        }
        bad_count
    }

    fn skip_line_ends(&mut self) {
        while let [byte @ (b'\r' | b'\n'), rest @ ..] = self.rest {
            self.line += u64::from(*byte == b'\n');
            self.rest = rest;
        }
    }
}

impl Iterator for Cutter<'_> {
    type Item = Cut;

    fn next(&mut self) -> Option<Cut> {
        self.skip_line_ends();
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        let mut fields = ByteRecord::new();
        let cut = cut(self.rest, line, &mut fields).and_then(|end| {
            let last_line = line + line_feeds(&self.rest[..end]);
            if last_line > line && self.is_runaway(end) {
                return Err(QuoteFault::Runaway { last_line });
            }
            Ok(end)
        });
        let (end, fault) = match cut {
            Ok(end) => (end, None),
            Err(fault) => (first_line_length(self.rest), Some(fault)),
        };
        let (record, rest) = self.rest.split_at(end);
        self.line += line_feeds(record);
        self.rest = rest;
        Some(Cut {
            line,
            last_line: self.line,
            fields,
            fault,
        })
    }
}

fn first_line_length(content: &[u8]) -> usize {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    content.iter().position(is_end).unwrap_or(content.len())
}

fn line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Reads the record at the beginning of `content`, which is in line `line`, into `fields` and
/// returns where it ends. After a fault, `fields` holds the fields before the fault.
fn cut(content: &[u8], line: u64, fields: &mut ByteRecord) -> Result<usize, QuoteFault> {
    let bounded = &content[..content.len().min(RECORD_SIZE_MAX)];
    let is_cut_off = bounded.len() < content.len();
    let mut at = 0;
    loop {
        let field = fields.len() + 1;
        let end = if bounded.get(at) == Some(&b'"') {
            let text = at + 1;
            let length = quoted_length(&bounded[text..]).ok_or(if is_cut_off {
                QuoteFault::TooLarge
            } else {
                QuoteFault::NotClosed { field }
            })?;
            let end = text + length + 1;
            match bounded.get(end) {
                None | Some(b',' | b'\r' | b'\n') => {}
                Some(_) => {
                    let line = line + line_feeds(&bounded[..end]);
                    return Err(QuoteFault::ClosedEarly { field, line });
                }
            }
            fields.push_field(&unescaped(&bounded[text..text + length]));
            end
        } else {
            let ends = |byte: &u8| matches!(byte, b',' | b'\r' | b'\n');
            let length = bounded[at..].iter().position(ends);
            let end = length.map_or(bounded.len(), |length| at + length);
            if bounded[at..end].contains(&b'"') {
                return Err(QuoteFault::Stray { field });
            }
            fields.push_field(&bounded[at..end]);
            end
        };
        match bounded.get(end) {
            Some(b',') => at = end + 1,
            None if is_cut_off => return Err(QuoteFault::TooLarge),
            _ => return Ok(end),
        }
    }
}

/// The length of the quoted text with which `bytes` begins, up to its closing quote.
fn quoted_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == b'"')?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

/// The text of a quoted field, with each doubled quote made single.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut was_quote = false;
    for &byte in bytes {
        was_quote = byte == b'"' && !was_quote;
        if !was_quote {
            text.push(byte);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each record as its line and its fields, or its fault.
    fn records(content: &str) -> Vec<(u64, Result<Vec<String>, QuoteFault>)> {
        let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
        Cutter::new(content.as_bytes())
            .map(|cut| {
                let fields = cut.fields.iter().map(text).collect();
                (cut.line, cut.fault.map_or(Ok(fields), Err))
            })
            .collect()
    }

    #[test]
    fn a_quote_that_is_never_closed_swallows_no_other_row() {
        let read = |fields: &[&str]| Ok(fields.iter().map(|field| (*field).to_owned()).collect());
        let early = |field, line| Err(QuoteFault::ClosedEarly { field, line });
        for (content, expected) in [
            // The next quote opens another field.
            (
                "1,\"a,x\n2,\"b\",y\n3,c,z\n",
                vec![
                    (1, early(2, 2)),
                    (2, read(&["2", "b", "y"])),
                    (3, read(&["3", "c", "z"])),
                ],
            ),
            // There is no other quote at all.
            (
                "1,\"a,x\n2,b\n",
                vec![
                    (1, Err(QuoteFault::NotClosed { field: 2 })),
                    (2, read(&["2", "b"])),
                ],
            ),
            // A text with a quote that is not written twice; its second line is no row.
            (
                "1,\"6\" pipe\nlong\",x\n2,b\n",
                vec![
                    (1, early(2, 1)),
                    (2, Err(QuoteFault::Stray { field: 1 })),
                    (3, read(&["2", "b"])),
                ],
            ),
            (
                "1,6\" pipe\n2,\"\"\n3,\"\"\"\"\n",
                vec![
                    (1, Err(QuoteFault::Stray { field: 2 })),
                    (2, read(&["2", ""])),
                    (3, read(&["3", "\""])),
                ],
            ),
            (
                "1,\"\"a\n2,b\"",
                vec![(1, early(2, 1)), (2, Err(QuoteFault::Stray { field: 2 }))],
            ),
        ] {
            assert_eq!(records(content), expected, "{content}");
        }
    }

    #[test]
    fn a_row_without_end_is_read_only_so_far() {
        let long = "x".repeat(RECORD_SIZE_MAX + 1);
        for content in [
            format!("1,{long}\n2,b"),
            format!("1,\"{long}\n2,b"),
            format!("{}\n2,b", ",".repeat(RECORD_SIZE_MAX + 1)),
        ] {
            let records = records(&content);
            assert_eq!(records[0], (1, Err(QuoteFault::TooLarge)));
            assert_eq!(records.len(), 2);
            assert!(records[1].1.is_ok());
        }
    }

    #[test]
    fn a_line_of_a_swallowed_text_that_looks_like_a_row_hides_nothing() {
        let content = "row0,,\",\nrow1,,\"\n,,\na\"\nrow2,,\n";
        let mut cutter = Cutter::new(content.as_bytes());
        cutter.set_width(3);
        let found: Vec<_> = cutter.map(|cut| (cut.line, cut.fault)).collect();
        let runaway = QuoteFault::Runaway { last_line: 2 };
        assert_eq!(found, [(1, Some(runaway)), (2, None), (5, None)]);
        // A text may contain rows, and a row behind it may have a fault of its own.
        let content = "row0,,\"a\nb,c,d\ne\"\nrow1,\"f\"g,\nrow2,,\n";
        let mut cutter = Cutter::new(content.as_bytes());
        cutter.set_width(3);
        let found: Vec<_> = cutter.map(|cut| (cut.line, cut.fault.is_some())).collect();
        assert_eq!(found, [(1, false), (4, true), (5, false)]);
    }

    /// A row of three fields, written in the way of spreadsheets.
    fn written(fields: &[String], quotes_all: bool) -> String {
        let field = |field: &String| {
            if quotes_all || field.contains([',', '"', '\r', '\n']) {
                format!("\"{}\"", field.replace('"', "\"\""))
            } else {
                field.clone()
            }
        };
        fields.iter().map(field).collect::<Vec<_>>().join(",") + "\r\n"
    }

    fn rows() -> impl Strategy<Value = Vec<Vec<String>>> {
        let text = r#"[a-c"", ]{0,4}([a-c", \n]{0,6}[a-c])?"#;
        let texts = (text, text);
        prop::collection::vec(texts, 1..12).prop_map(|rows| {
            let row = |(nth, (first, second))| vec![format!("row{nth}"), first, second];
            rows.into_iter().enumerate().map(row).collect()
        })
    }

    proptest! {
        /// Well-formed rows are read back unchanged, with their line numbers.
        #[test]
        fn what_is_written_is_read(rows in rows(), quotes_all: bool) {
            let mut content = String::new();
            let mut expected = Vec::new();
            for row in &rows {
                expected.push((1 + line_feeds(content.as_bytes()), Ok(row.clone())));
                content += &written(row, quotes_all);
            }
            prop_assert_eq!(records(&content), expected);
        }

        /// With one quote too many or too few, each other row is read unchanged, or lies in the
        /// lines of a record that has a fault or a wrong number of fields.
        #[test]
        fn one_wrong_quote_is_noticed(
            rows in rows(), quotes_all: bool, spoiled: prop::sample::Index,
            place: prop::sample::Index,
        ) {
            let spoiled = spoiled.index(rows.len());
            let mut content = String::new();
            let mut begins = Vec::new();
            for (nth, row) in rows.iter().enumerate() {
                begins.push(1 + line_feeds(content.as_bytes()));
                let mut line = written(row, quotes_all);
                if nth == spoiled {
                    let quotes: Vec<_> = line.match_indices('"').map(|(at, _)| at).collect();
                    if quotes.is_empty() {
                        line.insert(place.index(line.len() - 1), '"');
                    } else {
                        line.remove(quotes[place.index(quotes.len())]);
                    }
                }
                content += &line;
            }
            let mut cutter = Cutter::new(content.as_bytes());
            cutter.set_width(3);
            let is_doubtful = |cut: &Cut| cut.fault.is_some() || cut.fields.len() != 3;
            let (doubtful, good): (Vec<_>, Vec<_>) = cutter.partition(is_doubtful);
            let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
            let good = good.iter().map(|cut| (cut.line, cut.fields.iter().map(text).collect()));
            let good: Vec<(u64, Vec<String>)> = good.collect();
            for (nth, row) in rows.iter().enumerate() {
                let begin = begins[nth];
                let is_named = || {
                    doubtful.iter().any(|cut| (cut.line..=cut.last_line).contains(&begin))
                };
                let is_read = good.contains(&(begin, row.clone()));
                prop_assert!(nth == spoiled || is_read || is_named(), "{nth} of {content:?}");
            }
        }
    }
}
