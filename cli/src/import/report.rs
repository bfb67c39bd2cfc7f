//! What an import found and what became of it.

use serde::Serialize;

/// How many rows of a file were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileRows {
    /// The file's name.
    pub file: String,
    /// Rows, the header not counted.
    pub rows: u64,
}

/// A row that cannot be read, or of which no command can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The file's name.
    pub file: String,
    /// The line in which the row begins, from 1.
    pub line: u64,
    /// Why.
    pub reason: String,
}
