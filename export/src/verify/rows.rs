//! Compares the rows that the log gives with those in the files of one partition.
//!
//! Invariant: of each file the first difference is found. Deliberately absent: reading the log.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use event_log::subscription::Placed;
use position::Partition;

use super::{Finding, is_inside};
use crate::cell::{Cell, Column, day_of, day_text};
use crate::lines::Lines;
use crate::manifest::{FileEntry, FileSpan, Format, Manifest};
use crate::parquet_file::ParquetRows;
use crate::source::head_at;

/// The comparison of one partition.
pub(super) struct Comparison<'a> {
    partition: Partition,
    folder: PathBuf,
    columns: &'a [Column],
    format: Format,
    /// The files of the partition, in order, each with its commits; the last is the next one.
    waiting: Vec<(&'a FileEntry, &'a FileSpan)>,
    current: Option<Current<'a>>,
    /// How many events of the log no file has.
    left_out: u64,
}

/// The file that is being compared.
struct Current<'a> {
    entry: &'a FileEntry,
    span: &'a FileSpan,
    /// Absent once a difference was found.
    rows: Option<FileRows>,
    row: u64,
}

enum FileRows {
    Parquet(Box<ParquetRows>),
    Lines(Box<LinesRows>),
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        manifest: &'a Manifest,
        partition: Partition,
        folder: &Path,
        columns: &'a [Column],
    ) -> Self {
        let files = manifest.files.iter();
        let files = files.filter_map(|file| Some((file, file.of.as_ref()?)));
        let mut waiting: Vec<_> = files.filter(|(_, of)| of.partition == partition).collect();
        waiting.reverse();
        Self {
            partition,
            folder: folder.to_owned(),
            columns,
            format: manifest.request.format,
            waiting,
            current: None,
            left_out: 0,
        }
    }

    /// Compares the row of an event with the next row in the files.
    pub(super) fn take(&mut self, placed: &Placed, row: &[Cell<'_>], findings: &mut Vec<Finding>) {
        let position = placed.position;
        loop {
            match &self.current {
                Some(current) if position <= current.span.last => break,
                Some(_) => self.end_file(findings),
                None => {}
            }
            let Some((entry, span)) = self.waiting.pop() else {
                break;
            };
            self.current = Some(self.opened(entry, span, findings));
        }
        let partition = self.partition;
        let Some(current) = self.current.as_mut().filter(|it| position >= it.span.first) else {
            self.left_out += 1;
            if self.left_out == 1 {
                let what = format!("no file has the event of {}", placed.commit.stream);
                findings.push(Finding::of_export(what).at(partition, position));
            }
            return;
        };
        let Some(rows) = &mut current.rows else {
            return;
        };
        current.row += 1;
        let number = current.row;
        let mut what = match rows.compare(row, self.columns) {
            Ok(Compared::Equal) => None,
            Ok(Compared::Ended) => Some(format!("has no row {number}, and the log has one")),
            Ok(Compared::Differs(what)) => Some(format!("row {number}: {what}")),
            Err(error) => Some(format!("cannot be read at row {number}: {error}")),
        };
        let day = day_text(day_of(placed.commit.recorded_at.micros()));
        if what.is_none()
            && !current
                .entry
                .path
                .starts_with(&format!("recorded_day={day}/"))
        {
            what = Some(format!("row {number} was recorded on {day}"));
        }
        if what.is_none()
            && position == current.span.last
            && head_at(&placed.record) != current.span.head
        {
            let head = head_at(&placed.record);
            what = Some(format!(
                "the chain's head here is {head}, not that of the manifest"
            ));
        }
        if let Some(what) = what {
            current.rows = None;
            let finding = Finding::of_file(&current.entry.path, what);
            findings.push(finding.at(partition, position));
        }
    }

    fn opened(
        &self,
        entry: &'a FileEntry,
        span: &'a FileSpan,
        findings: &mut Vec<Finding>,
    ) -> Current<'a> {
        let path = self.folder.join(&entry.path);
        let rows = match is_inside(&entry.path) {
            true => FileRows::open(&path, self.columns, self.format),
            // Reported already.
            false => Ok(None),
        };
        let rows = rows.unwrap_or_else(|what| {
            findings.push(Finding::of_file(&entry.path, what));
            None
        });
        Current {
            entry,
            span,
            rows,
            row: 0,
        }
    }

    fn end_file(&mut self, findings: &mut Vec<Finding>) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        let (entry, span) = (current.entry, current.span);
        let at = |what: String| Finding::of_file(&entry.path, what).at(self.partition, span.last);
        let Some(rows) = &mut current.rows else {
            return;
        };
        match rows.has_more() {
            Ok(false) if current.row == entry.rows => {}
            Ok(false) => findings.push(at(format!(
                "has {} rows, and the manifest says {}",
                current.row, entry.rows
            ))),
            Ok(true) => findings.push(at(format!(
                "has a row {} that the log does not give",
                current.row + 1
            ))),
            Err(error) => findings.push(at(format!("cannot be read to its end: {error}"))),
        }
    }

    /// Ends the comparison: the log gives no further row.
    pub(super) fn finish(&mut self, findings: &mut Vec<Finding>) {
        self.end_file(findings);
        while let Some((entry, span)) = self.waiting.pop() {
            let what = "the log gives none of its rows";
            let finding = Finding::of_file(&entry.path, what);
            findings.push(finding.at(self.partition, span.first));
        }
        if self.left_out > 1 {
            let what = format!("no file has {} events of the log", self.left_out);
            findings.push(Finding::of_partition(self.partition, what));
        }
    }

    /// Ends the comparison early: the log cannot be read on.
    pub(super) fn give_up(&self, findings: &mut Vec<Finding>) {
        let open = self
            .current
            .iter()
            .map(|current| (current.entry, current.span));
        for (entry, span) in open.chain(self.waiting.iter().copied().rev()) {
            let what = "could not be compared to its end with the log";
            let finding = Finding::of_file(&entry.path, what);
            findings.push(finding.at(self.partition, span.last));
        }
    }
}

