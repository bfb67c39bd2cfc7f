//! One line of a batch on its way to the command door.

use std::borrow::Cow;

/// A command as one line of NDJSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The command's type, for counting; empty if the line does not name it.
    pub command: Cow<'static, str>,
    /// The line itself, without its line end. It carries its own id, so that it may be sent again.
    pub json: String,
    /// Where it comes from, for a report.
    pub origin: Origin,
}

/// The row that a line is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The row's file; empty if there is only one.
    pub file: &'static str,
    /// The line in which the row begins, from 1.
    pub line: u64,
    /// The place among all lines that are sent, from 0.
    pub place: u64,
}
