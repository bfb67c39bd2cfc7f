//! The history that the checker reads: what clients asked and what they were answered, with the
//! run's clock.
//!
//! Deliberately absent: the format of the history (`checker::history`).

use std::io;
use std::path::Path;
use std::time::Instant;

use checker::history::HistoryWriter;
pub use checker::history::{Accepted, Coded, Entry, EventRef, Invoke, Refused, What};

/// The history of a run; all of its clients write to it.
#[derive(Debug)]
pub struct History {
    began: Instant,
    writer: HistoryWriter,
}

impl History {
    /// Begins a history in a new file.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn begin(path: &Path) -> io::Result<Self> {
        Ok(Self {
            began: Instant::now(),
            writer: HistoryWriter::open(path)?,
        })
    }

    /// The time in milliseconds by the history's clock, which never goes back.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("a run ends before that")
    }

    /// Appends a line.
    ///
    /// # Panics
    /// If the line cannot be written: a run without its history is worth nothing.
    pub fn write(&self, entry: &Entry) {
        self.writer.write(entry).expect("room for the history");
    }
}