/// How a row of a file and one of the log compare.
enum Compared {
    Equal,
    Ended,
    Differs(String),
}

impl FileRows {
    fn open(path: &Path, columns: &[Column], format: Format) -> Result<Option<Self>, String> {
        if !path.exists() {
            // Reported already.
            return Ok(None);
        }
        match format {
            Format::Parquet => {
                let rows = ParquetRows::open(path, columns).map_err(|error| error.to_string())?;
                Ok(Some(Self::Parquet(Box::new(rows))))
            }
            Format::Csv | Format::Ndjson => {
                let rows = LinesRows::open(path, columns, format)?;
                Ok(Some(Self::Lines(Box::new(rows))))
            }
        }
    }

    fn compare(&mut self, row: &[Cell<'_>], columns: &[Column]) -> Result<Compared, String> {
        match self {
            Self::Parquet(rows) => Ok(match rows.compare(row)? {
                None => Compared::Ended,
                Some(None) => Compared::Equal,
                Some(Some((name, found))) => {
                    let mut named = columns.iter().zip(row);
                    let expected = named.find(|(column, _)| column.name == name);
                    let expected = expected.map(|(column, cell)| cell.shown(column.kind));
                    Compared::Differs(format!(
                        "its {name} is {found:?}, and the log has {:?}",
                        expected.unwrap_or_default()
                    ))
                }
            }),
            Self::Lines(rows) => rows.compare(row),
        }
    }

    fn has_more(&mut self) -> Result<bool, String> {
        match self {
            Self::Parquet(rows) => rows.has_more(),
            Self::Lines(rows) => rows.read(1).map(|read| !read.is_empty()),
        }
    }
}

/// A file of lines, compared byte by byte: a cell of CSV may hold line breaks.
struct LinesRows {
    file: BufReader<File>,
    lines: Lines,
}

impl LinesRows {
    fn open(path: &Path, columns: &[Column], format: Format) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
        let lines = Lines::new(columns, format);
        let header = lines.header();
        let mut this = Self {
            file: BufReader::new(file),
            lines,
        };
        match this.read(header.len())? == header {
            true => Ok(this),
            false => Err("has another header than was written".to_owned()),
        }
    }

    /// The next bytes, fewer at the end.
    fn read(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(count);
        let mut part = self.file.by_ref().take(count as u64);
        let read = part.read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    fn compare(&mut self, row: &[Cell<'_>]) -> Result<Compared, String> {
        let line = self
            .lines
            .line(row)
            .map_err(|error| error.to_string())?
            .to_vec();
        let found = self.read(line.len())?;
        if found.is_empty() {
            return Ok(Compared::Ended);
        }
        let differs = found
            .iter()
            .zip(&line)
            .position(|(found, line)| found != line);
        let Some(at) = differs.or((found.len() < line.len()).then_some(found.len())) else {
            return Ok(Compared::Equal);
        };
        let part = |bytes: &[u8]| {
            let from = at.saturating_sub(16);
            let to = bytes.len().min(at + 16);
            String::from_utf8_lossy(&bytes[from.min(to)..to]).into_owned()
        };
        Ok(Compared::Differs(format!(
            "it has {:?} from its byte {at} on, and the log gives {:?}",
            part(&found),
            part(&line)
        )))
    }
}
