//! What clients asked and were told: the checker's history, with the clock of a run.
//!
//! Deliberately absent: its format (`checker::history`).

use std::io;
use std::path::Path;
use std::time::Instant;

use checker::history::HistoryWriter;
pub use checker::history::{Accepted, Coded, Entry, EventRef, Invoke, Refused, What};

/// The history of a run, written by all of its clients.
#[derive(Debug)]
pub struct History {
    began: Instant,
    writer: HistoryWriter,
}

impl History {
    /// Begins one in a new file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(path: &Path) -> io::Result<Self> {
        Ok(Self {
            began: Instant::now(),
            writer: HistoryWriter::open(path)?,
        })
    }

    /// The time on its clock, which does not go back.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("a run ends before that")
    }

    /// Appends a line.
    ///
    /// # Panics
    /// If it cannot be written: a run without its history is worth nothing.
    pub fn write(&self, entry: &Entry) {
        self.writer.write(entry).expect("room for the history");
    }
}
