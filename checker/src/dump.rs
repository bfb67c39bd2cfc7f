//! The raw log as lines of JSON: what `annals log dump` writes and the checker reads.
//!
//! The first line describes the rest:
//!
//! ```json
//! {"annals_log_dump":1,"partition_count":2,"partitions":[{"partition":0,"first":0,"end":13}, …]}
//! ```
//!
//! Then come the records of partition 0 in the order of offsets, those of partition 1, and so on:
//!
//! ```json
//! {"partition":0,"offset":12,"key":"<base64>","value":"<base64>",
//!  "headers":[["annals-kind","<base64>"],…]}
//! ```
//!
//! A key, a value and a header's value may be null. If a header's name is not UTF-8 (in a foreign
//! record), it is written as `{"base64":"…"}`. Some offsets may have no record. A dump holds every
//! record, also those that no reader accepts; it judges nothing.

use std::io::{self, BufRead, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::lines::{InputError, Lines};

/// The version of this format.
const FORMAT: u16 = 1;

/// A record as it is in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRecord {
    /// Its offset in the partition.
    pub offset: u64,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value, if it has one.
    pub value: Option<Vec<u8>>,
    /// Names and values of the headers, in order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// The first line of a dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    annals_log_dump: u16,
    /// The number of partitions.
    pub partition_count: u32,
    /// Where each partition begins and ends.
    pub partitions: Vec<PartitionBounds>,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionBounds {
    /// The partition.
    pub partition: u32,
    /// The first offset that is kept.
    pub first: u64,
    /// The offset after the last record.
    pub end: u64,
}

impl Header {
    /// The first line of a dump of these partitions.
    #[must_use]
    pub fn of(partitions: Vec<PartitionBounds>) -> Self {
        Self {
            annals_log_dump: FORMAT,
            partition_count: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
            partitions,
        }
    }

    /// What is wrong with the header, if anything.
    fn fault(&self) -> Option<String> {
        if self.annals_log_dump != FORMAT {
            return Some(format!("format {} is unknown", self.annals_log_dump));
        }
        let numbers = self.partitions.iter().map(|part| part.partition);
        (!numbers.eq(0..self.partition_count))
            .then(|| "the partitions are not 0 to the partition count".to_owned())
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    partition: u32,
    offset: u64,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(Name, Option<String>)>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Bytes { base64: String },
}

/// Writes a dump.
#[derive(Debug)]
pub struct DumpWriter<W> {
    out: W,
}

impl<W: Write> DumpWriter<W> {
    /// Writes the first line.
    ///
    /// # Errors
    /// Any error of the output.
    pub fn begin(mut out: W, header: &Header) -> io::Result<Self> {
        serde_json::to_writer(&mut out, header)?;
        out.write_all(b"\n")?;
        Ok(Self { out })
    }

    /// Writes one record.
    ///
    /// # Errors
    /// Any error of the output.
    pub fn record(&mut self, partition: u32, record: &RawRecord) -> io::Result<()> {
        let encoded = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
        let name = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
            Ok(text) => Name::Text(text.to_owned()),
            Err(_) => Name::Bytes {
                base64: STANDARD.encode(bytes),
            },
        };
        let headers = record.headers.iter();
        let line = Line {
            partition,
            offset: record.offset,
            key: encoded(&record.key),
            value: encoded(&record.value),
            headers: headers.map(|(n, v)| (name(n), encoded(v))).collect(),
        };
        serde_json::to_writer(&mut self.out, &line)?;
        self.out.write_all(b"\n")
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// Any error of the output.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads a dump.
pub struct DumpReader<R> {
    lines: Lines<R>,
    header: Header,
}

impl<R: BufRead> DumpReader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// If the first line is not that of a dump.
    pub fn open(name: &str, input: R) -> Result<Self, InputError> {
        let mut lines = Lines::of(name, input);
        let header: Header = match lines.next()? {
            Some((number, line)) => serde_json::from_slice(line).map_err(|error| {
                InputError::at(
                    name,
                    number,
                    format!("not the first line of a dump: {error}"),
                )
            })?,
            None => return Err(lines.error("the file is empty")),
        };
        match header.fault() {
            Some(fault) => Err(lines.error(fault)),
            None => Ok(Self { lines, header }),
        }
    }

    /// The contents of the first line.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next record with its partition; `None` at the end.
    ///
    /// # Errors
    /// If a line cannot be read; a dump that was cut off is not accepted.
    pub fn next_record(&mut self) -> Result<Option<(u32, RawRecord)>, InputError> {
        let Some((_, line)) = self.lines.next()? else {
            return Ok(None);
        };
        match read(line) {
            Ok(record) => Ok(Some(record)),
            Err(reason) => Err(self.lines.error(reason)),
        }
    }
}

fn read(line: &[u8]) -> Result<(u32, RawRecord), String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let decoded = |text: Option<String>| {
        let bytes = text.map(|text| STANDARD.decode(text)).transpose();
        bytes.map_err(|error| error.to_string())
    };
    let mut headers = Vec::with_capacity(line.headers.len());
    for (name, value) in line.headers {
        let name = match name {
            Name::Text(text) => text.into_bytes(),
            Name::Bytes { base64 } => decoded(Some(base64))?.unwrap_or_default(),
        };
        headers.push((name, decoded(value)?));
    }
    let record = RawRecord {
        offset: line.offset,
        key: decoded(line.key)?,
        value: decoded(line.value)?,
        headers,
    };
    Ok((line.partition, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Vec<PartitionBounds> {
        vec![PartitionBounds {
            partition: 0,
            first: 0,
            end: 2,
        }]
    }

    #[test]
    fn what_is_written_is_read_back_foreign_records_too() {
        let records = [
            RawRecord {
                offset: 0,
                key: None,
                value: Some(b"{}".to_vec()),
                headers: vec![(b"annals-kind".to_vec(), Some(b"claim".to_vec()))],
            },
            RawRecord {
                offset: 1,
                key: Some(Vec::new()),
                value: None,
                headers: vec![(vec![0xff, 0xfe], None)],
            },
        ];
        let mut file = Vec::new();
        let mut writer = DumpWriter::begin(&mut file, &Header::of(bounds())).unwrap();
        for record in &records {
            writer.record(0, record).unwrap();
        }
        writer.finish().unwrap();
        let mut reader = DumpReader::open("dump", file.as_slice()).unwrap();
        assert_eq!(reader.header().partitions, bounds());
        for record in records {
            assert_eq!(reader.next_record().unwrap(), Some((0, record)));
        }
        assert_eq!(reader.next_record().unwrap(), None);
    }

    #[test]
    fn a_dump_that_was_cut_off_is_refused() {
        let mut file = Vec::new();
        DumpWriter::begin(&mut file, &Header::of(bounds())).unwrap();
        file.extend(b"{\"partition\":0,\"off");
        let mut reader = DumpReader::open("dump", file.as_slice()).unwrap();
        let error = reader.next_record().unwrap_err();
        assert_eq!(error.place, "dump:2");
        assert!(DumpReader::open("dump", &b""[..]).is_err());
        let odd = br#"{"annals_log_dump":1,"partition_count":2,"partitions":[]}"#;
        assert!(DumpReader::open("dump", &odd[..]).is_err());
    }
}
