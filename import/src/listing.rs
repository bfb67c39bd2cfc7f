//! A list of rows for a report: the first of them, and how many there are.
//!
//! Invariant: memory is bounded, however many rows are bad. If a file is given, every row is
//! written to it as soon as it is found. Deliberately absent: what is wrong with a row.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use kernel::escape;
use serde::{Serialize, Serializer};

use super::ImportError;

/// How many rows a list keeps.
pub const ROWS_KEPT_MAX: usize = 1_000;

/// A row of a file, with the reason why it is in the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unreadable {
    /// The file's name.
    pub file: String,
    /// The line in which the row begins, from 1.
    pub line: u64,
    /// Why the row is in the list.
    pub reason: String,
}

/// A list of rows. It keeps only the first [`ROWS_KEPT_MAX`] in memory.
#[derive(Debug, Default)]
pub struct Listing {
    kept: Vec<Unreadable>,
    counts: BTreeMap<String, u64>,
    file: Option<Written>,
}

/// The CSV file that all rows are written to: file, line, reason.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    /// After the first error, nothing more is written.
    writer: Result<csv::Writer<File>, csv::Error>,
}

impl Listing {
    /// An empty list; if `path` is given, all its rows are written to that file.
    ///
    /// # Errors
    /// [`ImportError::File`] if the file cannot be created.
    pub fn written_to(path: Option<&Path>) -> Result<Self, ImportError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let begin = || {
            let mut writer = csv::Writer::from_path(path)?;
            writer.write_record(["file", "line", "reason"])?;
            Ok(writer)
        };
        let writer = begin().map_err(|error| unwritten(path, error))?;
        Ok(Self {
            file: Some(Written {
                path: path.to_owned(),
                writer: Ok(writer),
            }),
            ..Self::default()
        })
    }

    /// Adds a row.
    pub fn add(&mut self, row: Unreadable) {
        if let Some(Written { writer, .. }) = &mut self.file
            && let Ok(open) = writer
        {
            let line = row.line.to_string();
            let cells = [row.file.as_str(), &line, &row.reason].map(escape::csv_cell);
            if let Err(error) = open.write_record(cells.map(|cell| cell.into_owned())) {
                *writer = Err(error);
            }
        }
        *self.counts.entry(row.file.clone()).or_default() += 1;
        if self.kept.len() < ROWS_KEPT_MAX {
            self.kept.push(row);
        }
    }

    /// Completes the file, and sorts the kept rows by file, then line.
    ///
    /// # Errors
    /// [`ImportError::File`] if not all rows could be written.
    pub fn finish(&mut self) -> Result<(), ImportError> {
        self.kept.sort();
        let Some(Written { path, writer }) = self.file.take() else {
            return Ok(());
        };
        let flushed = writer.and_then(|mut writer| Ok(writer.flush()?));
        flushed.map_err(|error| unwritten(&path, error))
    }

    /// The rows that were kept, at most [`ROWS_KEPT_MAX`].
    #[must_use]
    pub fn rows(&self) -> &[Unreadable] {
        &self.kept
    }

    /// How many rows there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many rows of one file there are.
    #[must_use]
    pub fn count_of(&self, file: &str) -> u64 {
        self.counts.get(file).copied().unwrap_or_default()
    }
}

/// Only the kept rows.
impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.kept.serialize(serializer)
    }
}

fn unwritten(path: &Path, error: csv::Error) -> ImportError {
    ImportError::File {
        action: "write",
        path: path.to_owned(),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: u64, reason: &str) -> Unreadable {
        Unreadable {
            file: "a.csv".to_owned(),
            line,
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn a_million_bad_rows_are_counted_and_only_the_first_are_kept() {
        let mut listing = Listing::default();
        for line in (1..=1_000_000).rev() {
            listing.add(row(line, "order_id is empty"));
        }
        listing.finish().unwrap();
        assert_eq!(listing.count(), 1_000_000);
        assert_eq!(listing.count_of("a.csv"), 1_000_000);
        assert_eq!(listing.rows().len(), ROWS_KEPT_MAX);
        assert!(listing.rows().is_sorted());
    }

    #[test]
    fn a_requested_file_lists_all_rows_and_none_as_a_formula() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.csv");
        let mut listing = Listing::written_to(Some(&path)).unwrap();
        let count = 2 * ROWS_KEPT_MAX as u64;
        for line in 1..=count {
            listing.add(row(line, "=HYPERLINK(1)"));
        }
        listing.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count() as u64, count + 1);
        assert_eq!(text.lines().nth(1), Some("a.csv,1,'=HYPERLINK(1)"));
        let nowhere = folder.path().join("no/bad.csv");
        assert!(Listing::written_to(Some(&nowhere)).is_err());
    }
}
